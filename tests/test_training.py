"""The loop that every training shares: exact resume, kills, bad losses; and the two stages of pretraining."""

from __future__ import annotations

import math
import os
import signal
import time
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from torch import Tensor, nn

from fada_core.checkpoint import CheckpointInfo, load_checkpoint, read_info, save_checkpoint
from fada_core.config import TINY, ControlConfig
from fada_core.data.avatars import AvatarSet
from fada_core.data.manifest import ManifestSet
from fada_core.data.samples import box_mask, encode_clips
from fada_core.errors import FadaError
from fada_core.models.attention import FeedForward
from fada_core.models.networks import Networks
from fada_core.models.vae import TinyVAE
from fada_core.pretrain import __main__ as pretrain
from fada_core.pretrain import decoder
from fada_core.pretrain.teacher import TeacherTask
from fada_core.pretrain.vae import VAETask
from fada_core.training import LoopConfig, train
from fada_core.training.loop import learning_rate, sample_generators
from fada_core.training.state import saved_states
from tests.small import SMALL, SMALL_VAE
from tests.test_data import film, manifest, row

NEVER = float("inf")
SETTINGS = LoopConfig(steps=12, save_every=4, log_every=1, preview_every=100, warmup_steps=2)


class Regression:
    """Learns running sums of random inputs; `slow` seconds a step, a NaN at step `poison`, a spike at `spike`."""

    def __init__(self, slow: float = 0.0, poison: int = -1, spike: int = -2) -> None:
        torch.manual_seed(0)
        self.module: nn.Module = FeedForward(4, 4)
        self.slow, self.poison, self.spike, self.batch = slow, poison, spike, 2
        self.previews: list[int] = []

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.module.parameters())}]

    def describe(self) -> str:
        return "samples a, b"

    def losses(self, module: nn.Module, step: int, generators: list[torch.Generator]) -> dict[str, Tensor]:
        time.sleep(self.slow)
        x = torch.cat([torch.randn(8, 4, generator=generator) for generator in generators])
        loss = (module(x) - x.cumsum(1)).square().mean()
        factor = {self.poison: math.nan, self.spike: 1e4}.get(step, 1.0)
        return {"loss": loss * factor}

    def preview(self, folder: Path, step: int) -> None:
        self.previews.append(step)


def run(task: Regression, settings: LoopConfig, folder: Path, deadline: float = NEVER) -> bool:
    return train(task, settings, folder, Accelerator(cpu=True), deadline)


def column(folder: Path, name: str) -> list[str]:
    header, *rows = [line.split(",") for line in (folder / "log.csv").read_text().splitlines()]
    return [row[header.index(name)] for row in rows]


def state_of(folder: Path) -> dict[str, Tensor]:
    return load_file(saved_states(folder)[-1][1])


def assert_same_state(a: Path, b: Path) -> None:
    first, second = state_of(a), state_of(b)
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=0)


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
    with pytest.raises(FadaError, match="other networks"):
        run(other, SETTINGS, tmp_path)


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


@pytest.fixture(scope="module")
def avatar_set(tmp_path_factory: pytest.TempPathFactory) -> AvatarSet:
    pytest.importorskip("espeakng_loader")
    data = AvatarSet(tmp_path_factory.mktemp("avatars"), "high", 2, 0.8, 128, 25.0)
    data.render(1)
    return data


def test_rendering_goes_on_where_it_stopped(avatar_set: AvatarSet) -> None:
    before = avatar_set.path(0).stat().st_mtime_ns
    kept = avatar_set.read(1, "frames")["frames"]
    avatar_set.path(1).unlink()
    avatar_set.render(1)
    assert avatar_set.path(0).stat().st_mtime_ns == before
    assert torch.equal(avatar_set.read(1, "frames")["frames"], kept)


