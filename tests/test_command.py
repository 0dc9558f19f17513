"""Exit statuses and output streams of all commands."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from fada_core.command import FAILED, Stop, run_command
from fada_core.errors import FadaError

COMMANDS = (
    "avatars", "bench", "bench.live", "convert", "distill", "evaluate", "evaluate.ablation", "evaluate.reconstruct",
    "evaluate.strip", "evaluate.train_lips", "generate", "prepare", "pretrain", "pretrain.decoder",
)  # fmt: skip


@dataclass
class Options:
    """Do something."""

    number: int = 0


def status(work: object, arguments: Sequence[str] = ()) -> int:
    return run_command(work, Options, "test", arguments)  # type: ignore[arg-type]


def fail(error: BaseException) -> None:
    raise error


def test_the_status_says_how_it_went(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(lambda options: print(options.number), ["--number", "7"]) == 0
    assert status(lambda options: "a result") == 0
    assert status(lambda options: FAILED) == 1
    assert capsys.readouterr().out == "7\n"
    assert status(lambda options: fail(FadaError("No."))) == 2
    assert status(lambda options: fail(MemoryError())) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("error: No.\nerror: The memory")
    assert status(lambda options: fail(KeyboardInterrupt())) == 130


def test_wrong_usage_is_two(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        status(lambda options: None, ["--nonsense"])
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert told.out == "" and "nonsense" in told.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_with_a_message(number: int, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(number)

    def work(options: Options) -> None:
        with Stop("stopped half-way"):
            os.kill(os.getpid(), number)

    assert status(work) == code
    assert capsys.readouterr().err == "stopped half-way\n"
    assert signal.getsignal(number) is before


def test_a_swallowed_stop_is_raised_again() -> None:
    with pytest.raises(KeyboardInterrupt), Stop("stopped") as stop:
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        stop.check()


@pytest.mark.parametrize("closed", ["<&- >&-", "| head -c 0"])
def test_streams_that_are_closed_or_know_few_letters(closed: str) -> None:
    code = (
        "import sys; from fada_core.command import run_command; from tests.test_command import Options;"
        "sys.exit(run_command(lambda options: print('\u4e2d.mp4'), Options, 'test', []))"
    )
    ended = subprocess.run(  # noqa: S602 - our own words
        f'"{sys.executable}" -c "{code}" {closed}',
        shell=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0 and "Traceback" not in ended.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_all_commands_end_alike(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", [name, "--no-such-option"])
    module = importlib.import_module(f"fada_core.{name}" if "." in name else f"fada_core.{name}.__main__")
    with pytest.raises(SystemExit) as ended:
        module.main() if name != "avatars" else run_command(module.main, module.Options, name)
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert told.out == "" and f"fada_core.{name}" in told.err
