"""Threads on a machine that others use too.

OpenMP's threads spin while they wait for each other. Beside a busy process, one of them often waits for a core while
the others spin for it on theirs: torch then takes twenty times as long with two threads on two cores as with one.
Where torch is still to be loaded, they are told to spin for microseconds only; where it is loaded already (ComfyUI,
Python), as many threads are used as there are cores left by others, measured while the work goes on.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

SPINS = 3000
"""Turns of GNU's waiting loop, some 10 us, before a thread sleeps. With no others on two cores as fast as the usual
300000, where 1000 cost 10 % and none 60 % or more (docs/PERFORMANCE.md)."""
_INTERVAL = 0.2  #: seconds that a measurement covers at least
_FRESH = 5.0  #: seconds after which the latest one says little about now
_GLANCE = 0.05  #: seconds of a measurement when there is no fresh one
_SPARE = 0.4  #: part of a core that others may use before it counts as theirs


def limit_spinning() -> None:
    """Set the environment for an OpenMP that is loaded later, as far as the user has not; else without effect."""
    chosen = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys()
    if "torch" not in sys.modules and not chosen:
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)  # GNU's, on Linux
        os.environ["KMP_BLOCKTIME"] = "1"  # Intel's and LLVM's, milliseconds


def threads_for(most: int, cores: int, others: float) -> int:
    """How many threads to compute with.

    Args:
        most: as many as there would be on an idle machine.
        cores: that this process may use.
        others: how many of them other processes keep busy, 0..cores.
    """
    return max(1, min(most, math.floor(cores - others + _SPARE)))


class _Shared:
    """torch's number of threads while anybody samples or decodes; the process has one."""

    def __init__(self) -> None:
        self._users = 0
        self._most = 1
        self._measured = self._times()
        self._others = 0.0  # cores that they kept busy, when measured last

    def _cores(self) -> list[int]:
        if hasattr(os, "sched_getaffinity"):
            return sorted(os.sched_getaffinity(0))
        return list(range(os.cpu_count() or 1))

    def _times(self) -> tuple[float, float]:
        """Seconds on the clock, and seconds of all cores together that others have not used."""
        each = psutil.cpu_times(percpu=True)
        idle = sum(each[core].idle + getattr(each[core], "iowait", 0.0) for core in self._cores() if core < len(each))
        return time.perf_counter(), idle + time.process_time()

    def enter(self) -> None:
        import torch

        self._users += 1
        if self._users > 1:
            return
        self._most = torch.get_num_threads()
        if self._most > 1 and time.perf_counter() - self._measured[0] > _FRESH:
            self._measured = self._times()
            time.sleep(_GLANCE)
            self._measure()
        elif time.perf_counter() - self._measured[0] >= _INTERVAL:
            self._measure()
        self._apply()  # what is known from the job before, if it ended a moment ago

    def leave(self) -> None:
        import torch

        self._users -= 1
        if not self._users:
            torch.set_num_threads(self._most)

    def follow(self) -> None:
        if self._most > 1 and time.perf_counter() - self._measured[0] >= _INTERVAL:
            self._measure()
            self._apply()

    def _measure(self) -> None:
        (before, left), (now, leaves) = self._measured, self._times()
        self._measured = now, leaves
        cores = len(self._cores())
        self._others = min(max(cores - (leaves - left) / (now - before), 0.0), cores)

    def _apply(self) -> None:
        import torch

        wanted = threads_for(self._most, len(self._cores()), self._others)
        if wanted != torch.get_num_threads():
            torch.set_num_threads(wanted)


_shared = _Shared()


@contextmanager
def shared_machine(device_type: str) -> Iterator[Callable[[], None]]:
    """While the block runs, torch has as many threads as others leave cores; afterwards as many as before.

    Yields what is to be called between pieces of work: it measures at most every 0.2 s, which takes a millisecond. On
    another device than the CPU, with a single thread, or where the user has set OMP_NUM_THREADS, nothing changes.
    The number of threads may change the last bits of sums.
    """
    if device_type != "cpu" or "OMP_NUM_THREADS" in os.environ:
        yield lambda: None
        return
    _shared.enter()
    try:
        yield _shared.follow
    finally:
        _shared.leave()
