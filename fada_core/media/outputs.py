"""Where results go: format, name, place and room checked before the work, and held while it is written."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from ..atomic import lock
from ..errors import FadaError

STDOUT = "-"  #: as a path: MP4 to the standard output
SUFFIXES = {".mp4": "mp4", ".webm": "webm", ".gif": "gif"}
UNFINISHED = ".unfinished"  #: in a folder of frames: what is being made there, until it is

Format = Literal["mp4", "webm", "gif", "png"]

_LEAST_BYTES = {"mp4": 0.002, "webm": 0.002, "gif": 0.02, "png": 0.05}
"""Of a pixel of a frame, when hardly anything moves: what surely does not fit is not begun."""


def format_of(path: str | Path, format: Format | None = None) -> Format:
    """The format of a video that goes to `path`: as asked for, or else by the suffix; png is a folder of frames.

    Raises:
        FadaError: no name, or a suffix of no video format here.
    """
    if not str(path) or str(path) == ".":
        raise FadaError("The video has no name; give one that ends in .mp4, .webm or .gif, or a folder's for frames.")
    if format is not None:
        return format
    if str(path) == STDOUT:
        return "mp4"
    suffix = Path(path).suffix
    if str(path).endswith(("/", os.sep)) or os.path.isdir(path) or not suffix:
        return "png"
    if suffix.lower() not in SUFFIXES:
        allowed = ", ".join(SUFFIXES)
        raise FadaError(f"'{suffix}' is no video format here; use {allowed}, or a folder for PNG frames.")
    return SUFFIXES[suffix.lower()]  # type: ignore[return-value] - the values are formats


def check_place(path: Path, *, folder: bool = False) -> None:
    """Raise FadaError unless a file (or folder) of that name can be made or replaced there."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # ValueError: a zero byte
        reason = getattr(error, "strerror", None) or error
        raise FadaError(f"'{path}' cannot be written ({reason}); choose another name or place.") from error
    if not folder and os.path.isdir(path):
        raise FadaError(f"'{path}' is a folder; give the name of a file.")
    place = path if folder else path.parent
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not os.path.isdir(place):
        raise FadaError(f"'{path}' cannot be written ('{place}' is no folder); choose another place.")
    if not os.access(place, os.W_OK | os.X_OK) or (os.path.isfile(path) and not os.access(path, os.W_OK)):
        raise FadaError(f"'{path}' cannot be written (no permission); choose another place.")


def check_folder(path: Path, job: str) -> None:
    """Raise FadaError unless a folder of frames is empty, to be made, or left by a stopped run of the same job."""
    check_place(path, folder=True)
    marker = path / UNFINISHED
    if marker.is_file():
        if marker.read_text(encoding="utf-8", errors="replace") != job:
            raise FadaError(f"The folder '{path}' has frames of another, stopped job in it; choose an empty one.")
    elif path.is_dir() and next(path.iterdir(), None) is not None:
        raise FadaError(f"The folder '{path}' has files in it already; choose an empty one, or a new name.")


def check_apart(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise FadaError if a result would replace another one or an input, under whatever name, or lie among frames."""
    outputs = list(outputs)
    for index, target in enumerate(outputs):
        for other in outputs[:index]:
            if _same(target, other) or _inside(target, other) or _inside(other, target):
                raise FadaError(f"'{other}' and '{target}' are the same place; give results names of their own.")
        for source in inputs:
            if _same(target, source) or _inside(source, target):
                raise FadaError(f"'{source}' would be overwritten by the result '{target}'; give it another name.")


def check_room(path: Path, format: Format, frames: int, width: int, height: int) -> None:
    """Raise FadaError if the disk cannot take even a video in which hardly anything moves."""
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    needed, free = frames * width * height * _LEAST_BYTES[format], shutil.disk_usage(place).free
    if needed > free:
        raise FadaError(
            f"'{path}' will need {needed / 1e6:.0f} MB or more, the disk has {free / 1e6:.0f} MB; free some space or "
            "write elsewhere."
        )


@contextmanager
def held(path: Path, *, folder: bool = False) -> Iterator[None]:
    """Within, no other process of FADA writes there; the file or folder, and those above it, are made.

    Raises:
        FadaError: another one does.
        OSError: it cannot be made.
    """
    (path if folder else path.parent).mkdir(parents=True, exist_ok=True)
    if os.name == "nt":  # whose locks keep even their owner from writing, and know no folders
        name = hashlib.sha256(os.path.normcase(path.absolute()).encode()).hexdigest()[:32]
        number = os.open(Path(tempfile.gettempdir(), f"fada-{name}.lock"), os.O_RDWR | os.O_CREAT)
    else:
        number = os.open(path, os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not lock(number):
            raise FadaError(f"'{path}' is being written by another process; wait for its end, or give another name.")
        yield
    finally:
        os.close(number)


def _same(first: Path, second: Path) -> bool:
    if os.path.exists(first) and os.path.exists(second):
        return os.path.samefile(first, second)
    return os.path.normcase(os.path.realpath(first)) == os.path.normcase(os.path.realpath(second))


def _inside(path: Path, folder: Path) -> bool:
    """Whether `path` is in a folder of frames, or would be."""
    if os.path.isfile(folder) or (folder.suffix and not os.path.isdir(folder)):
        return False
    return Path(os.path.realpath(folder)) in Path(os.path.realpath(path)).parents
