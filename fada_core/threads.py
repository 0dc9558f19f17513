"""Limits torch's CPU threads when other processes use the machine too.

OpenMP threads spin while they wait for each other. If another process keeps a core busy, one thread often waits for
that core while the others spin: on two cores, torch then takes twenty times as long with two threads as with one.
If torch is not loaded yet, the environment limits spinning to microseconds. If it is (in ComfyUI or a Python session),
torch gets as many threads as other processes leave cores, measured while the work runs.
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
"""Iterations of GNU OpenMP's waiting loop, some 10 us, before a thread sleeps. On two idle cores this is as fast as the
default of 300000, while 1000 cost 10 % and 0 cost 60 % or more (docs/PERFORMANCE.md)."""
_INTERVAL = 0.2  #: shortest time between two measurements, seconds
_FRESH = 5.0  #: age in seconds from which on a measurement is outdated
_GLANCE = 0.05  #: length in seconds of the measurement that replaces an outdated one
_SPARE = 0.4  #: fraction of a core that others may use before that core counts as busy


def limit_spinning() -> None:
    """Limit spinning through environment variables, unless torch is already loaded or the user has set one of them."""
    chosen = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys()
    if "torch" not in sys.modules and not chosen:
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)  # GNU's, on Linux
        os.environ["KMP_BLOCKTIME"] = "1"  # Intel's and LLVM's, milliseconds


def threads_for(most: int, cores: int, others: float) -> int:
    """The number of threads to compute with.

    Args:
        most: number of threads on an idle machine.
        cores: number of cores that this process may use.
        others: number of these cores that other processes keep busy, 0..cores.
    """
    return max(1, min(most, math.floor(cores - others + _SPARE)))


class _Shared:
    """Adapts torch's number of threads while at least one caller samples or decodes; one instance per process."""

    def __init__(self) -> None:
        self._users = 0
        self._most = 1
        self._measured = self._times()
        self._others = 0.0  # cores that other processes kept busy in the latest measurement

    def _cores(self) -> list[int]:
        if hasattr(os, "sched_getaffinity"):
            return sorted(os.sched_getaffinity(0))
        return list(range(os.cpu_count() or 1))

    def _times(self) -> tuple[float, float]:
        """Wall-clock seconds, and core seconds (over all cores) that other processes have not used."""
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
        self._apply()  # if there was no new measurement, the one of a job that has just ended is recent enough

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
    """Within the block, limit torch's threads to the cores that other processes leave free; then restore the number.

    Yields a function to call between pieces of work: it measures again, at most every 0.2 s, which takes a millisecond.
    Nothing changes on devices other than the CPU, with a single thread, or if the user has set OMP_NUM_THREADS.
    Note that the number of threads may change the last bits of sums.
    """
    if device_type != "cpu" or "OMP_NUM_THREADS" in os.environ:
        yield lambda: None
        return
    _shared.enter()
    try:
        yield _shared.follow
    finally:
        _shared.leave()
