"""Files that are there whole or not at all, however the writing ends, and files that one process has for itself."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError

from .errors import FadaError

log = logging.getLogger("fada.files")

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


def lock(file: IO[Any] | int) -> bool:
    """Whether an open file could be locked for this process, which lasts until it is closed, however the process ends.

    Disks that know no locks count as free, and that is logged.
    """
    number = file if isinstance(file, int) else file.fileno()
    try:
        if os.name == "nt":
            import msvcrt

            os.lseek(number, 2**20, os.SEEK_SET)  # what is locked cannot be read, and the beginning says who holds it
            msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
            return False
        log.warning("locks do not work here (%s); let only one process write at a time", error.strerror)
    return True


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
