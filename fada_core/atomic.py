"""Files that are there whole or not at all, and files and folders that one process has for itself."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError

from .errors import FadaError

log = logging.getLogger("fada.files")

LEFTOVER = ".partial"  #: how the folder ends that a file is written in; after a kill it stays
DAY = 86400  #: seconds; nobody writes one file for that long


@contextmanager
def whole_file(path: Path, size: int = 0, *, shared: bool = False) -> Iterator[Path]:
    """A path to write to; when the block ends well, what is there takes the place of `path`.

    It lies in a folder of its own beside `path`, because libraries put files of their own names next to theirs.

    Args:
        size: bytes that will be written, if that is known: a disk that is too small is noticed before.
        shared: several processes, on several machines even, may write this file at the same time; the last one counts.

    Raises:
        FadaError: there is no room, or the place cannot be written to.
    """
    mine = f".{socket.gethostname()[:40]}-{os.getpid()}" if shared else ""
    folder = path.with_name(f".{path.name}{mine}{LEFTOVER}")
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


@contextmanager
def only_worker(folder: Path) -> Iterator[None]:
    """Within, no other process works in `folder`, which is made; what killed ones left half-written is removed.

    The system lets go of the lock however a process ends.

    Raises:
        FadaError: another one works there, or the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise FadaError(f"'{folder}' cannot be written ({error.strerror}); choose another place.") from error
    with file:
        file.seek(0)
        owner = file.read(200).strip()
        if not lock(file):
            raise FadaError(f"Another process works in '{folder}' ({owner}); wait for its end or choose another --out.")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        if left := remove_leftovers(folder):
            log.info("removed %.0f MB that a stopped process left in %s", left / 1e6, folder)
        yield


def remove_leftovers(folder: Path, older: float = 0.0) -> int:
    """Remove what killed processes left in `folder`; returns how many bytes.

    Args:
        older: than so many seconds; 0 where nobody else can be writing.
    """
    latest = time.time() - older
    found = [path for path in folder.glob(f".*{LEFTOVER}") if path.is_dir() and path.stat().st_mtime <= latest]
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
