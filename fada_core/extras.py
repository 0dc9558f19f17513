"""Libraries that only some measures need, and weights for them that come from elsewhere."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from .errors import FadaError
from .pickles import PickleError, load_pickle

_PACKAGES = {"torch_fidelity": "torch-fidelity", "cdfvd.fvd": "cd-fvd", "syncnet_python": "syncnet-python"}


def library(module: str) -> ModuleType:
    """A module of a library that may not be installed.

    Raises:
        FadaError: it is not, or it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = _PACKAGES[module]
        raise FadaError(f"This measure needs the package {package} ({error}): pip install {package}.") from error


def check_weights(path: Path, source: str) -> None:
    """That `path` holds weights and nothing else: the libraries would run whatever code is in it.

    Args:
        source: the option that names the file, or where it is published, for errors.

    Raises:
        FadaError: no such file, or it holds something else.
    """
    if not path.is_file():
        raise FadaError(f"There is no file '{path}'; give the path of the weights ({source}).")
    try:
        load_pickle(path)
    except PickleError as error:
        raise FadaError(
            f"'{path.name}' holds no weights that can be read safely; get the original ({source})."
        ) from error
