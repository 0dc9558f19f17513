"""ComfyUI's entry point: the nodes of FADA, and their help pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .nodes import FadaExtension

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> FadaExtension:
    """Called by ComfyUI once, to ask for the nodes."""
    # Not at the top: the package is also imported where there is no ComfyUI, by tests and packaging tools.
    from .nodes import FadaExtension

    return FadaExtension()
