"""Output files: checks of format, name, place and disk space before the work, and locks while they are written."""

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

STDOUT = "-"  #: path that stands for the standard output, as MP4
UNFINISHED = ".unfinished"  #: file in an unfinished folder of frames, which names its job

Format = Literal["mp4", "webm", "gif", "png"]
SUFFIXES: dict[str, Format] = {".mp4": "mp4", ".webm": "webm", ".gif": "gif"}

_LEAST_BYTES = {"mp4": 0.002, "webm": 0.002, "gif": 0.02, "png": 0.05}
"""Bytes per pixel and frame of a video with hardly any motion: a lower bound for the check of disk space."""


def format_of(path: str | Path, format: Format | None = None) -> Format:
    """The format of a video at `path`: `format`, or else by the suffix; png is a folder of frames.

    Raises:
        FadaError: no name, or an unknown suffix.
    """
    if not str(path) or str(path) == ".":
        raise FadaError("The video has no name; give one that ends in .mp4, .webm or .gif, or a folder for frames.")
    if format is not None:
        return format
    if str(path) == STDOUT:
        return "mp4"
    suffix = Path(path).suffix
    if str(path).endswith(("/", os.sep)) or os.path.isdir(path) or not suffix:
        return "png"
    if suffix.lower() not in SUFFIXES:
        allowed = ", ".join(SUFFIXES)
        raise FadaError(f"'{suffix}' is not a supported video format; use {allowed}, or a folder for PNG frames.")
    return SUFFIXES[suffix.lower()]


def check_place(path: Path, *, folder: bool = False) -> None:
    """Raise `FadaError` unless a file (or folder) at `path` can be created or replaced."""
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
        raise FadaError(f"'{path}' cannot be written ('{place}' is not a folder); choose another place.")
    if not os.access(place, os.W_OK | os.X_OK) or (os.path.isfile(path) and not os.access(path, os.W_OK)):
        raise FadaError(f"'{path}' cannot be written (no permission); choose another place.")


def check_folder(path: Path, job: str) -> None:
    """Raise `FadaError` unless a folder for frames is new, empty, or left by an interrupted run of the same job."""
    check_place(path, folder=True)
    marker = path / UNFINISHED
    if marker.is_file():
        if marker.read_text(encoding="utf-8", errors="replace") != job:
            raise FadaError(f"The folder '{path}' has frames of another, interrupted job; choose an empty one.")
    elif path.is_dir() and next(path.iterdir(), None) is not None:
        raise FadaError(f"The folder '{path}' is not empty; choose an empty one, or a new name.")


def check_apart(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise `FadaError` if an output would overwrite an input or another output, or is inside a folder of frames.

    Links and different spellings of a path are resolved.
    """
    outputs = list(outputs)
    for index, target in enumerate(outputs):
        for other in outputs[:index]:
            if _same(target, other) or _inside(target, other) or _inside(other, target):
                raise FadaError(f"'{other}' and '{target}' are the same place; give each result its own name.")
        for source in inputs:
            if _same(target, source) or _inside(source, target):
                raise FadaError(f"'{source}' would be overwritten by the result '{target}'; give it another name.")


def check_room(path: Path, format: Format, frames: int, width: int, height: int) -> None:
    """Raise `FadaError` if the disk has too little space even for a video with hardly any motion."""
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    needed, free = frames * width * height * _LEAST_BYTES[format], shutil.disk_usage(place).free
    if needed > free:
        raise FadaError(
            f"'{path}' will need {needed / 1e6:.0f} MB or more, but the disk has only {free / 1e6:.0f} MB; free some "
            "space or write elsewhere."
        )


@contextmanager
def held(path: Path, *, folder: bool = False) -> Iterator[None]:
    """Lock a file or folder against other processes of FADA; it and its parent folders are created.

    Raises:
        FadaError: another process has the lock.
        OSError: the file or folder cannot be created.
    """
    (path if folder else path.parent).mkdir(parents=True, exist_ok=True)
    if os.name == "nt":  # locks on Windows stop even their owner from writing, and do not work for folders
        name = hashlib.sha256(os.path.normcase(path.absolute()).encode()).hexdigest()[:32]
        number = os.open(Path(tempfile.gettempdir(), f"fada-{name}.lock"), os.O_RDWR | os.O_CREAT)
    else:
        number = os.open(path, os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not lock(number):
            raise FadaError(f"'{path}' is being written by another process; wait until it ends, or give another name.")
        yield
    finally:
        os.close(number)


def _same(first: Path, second: Path) -> bool:
    if os.path.exists(first) and os.path.exists(second):
        return os.path.samefile(first, second)
    return os.path.normcase(os.path.realpath(first)) == os.path.normcase(os.path.realpath(second))


def _inside(path: Path, folder: Path) -> bool:
    """Whether `path` is inside `folder`, if that is or would be a folder of frames."""
    if os.path.isfile(folder) or (folder.suffix and not os.path.isdir(folder)):
        return False
    return Path(os.path.realpath(folder)) in Path(os.path.realpath(path)).parents
