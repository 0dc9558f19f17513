"""Files that are there whole or not at all, however the writing ends."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from .errors import FadaError

LEFTOVER = ".partial"  #: how the folder ends that a file is written in; after a kill it stays


@contextmanager
def whole_file(path: Path, size: int = 0) -> Iterator[Path]:
    """A path to write to; when the block ends well, what is there takes the place of `path`.

    It lies in a folder of its own beside `path`, because libraries put files of their own names next to theirs.

    Args:
        size: bytes that will be written, if that is known: a disk that is too small is noticed before.

    Raises:
        FadaError: there is no room, or the place cannot be written to.
    """
    folder = path.with_name(f".{path.name}{LEFTOVER}")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        free = shutil.disk_usage(folder).free
        if size > free:
            raise FadaError(
                f"'{path}' needs {_gigabytes(size)} and the disk has {_gigabytes(free)} left; make room or choose "
                "another place."
            )
        partial = folder / path.name
        yield partial
        with partial.open("rb+") as file:  # or a power cut could leave the name without the content
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise FadaError(f"'{path}' cannot be written ({reason}); make room or choose another place.") from error
    except SafetensorError as error:
        raise FadaError(f"'{path}' cannot be written ({error}); make room or choose another place.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(folder: Path) -> int:
    """Remove what killed processes left in `folder`, which nobody else may be writing to; returns how many bytes."""
    found = [path for path in folder.glob(f".*{LEFTOVER}") if path.is_dir()]
    size = sum(file.stat().st_size for path in found for file in path.rglob("*") if file.is_file())
    for path in found:
        shutil.rmtree(path, ignore_errors=True)
    return size


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
