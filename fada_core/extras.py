"""Optional libraries of the quality measures, and a safety check of their downloaded weights."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from .errors import FadaError
from .pickles import PickleError, load_pickle

_PACKAGES = {"torch_fidelity": "torch-fidelity", "cdfvd.fvd": "cd-fvd", "syncnet_python": "syncnet-python"}


def library(module: str) -> ModuleType:
    """Import a module of an optional library.

    Raises:
        FadaError: the library is not installed, or its import fails.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = _PACKAGES[module]
        raise FadaError(f"This measure needs the package {package} ({error}): pip install {package}.") from error


def check_weights(path: Path, source: str) -> None:
    """Check that the pickle `path` holds weights and nothing else: the libraries would run any code in it.

    Args:
        source: for the error message: the option that names the file, or where it is published.

    Raises:
        FadaError: there is no such file, or it holds something else.
    """
    if not path.is_file():
        raise FadaError(f"There is no file '{path}'; give the path of the weights ({source}).")
    try:
        load_pickle(path)
    except PickleError as error:
        raise FadaError(
            f"'{path.name}' holds no weights that can be read safely; get the original ({source})."
        ) from error
