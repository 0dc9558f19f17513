"""A process that tries cases within limits, and one that watches it: time, memory, and what must never happen.

What must never happen: a program is run, a connection made, a file written outside of the case's folder, a file of the
user's read outside of it, a pickle carried out.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any

SECONDS = 20  #: of the processor's time
PATIENCE = 240  #: seconds of the clock, on a busy machine, after which a case counts as hung
MEMORY = 4 * 2**30  #: bytes
OUTSIDE = "outside"  #: in names of files that no case may read
_RUNS = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.startfile",
    "socket.connect",
    "pickle.find_class",
)
_CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree")


@dataclass(frozen=True)
class Outcome:
    """The outcome of a case: `result`, `sentence`, or a description of the failure."""

    how: str
    text: str
    seconds: float = 0.0

    @property
    def fine(self) -> bool:
        return self.how in ("result", "sentence")


class Guard:
    """Tries cases in a separate process, which is restarted after a hang or a crash."""

    def __init__(self, keep: Path | None = None) -> None:
        self.keep = keep

    def __enter__(self) -> Guard:
        self._base = Path(tempfile.mkdtemp(prefix="fada-fuzz-"))
        self._start()
        return self

    def _start(self) -> None:
        self._pipe, theirs = get_context("spawn").Pipe()
        self._process = get_context("spawn").Process(target=_work, args=(self._base, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.close()  # which ends it
        self._process.join(10)
        self._process.kill()
        self._process.join()
        shutil.rmtree(self._base, ignore_errors=True)

    def try_case(self, kind: str, seed: int) -> Outcome:
        """Try the case of a kind with this seed; the files of failed cases are kept in `keep`."""
        self._pipe.send((kind, seed))
        folder = self._base / f"{kind}-{seed}"
        started = time.monotonic()
        try:
            answered = self._pipe.poll(PATIENCE)
            outcome = self._pipe.recv() if answered else Outcome("hang", f"no end after {PATIENCE} s")
        except (EOFError, ConnectionResetError):
            self._process.join()
            outcome = Outcome("crash", f"the process ended ({self._process.exitcode})")
        if outcome.how in ("hang", "crash"):
            self._process.kill()
            self._process.join()
            self._start()
        if not outcome.fine and self.keep is not None and folder.exists():
            shutil.copytree(folder, self.keep / folder.name, symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        return Outcome(outcome.how, outcome.text, outcome.seconds or time.monotonic() - started)


def _work(base: Path, pipe: Connection) -> None:
    """The separate process: makes intact files of a kind once, then a damaged copy for each seed received."""
    sys.dont_write_bytecode = True
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for the process's life
    from .kinds import KINDS  # here, after the settings that its libraries read

    kinds: dict[str, Any] = {}
    watch = _Watch()
    sys.addaudithook(watch)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    while True:
        try:
            name, seed = pipe.recv()
        except EOFError:
            return
        if name not in kinds:
            place = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=base))
            kinds[name] = KINDS[name](place / "whole")
        folder = base / f"{name}-{seed}"
        folder.mkdir()
        pipe.send(_try(kinds[name], folder, seed, watch))


def _try(kind: Any, folder: Path, seed: int, watch: _Watch) -> Outcome:
    from fada_core.errors import FadaError

    names = kind.spoil(folder, Random(seed))  # noqa: S311 - cases, not secrets
    watch.folder, watch.seen = folder, []
    started, how, text = time.process_time(), "result", ""
    try:
        text = str(kind.use(folder))
    except FadaError as error:
        how, text = "sentence", str(error)
        if not any(name in text for name in names):
            how = "unnamed"
        elif "\n" in text or len(text) > 2000:
            how = "no sentence"
    except BaseException as error:
        how, text = type(error).__name__, traceback.format_exc(limit=-6)
    finally:
        watch.folder = None
    seconds = time.process_time() - started
    if watch.seen:
        how, text = "breach", "; ".join(watch.seen) + f" ({how}: {text})"
    elif seconds > SECONDS:
        how = "slow"
    return Outcome(how, text, seconds)


class _Watch:
    """An audit hook that records forbidden actions during a case."""

    def __init__(self) -> None:
        self.folder: Path | None = None  #: of the case; None: between cases
        self.seen: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        # Names within a folder that is open: `shutil.rmtree` works so, and was seen itself.
        relative = event in ("os.remove", "os.rmdir") and arguments[-1] != -1
        if event in _RUNS:
            self.seen.append(f"{event} {arguments[:2]}")
        elif event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
            path, mode, flags = Path(os.fsdecode(arguments[0])), arguments[1], arguments[2]
            writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) or any(c in (mode or "") for c in "wax+")
            if OUTSIDE in path.name or (writes and not self._allowed(path)):
                self.seen.append(f"open {path} {mode or flags}")
        elif event in _CHANGES and not (relative or self._allowed(Path(os.fsdecode(arguments[0])))):
            self.seen.append(f"{event} {arguments[0]}")

    def _allowed(self, path: Path) -> bool:
        real = os.path.realpath(path)
        return real.startswith((str(self.folder), "/dev/")) or "__pycache__" in real  # numba keeps what it compiled
