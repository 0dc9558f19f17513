"""The loop that every training shares: exact resume, kills, bad losses."""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.utils import DistributedType
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from fada_core.data.samples import box_mask
from fada_core.errors import FadaError
from fada_core.models.attention import FeedForward
from fada_core.training import LoopConfig, train
from fada_core.training.loop import learning_rate, sample_generators
from fada_core.training.state import saved_states
from tests.support.training import NEVER, SETTINGS, Regression, assert_same_state, column, run, state_of


def test_learns_and_keeps_the_newest_states(tmp_path: Path) -> None:
    task = Regression()
    assert run(task, replace(SETTINGS, steps=200, learning_rate=1e-2), tmp_path)
    losses = [float(value) for value in column(tmp_path, "loss")]
    assert losses[-1] < 0.3 * losses[0]
    assert [step for step, _ in saved_states(tmp_path)] == [196, 200]
    assert task.previews == [100, 200]


def test_resume_is_exact(tmp_path: Path) -> None:
    """Stopped by the clock after any number of steps and started again: every bit as in one go."""
    run(Regression(), SETTINGS, tmp_path / "whole")
    slow = Regression(slow=0.05)
    finished = run(slow, SETTINGS, tmp_path / "parts", deadline=time.monotonic() + 0.2)
    assert not finished
    assert 0 < saved_states(tmp_path / "parts")[-1][0] < SETTINGS.steps
    assert run(Regression(), SETTINGS, tmp_path / "parts")
    assert column(tmp_path / "parts", "loss") == column(tmp_path / "whole", "loss")
    assert_same_state(tmp_path / "whole", tmp_path / "parts")


def _train_slowly(folder: Path) -> None:
    run(Regression(slow=0.1), SETTINGS, folder)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_training_goes_on_exactly(tmp_path: Path, sent: signal.Signals) -> None:
    run(Regression(), SETTINGS, tmp_path / "whole")
    killed = tmp_path / "killed"
    process = get_context("spawn").Process(target=_train_slowly, args=(killed,))
    process.start()
    while not saved_states(killed):
        time.sleep(0.02)
    os.kill(process.pid, sent)
    process.join()
    saved = saved_states(killed)[-1][0]
    assert saved < SETTINGS.steps
    assert process.exitcode == (0 if sent == signal.SIGTERM else -sent)
    assert run(Regression(), SETTINGS, killed)
    assert_same_state(tmp_path / "whole", killed)


def test_a_bad_loss_stops_with_the_last_good_state(tmp_path: Path) -> None:
    with pytest.raises(FadaError, match=r"not finite at step 6 \(step 4 is saved; samples a, b\)"):
        run(Regression(poison=6), SETTINGS, tmp_path)
    assert all(value.isfinite().all() for value in state_of(tmp_path).values())


def test_an_exploding_loss_stops(tmp_path: Path) -> None:
    with pytest.raises(FadaError, match=r"has a loss of .* at step 60 \(step 60 is saved; samples a, b\)"):
        run(Regression(spike=60), replace(SETTINGS, steps=80), tmp_path)


def test_state_of_other_networks_is_refused(tmp_path: Path) -> None:
    run(Regression(), SETTINGS, tmp_path)
    other = Regression()
    other.module = FeedForward(4, 2)
    with pytest.raises(FadaError, match='begun with trained weights "4 tensors of 228 numbers"'):
        run(other, SETTINGS, tmp_path)
    other = Regression()
    other.module.register_buffer("more", torch.zeros(1))
    with pytest.raises(FadaError, match="other networks"):
        run(other, SETTINGS, tmp_path)


def rewritten(path: Path, change: Callable[[dict[str, Tensor], dict[str, str]], object]) -> None:
    """The state with tensors or metadata changed, in a file that is whole as far as its format goes."""
    with safe_open(path, "pt") as file:
        metadata = dict(file.metadata())
    tensors = load_file(path)
    change(tensors, metadata)
    save_file(tensors, path, metadata)


