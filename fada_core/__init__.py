"""FADA: talking portraits from one picture and a speech recording, by a distilled diffusion model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import FadaError
from .threads import limit_spinning

if TYPE_CHECKING:
    from .pipeline import Pipeline, load

limit_spinning()  # before anything here loads torch

__version__ = "0.1.0"
__all__ = ["FadaError", "Pipeline", "__version__", "load"]


def __getattr__(name: str) -> Any:
    # The pipeline imports torch and the networks, which takes seconds; `import fada_core` alone should not.
    if name in ("Pipeline", "load"):
        from . import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
