"""Atomic writes, and locks on files and folders that only one process may use."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError

from .errors import FadaError

log = logging.getLogger("fada.files")

LEFTOVER = ".partial"  #: suffix of the temporary folder that a file is written in; it remains if the process is killed
DAY = 86400  #: seconds; longer than any single file takes to write


@contextmanager
def whole_file(path: Path, size: int = 0, *, shared: bool = False) -> Iterator[Path]:
    """Yield a temporary path to write to; when the block ends without an error, the file replaces `path`.

    The temporary path is in a folder of its own beside `path`, because some libraries write further files next to the
    one that they were asked for.

    Args:
        size: bytes that will be written, if known: a disk that is too full is then reported before writing.
        shared: several processes, even on several machines, may write this file at the same time; the last one wins.

    Raises:
        FadaError: the disk is full, or `path` cannot be written.
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
        with partial.open("rb+") as file:  # otherwise a power cut could leave the name without the content
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
    """Lock `folder` for this process, creating it if needed, and remove the temporary files of killed processes.

    The operating system releases the lock however the process ends.

    Raises:
        FadaError: another process holds the lock, or the folder cannot be written.
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
    """Remove the temporary folders of killed processes in `folder`; returns the number of bytes freed.

    Args:
        older: minimum age in seconds; 0 is safe only if no other process can be writing here.
    """
    latest = time.time() - older
    found = [path for path in folder.glob(f".*{LEFTOVER}") if path.is_dir() and path.stat().st_mtime <= latest]
    size = sum(file.stat().st_size for path in found for file in path.rglob("*") if file.is_file())
    for path in found:
        shutil.rmtree(path, ignore_errors=True)
    return size


def lock(file: IO[Any] | int) -> bool:
    """Lock an open file, without waiting; returns whether that succeeded. Closing the file releases the lock.

    On a file system without locks this logs a warning and returns True.
    """
    number = file if isinstance(file, int) else file.fileno()
    try:
        if sys.platform == "win32":
            import msvcrt

            # Locked bytes cannot be read by others, and the beginning of the file names the owner: lock a later byte.
            os.lseek(number, 2**20, os.SEEK_SET)
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