def overwritten(path: Path, start: int, count: int) -> None:
    content = bytearray(path.read_bytes())
    content[start : start + count] = bytes(count)
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "100 bytes zeroed": lambda path: overwritten(path, path.stat().st_size - 200, 100),
    "a tensor short": lambda path: rewritten(path, lambda tensors, _: tensors.pop("ema.0")),
    "another step": lambda path: rewritten(path, lambda _, metadata: metadata.update(step="4")),
    "other settings": lambda path: rewritten(path, lambda _, metadata: metadata.update(settings="{}")),
    "no checksum": lambda path: rewritten(path, lambda _, metadata: metadata.clear()),
    "a text": lambda path: path.write_text("not found"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_costs_one_interval(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    run(Regression(), SETTINGS, tmp_path / "whole")
    damaged = tmp_path / "damaged"
    run(Regression(stop=8), SETTINGS, damaged)
    (_, older), (step, newest) = saved_states(damaged)
    DAMAGE[damage](newest)
    with caplog.at_level(logging.WARNING):
        assert run(Regression(), SETTINGS, damaged)
    assert step == 8
    (line,) = caplog.messages
    assert line.startswith("state-00000008.safetensors is damaged (") and line.endswith("going back to step 4")
    assert_same_state(tmp_path / "whole", damaged)
    assert column(damaged, "loss") == column(tmp_path / "whole", "loss")
    assert not list(damaged.glob("*.damaged"))


def test_without_a_whole_state_nothing_is_begun_anew(tmp_path: Path) -> None:
    run(Regression(), SETTINGS, tmp_path)
    for _, path in saved_states(tmp_path):
        path.write_bytes(b"")
    with pytest.raises(FadaError, match=r"All states in .* are damaged \(state-00000012.safetensors: .*delete them"):
        run(Regression(), SETTINGS, tmp_path)
    assert len(saved_states(tmp_path)) == 2


def test_a_state_of_an_older_version_is_refused(tmp_path: Path) -> None:
    run(Regression(), SETTINGS, tmp_path)
    rewritten(saved_states(tmp_path)[-1][1], lambda _, metadata: metadata.pop("checksum"))
    with pytest.raises(FadaError, match="state-00000012.safetensors' was written by an older version"):
        run(Regression(), SETTINGS, tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, "seed 0, and 1"),
        ({"learning_rate": 1e-2}, "learning_rate 0.001, and 0.01"),
        ({"ema_decay": 0.9}, "ema_decay 0.998, and 0.9"),
        ({"optimizer": "adamw8bit"}, 'optimizer "adamw", and "adamw8bit"'),
    ],
)
def test_a_training_goes_on_as_it_was_begun(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    run(Regression(), SETTINGS, tmp_path)
    with pytest.raises(FadaError, match=f"was begun with {words} is given now; give the same"):
        run(Regression(), replace(SETTINGS, **changes), tmp_path)


def test_another_batch_is_refused_and_other_intervals_are_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(Regression(), SETTINGS, tmp_path)
    other = Regression()
    other.batch = 3
    with pytest.raises(FadaError, match="begun with batch 2, and 3 is given"):
        run(other, SETTINGS, tmp_path)
    with caplog.at_level(logging.INFO, "fada.training"):
        assert run(Regression(), replace(SETTINGS, steps=14, save_every=7, log_every=2, keep_states=1), tmp_path)
    assert [step for step, _ in saved_states(tmp_path)] == [14]
    assert {message.split(" is ")[0] for message in caplog.messages} == {
        "steps", "save_every", "log_every", "keep_states"
    }  # fmt: skip


def test_two_trainings_in_one_folder(tmp_path: Path) -> None:
    """The second is refused with a sentence; after a kill of the first, nothing is in the way."""
    process = get_context("spawn").Process(target=_train_slowly, args=(tmp_path,))
    process.start()
    while not saved_states(tmp_path):
        time.sleep(0.02)
    with pytest.raises(FadaError, match=rf"Another process works in .* \(process {process.pid} on"):
        run(Regression(), SETTINGS, tmp_path)
    process.kill()
    process.join()
    assert run(Regression(), SETTINGS, tmp_path)
    assert column(tmp_path, "step") == [str(step) for step in range(1, 13)]


def test_what_killed_trainings_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".state-00000004.safetensors.partial"
    left.mkdir()
    (left / ".tmpAb12Cd").write_bytes(bytes(1000))
    run(Regression(), SETTINGS, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} - {"tensorboard"} == {
        "lock", "log.csv", "state-00000008.safetensors", "state-00000012.safetensors"
    }  # fmt: skip


def test_a_full_disk_is_a_sentence_and_loses_one_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(Regression(), replace(SETTINGS, steps=8), tmp_path)
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(FadaError, match=r"state-00000012.safetensors' needs .* has 0.00 GB left; make room"):
            run(Regression(), SETTINGS, tmp_path)
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(FadaError, match=r"state-00000012.safetensors' cannot be written \(.*too large.*make room"):
            run(Regression(), SETTINGS, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [step for step, _ in saved_states(tmp_path)] == [4, 8]
    assert run(Regression(), SETTINGS, tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 500, b"step\n", b"\xff\xfe1,2,3\n", b"step,learning_rate,loss\n1,2,3\n", None, b"one\ntwo,,\n"],
)
def test_a_broken_log_does_not_stop_a_training(tmp_path: Path, content: bytes | None) -> None:
    run(Regression(), replace(SETTINGS, steps=8), tmp_path)
    path = tmp_path / "log.csv"
    before = column(tmp_path, "step")
    if content is None:  # the last row torn
        path.write_bytes(path.read_bytes()[:-30] + b"\n7,x,y,z\n999999,1")
    else:
        path.write_bytes(content)
    assert run(Regression(), SETTINGS, tmp_path)
    kept = before[:-1] if content is None else []
    assert column(tmp_path, "step") == [*kept, "9", "10", "11", "12"]
    assert len(list(tmp_path.glob("log-until-00000008.csv"))) == (content not in (None, b""))


@pytest.mark.parametrize("name", ["steps", "save_every", "keep_states", "log_every", "preview_every"])
def test_zero_is_refused_where_it_means_nothing(name: str) -> None:
    with pytest.raises(FadaError, match=f"{name} is 0; give a number from 1 to"):
        LoopConfig(**{name: 0})
    with pytest.raises(FadaError, match="seed is -1; give a number from 0 to"):
        LoopConfig(seed=-1)
    with pytest.raises(FadaError, match="learning_rate is nan"):
        LoopConfig(learning_rate=math.nan)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"fsdp_version": 1}, "needs FSDP2"), ({"fsdp_version": 2, "cpu_offload": True}, "cannot be offloaded")],
)
def test_other_ways_of_sharding_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    accelerator = Accelerator(cpu=True)
    monkeypatch.setitem(accelerator.state.__dict__, "distributed_type", DistributedType.FSDP)
    monkeypatch.setitem(accelerator.state.__dict__, "fsdp_plugin", FullyShardedDataParallelPlugin(**options))
    with pytest.raises(FadaError, match=message):
        train(Regression(), SETTINGS, tmp_path, accelerator, NEVER)


def test_learning_rate() -> None:
    settings = LoopConfig(steps=100, learning_rate=1.0, warmup_steps=10, decay_share=0.5)
    rates = [learning_rate(settings, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10] == rates[50] == pytest.approx(1.0)
    assert rates[75] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0)


def test_steps_draw_apart() -> None:
    draws = {torch.rand((), generator=g).item() for step in range(50) for g in sample_generators(0, step, 0, 4)}
    assert len(draws) == 200


def test_processes_share_a_batch() -> None:
    whole = [torch.rand((), generator=g) for g in sample_generators(0, 3, 0, 4)]
    halves = [torch.rand((), generator=g) for first in (0, 2) for g in sample_generators(0, 3, first, 2)]
    assert whole == halves


def test_box_mask() -> None:
    mask = box_mask(torch.tensor([[2.0, 3.0, 4.0, 7.0]]), 10, margin=0.0)
    assert mask.sum() == 2 * 4
    assert mask[0, 0, 3:7, 2:4].all()