def test_autoencoder_learns_and_its_latents_have_unit_variance(avatar_set: AvatarSet, tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = VAETask(TinyVAE(SMALL_VAE), avatar_set, batch=2)
    settings = replace(SETTINGS, steps=25, learning_rate=3e-3, preview_every=25)
    train(task, settings, tmp_path, Accelerator(cpu=True), NEVER)
    psnr = [float(value) for value in column(tmp_path, "psnr")]
    assert sum(psnr[-5:]) / 5 > sum(psnr[:5]) / 5 + 3
    assert (tmp_path / "preview-000025.png").exists()
    task.set_statistics(32)
    with torch.no_grad():
        latents = task.vae.encode(avatar_set.frames(0, torch.arange(20)))
    assert latents.std() == pytest.approx(1.0, abs=0.3)


def test_another_decoder_for_models_that_share_an_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the decoder stays bit for bit, and resuming a finished training writes the same files again."""
    pytest.importorskip("espeakng_loader")
    older = replace(SMALL, vae=replace(SMALL_VAE, decoder_cell=4, decoder_blocks=(2, 1)))
    monkeypatch.setattr(decoder, "preset", lambda _: SMALL)
    networks = Networks(older)
    student = replace(older, control=ControlConfig("tokens", 2, 16))
    other = Networks(student)
    other.vae.load_state_dict(networks.vae.state_dict())
    save_checkpoint(tmp_path / "teacher.safetensors", networks, CheckpointInfo("teacher"), torch.float16)
    save_checkpoint(tmp_path / "student.safetensors", other, CheckpointInfo("student", 6), torch.float16)
    same = decoder.with_decoder(load_checkpoint(tmp_path / "teacher.safetensors")[0], older.vae).vae.state_dict()
    half = load_file(tmp_path / "teacher.safetensors")
    assert all(torch.equal(value.half(), half[f"vae.{name}"]) for name, value in same.items())
    config = decoder.DecoderConfig(
        out=tmp_path / "new",
        models=(str(tmp_path / "teacher.safetensors"), str(tmp_path / "student.safetensors")),
        clips=2,
        clip_seconds=0.48,
        workers=1,
        batch=2,
        loop=LoopConfig(steps=2, preview_every=2),
        mixed_precision="no",
        cpu=True,
    )
    written = decoder.run(config)
    for path, before in zip(written, config.models, strict=True):
        old, new = load_file(before), load_file(path)
        kept = {name for name in old if not name.startswith("vae.decoder.")}
        assert kept == {name for name in new if not name.startswith("vae.decoder.")}
        assert all(torch.equal(old[name], new[name]) for name in kept)
        loaded, info = load_checkpoint(path)
        assert loaded.config == replace(read_info(before)[0], vae=SMALL_VAE)
        assert info == read_info(before)[1]
    assert torch.equal(load_file(written[0])["vae.decoder.0.weight"], load_file(written[1])["vae.decoder.0.weight"])
    before = load_file(written[0])
    again = load_file(decoder.run(config)[0])
    assert all(torch.equal(value, again[name]) for name, value in before.items())

    other.vae.encoder[1].bias.data += 1
    save_checkpoint(tmp_path / "student.safetensors", other, CheckpointInfo("student", 6))
    with pytest.raises(FadaError, match="has another encoder than"):
        decoder.run(config)


def test_pretraining_on_prepared_footage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole command on a manifest; an unreadable clip costs nothing but itself, the checkpoint says what it saw."""
    monkeypatch.setattr(pretrain, "preset", lambda _: SMALL)
    film(tmp_path / "a.mp4", frames=30)
    clips = manifest(tmp_path, row("good"), row("gone", video="b.mp4"), row("dark", pool="moderate"))
    short = LoopConfig(steps=1, preview_every=9)
    config = pretrain.PretrainConfig(
        out=tmp_path / "run", data=str(clips), vae_batch=2, teacher_batch=1, vae=short, teacher=short, cpu=True
    )
    path = pretrain.run(replace(config, mixed_precision="no"))
    _, info = read_info(path)
    assert (info.role, info.training["data"]) == ("teacher", "2 clips of clips.jsonl")
    with pytest.raises(FadaError, match="cannot be read, the last one, gone, because"):
        alone = ManifestSet(manifest(tmp_path, row("gone", video="b.mp4")), 64, 25)
        VAETask(TinyVAE(SMALL_VAE), alone, 1).set_statistics(1)


def test_teacher_learns(avatar_set: AvatarSet, tmp_path: Path) -> None:
    """The loss falls below that of the silent start on the same draws; all three branches are among the samples."""
    torch.manual_seed(0)
    unet = replace(TINY.unet, block_out_channels=(32, 32, 64), norm_groups=8, audio_token_dim=16)
    networks = Networks(replace(TINY, clip_frames=4, unet=unet, vae=SMALL_VAE))
    VAETask(networks.vae, avatar_set, batch=2).set_statistics(16)
    accelerator = Accelerator(cpu=True)
    clips = encode_clips(avatar_set, networks, accelerator, tmp_path / "latents")
    task = TeacherTask(networks, clips, 4, lambda *_: None)

    def loss_of_fixed_draws() -> float:
        with torch.no_grad():
            return sum(float(task.losses(task.module, s, sample_generators(9, s, 0, 4))["loss"]) for s in range(12))

    before = loss_of_fixed_draws()
    train(task, replace(SETTINGS, steps=60, learning_rate=3e-3, ema_decay=0.9), tmp_path, accelerator, NEVER)
    assert loss_of_fixed_draws() < 0.985 * before

    kinds = set()
    for step in range(40):
        _, drops, _, _ = task.draw(sample_generators(1, step, 0, 4))
        assert (drops[:, 0].int().diff() <= 0).all(), "rows without reference come first"
        kinds |= set(map(tuple, drops.tolist()))
    assert kinds == {(True, True), (True, False), (False, True), (False, False)}
