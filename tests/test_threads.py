"""The number of threads: how and when it is chosen, and that a user's setting is kept."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import torch

from fada_core import threads
from fada_core.threads import shared_machine, threads_for


@pytest.mark.parametrize(
    ("most", "cores", "others", "wanted"),
    [
        (2, 2, 0.0, 2),
        (2, 2, 0.2, 2),  # what every desktop does
        (2, 2, 0.5, 1),  # a busy process that shares a core with one of two threads
        (2, 2, 1.0, 1),  # the same, once one thread has left it a core
        (2, 2, 2.0, 1),  # never none
        (8, 16, 3.0, 8),  # others are welcome to cores that would be idle
        (8, 8, 3.0, 5),
        (1, 16, 0.0, 1),
    ],
)
def test_the_number_follows_what_others_leave(most: int, cores: int, others: float, wanted: int) -> None:
    assert threads_for(most, cores, others) == wanted


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, float]]:
    """A machine of four cores of which `others` are busy, and whose clock is advanced by hand; torch has 4 threads."""
    state = {"now": 100.0, "left": 0.0, "others": 0.0}

    def times(self: object) -> tuple[float, float]:
        return state["now"], state["left"]

    def wait(seconds: float) -> None:
        state["now"] += seconds
        state["left"] += seconds * (4 - state["others"])

    state["wait"] = wait  # type: ignore[assignment]
    monkeypatch.setattr(threads._Shared, "_cores", lambda self: [0, 1, 2, 3])
    monkeypatch.setattr(threads._Shared, "_times", times)
    monkeypatch.setattr(threads, "_shared", threads._Shared())
    monkeypatch.setattr(threads.time, "perf_counter", lambda: state["now"])
    monkeypatch.setattr(threads.time, "sleep", wait)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield state
    torch.set_num_threads(before)


def test_it_is_measured_between_pieces_of_work(machine: dict[str, float]) -> None:
    with shared_machine("cpu") as share:
        assert torch.get_num_threads() == 4
        machine["others"] = 2.0
        machine["wait"](0.1)
        share()
        assert torch.get_num_threads() == 4  # too short to tell
        machine["wait"](0.15)
        share()
        assert torch.get_num_threads() == 2
        machine["others"] = 0.0
        machine["wait"](0.3)
        share()
        assert torch.get_num_threads() == 4
        machine["others"] = 4.0
        machine["wait"](0.3)
        share()
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 4


def test_an_old_measurement_is_not_believed(machine: dict[str, float]) -> None:
    machine["wait"](3600)  # idle
    machine["others"] = 3.0
    with shared_machine("cpu"):
        assert torch.get_num_threads() == 1
        with shared_machine("cpu") as share:  # decoding, while a sampling waits for its next clip
            machine["others"] = 1.0
            machine["wait"](1.0)
            share()
            assert torch.get_num_threads() == 3
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == 4


def test_the_next_job_begins_with_what_the_last_one_found(machine: dict[str, float]) -> None:
    with shared_machine("cpu") as share:
        machine["others"] = 3.0
        machine["wait"](0.3)
        share()
    assert torch.get_num_threads() == 4
    machine["wait"](0.01)
    with shared_machine("cpu"):
        assert torch.get_num_threads() == 1


def test_what_the_user_set_stays(machine: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    machine["others"] = 4.0
    machine["wait"](10)
    with shared_machine("cuda") as share:
        share()
        assert torch.get_num_threads() == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    with shared_machine("cpu") as share:
        share()
        assert torch.get_num_threads() == 4


def test_own_work_is_not_taken_for_that_of_others() -> None:
    shared = threads._Shared()
    worked = time.process_time() + 0.2
    before, left = shared._times()
    while time.process_time() < worked:
        pass
    now, leaves = shared._times()
    assert 0.15 <= leaves - left <= len(shared._cores()) * (now - before) + 0.1


@pytest.mark.parametrize(
    ("given", "wanted"),
    [({}, str(threads.SPINS)), ({"OMP_WAIT_POLICY": "ACTIVE"}, None), ({"GOMP_SPINCOUNT": "7"}, "7")],
)
@pytest.mark.parametrize("torch_first", [False, True])
def test_spinning_is_limited_before_torch_comes(given: dict[str, str], wanted: str | None, torch_first: bool) -> None:
    clean = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    clean.pop("KMP_BLOCKTIME", None)
    code = f"import {'torch, ' if torch_first else ''}fada_core, os; print(os.environ.get('GOMP_SPINCOUNT'))"
    found = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", code], env=clean | given, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == str(given.get("GOMP_SPINCOUNT") if torch_first else wanted)
