"""The stages of pretraining: rendered people, autoencoder, audio projection, teacher, another decoder."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from fada_core.checkpoint import CheckpointInfo, load_checkpoint, read_info, save_checkpoint
from fada_core.config import PORTRAIT, ControlConfig
from fada_core.data.avatars import AvatarSet
from fada_core.data.manifest import ManifestSet
from fada_core.data.samples import encode_clips
from fada_core.errors import FadaError
from fada_core.models.networks import Networks
from fada_core.models.vae import TinyVAE
from fada_core.pretrain import __main__ as pretrain
from fada_core.pretrain import decoder
from fada_core.pretrain.speech import SpeechTask, Utterances
from fada_core.pretrain.teacher import TeacherTask
from fada_core.pretrain.vae import VAETask
from fada_core.training import LoopConfig, train
from fada_core.training.loop import sample_generators
from tests.support.footage import film, manifest, row
from tests.support.small import SMALL, SMALL_UNET, SMALL_VAE
from tests.support.training import NEVER, SETTINGS, column


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
    monkeypatch.setattr(decoder, "PORTRAIT", SMALL)
    networks = Networks(older)
    student = replace(older, control=ControlConfig("tokens", 2, 16))
    other = Networks(student)
    other.vae.load_state_dict(networks.vae.state_dict())
    save_checkpoint(tmp_path / "teacher.safetensors", networks, CheckpointInfo("teacher"), torch.float16)
    save_checkpoint(tmp_path / "student.safetensors", other, CheckpointInfo("student", 6), torch.float16)
    same = decoder.replace_decoder(load_checkpoint(tmp_path / "teacher.safetensors")[0], older.vae).state_dict()
    half = load_file(tmp_path / "teacher.safetensors")
    assert all(torch.equal(value.half(), half[f"vae.{name}"]) for name, value in same.items())
    config = decoder.DecoderConfig(
        out=tmp_path / "new",
        models=(str(tmp_path / "teacher.safetensors"), str(tmp_path / "student.safetensors")),
        clips=2,
        moderate_clips=1,
        clip_seconds=0.48,
        workers=1,
        batch=2,
        crop=0,
        sampled_batch=2,
        sampled_cells=2,
        loop=LoopConfig(steps=2, preview_every=2, log_every=1),
        mixed_precision="no",
        cpu=True,
    )
    written = decoder.run(config)
    assert all(float(value) > 0 for value in column(config.out / "decoder", "sampled"))
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


def test_sampled_latents_belong_to_their_pictures(tmp_path: Path) -> None:
    """A model that predicts no motion samples the portrait's latents; pictures and weights are cut like latents."""
    pytest.importorskip("espeakng_loader")
    torch.manual_seed(0)
    networks = Networks(replace(SMALL, size=64))
    source = AvatarSet(tmp_path / "avatars", "high", 1, 0.48, 64, 25.0)
    source.render(1)
    clips = encode_clips(source, networks, Accelerator(cpu=True), tmp_path / "latents")
    joined = decoder._WithPictures(clips, source, 8)
    sampled = decoder.Sampled(networks, CheckpointInfo("teacher", 6), joined, 4)
    latents, pictures, weights = sampled.draw([torch.Generator().manual_seed(seed) for seed in range(2)])
    assert latents.shape == (2 * 4, 16, 4, 4) and pictures.shape == (8, 3, 32, 32) and weights.shape == (8, 1, 32, 32)
    assert weights.min() >= 1 and weights.max() > 1.5
    whole = torch.stack([source.frames(0, torch.tensor([row]))[0] for row in range(12)])
    patches = whole.unfold(2, 32, 8).unfold(3, 32, 8)  # (12, 3, y, x, 32, 32), at all places of a cell's grid
    for picture in pictures:
        assert ((patches - picture[:, None, None]).abs().amax((1, 4, 5)) < 2e-3).any()


def test_a_base_keeps_what_fits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A preset whose audio projection has another width takes the rest of an older checkpoint."""
    monkeypatch.setattr(pretrain, "PORTRAIT", SMALL)
    older = replace(SMALL, condition=replace(SMALL.condition, audio_hidden=8))
    networks = Networks(older)
    save_checkpoint(tmp_path / "old.safetensors", networks, CheckpointInfo("teacher"))
    with caplog.at_level(logging.WARNING, "fada"):
        taken = pretrain._read_base(str(tmp_path / "old.safetensors"))
    assert taken.config.condition.audio_hidden == 16 and "audioproj of" in caplog.text
    for name, value in networks.denoising_unet.state_dict().items():
        assert torch.equal(value, taken.denoising_unet.state_dict()[name])


def test_pretraining_on_prepared_footage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole command on a manifest; an unreadable clip costs nothing but itself, the checkpoint says what it saw."""
    monkeypatch.setattr(pretrain, "PORTRAIT", SMALL)
    film(tmp_path / "a.mp4", frames=30)
    clips = manifest(tmp_path, row("good"), row("gone", video="b.mp4"), row("dark", pool="moderate"))
    short = LoopConfig(steps=1, preview_every=9)
    config = pretrain.PretrainConfig(
        out=tmp_path / "run",
        data=str(clips),
        utterances=0,
        vae_batch=2,
        closeup_cells=4,
        closeup_batch=1,
        picture_batch=1,
        teacher_batch=1,
        vae=short,
        closeups=short,
        pictures=short,
        teacher=short,
        cpu=True,
    )
    path = pretrain.run(replace(config, mixed_precision="no"))
    _, info = read_info(path)
    assert (info.role, info.training["data"]) == ("teacher", "2 clips of clips.jsonl")
    further = pretrain.run(replace(config, mixed_precision="no", base=str(path), out=tmp_path / "further"))
    old, new = load_file(path), load_file(further)
    assert torch.equal(old["vae.decoder.0.weight"], new["vae.decoder.0.weight"])
    assert not torch.equal(old["denoising_unet.conv_in.bias"], new["denoising_unet.conv_in.bias"])
    assert read_info(further)[1].training["base"] == "teacher"
    with pytest.raises(FadaError, match="cannot be read, the last one, gone, because"):
        alone = ManifestSet(manifest(tmp_path, row("gone", video="b.mp4")), 64, 25)
        VAETask(TinyVAE(SMALL_VAE), alone, 1).set_statistics(1)


def test_audio_projection_learns_mouths_from_sound(tmp_path: Path) -> None:
    """The error of what is read falls, and so it does for voices that were held out."""
    pytest.importorskip("espeakng_loader")
    data = Utterances(tmp_path / "data", 8, 1.2, SMALL, shard=4)
    data.make(1)
    features, targets = data.load()
    assert features.shape[:2] == targets.shape[:2] == (2 * 8 + data.held_out, 30)
    missing, *others = sorted(tmp_path.glob("data/*"))
    before = [path.stat().st_mtime_ns for path in others]
    missing.unlink()
    data.make(1)
    assert missing.exists() and [path.stat().st_mtime_ns for path in others] == before
    torch.manual_seed(0)
    projection = Networks(SMALL).audioproj
    task = SpeechTask(projection, SMALL, data, 8)
    train(task, replace(SETTINGS, steps=80, preview_every=80), tmp_path / "run", Accelerator(cpu=True), NEVER)
    loss = [float(value) for value in column(tmp_path / "run", "loss")]
    assert sum(loss[-5:]) < 0.8 * sum(loss[:5])
    held_out = json.loads((tmp_path / "run" / "held-out-000080.json").read_text())
    assert held_out["openness"] > 0.3


def test_the_teacher_keeps_the_audio_projection(tmp_path: Path) -> None:
    """What it learned from sound alone stays as it was in the stages that follow."""
    pytest.importorskip("espeakng_loader")
    networks = Networks(SMALL)
    before = networks.audioproj.proj1.weight.clone()
    config = pretrain.PretrainConfig(
        out=tmp_path,
        workers=1,
        utterances=1,
        utterance_seconds=0.8,
        speech_batch=1,
        speech=LoopConfig(steps=2, preview_every=9),
    )
    assert pretrain._audio_projection(config, networks, Accelerator(cpu=True), NEVER)
    assert not torch.equal(networks.audioproj.proj1.weight, before)
    (group,) = TeacherTask(networks, [], 1, lambda *_: None).parameter_groups()
    learning = set(map(id, group["params"]))
    assert learning and not learning & set(map(id, networks.audioproj.parameters()))


def test_stills_are_single_frames(avatar_set: AvatarSet, tmp_path: Path) -> None:
    """A still has no frames beside or before it; learning from stills leaves the motion modules alone."""
    torch.manual_seed(0)
    networks = Networks(replace(PORTRAIT, size=128, unet=replace(PORTRAIT.unet, in_channels=16), vae=SMALL_VAE))
    accelerator = Accelerator(cpu=True)
    clips = encode_clips(avatar_set, networks, accelerator, tmp_path / "latents")
    task = TeacherTask(networks, clips, 2, lambda *_: None, cells=8, stills=True)
    batch, *_ = task.draw(sample_generators(0, 0, 0, 2), 8)
    channels = SMALL_VAE.latent_channels
    assert batch.latents.shape == (2, 1, channels, 8, 8) and batch.motion.shape == (2, 0, channels, 8, 8)
    before = {name: value.clone() for name, value in networks.denoising_unet.state_dict().items()}
    train(task, replace(SETTINGS, steps=2), tmp_path, accelerator, NEVER)
    changed = {name for name, value in networks.denoising_unet.state_dict().items() if not value.equal(before[name])}
    assert changed and not any("motion_modules" in name for name in changed)
    clip_task = TeacherTask(networks, clips, 1, lambda *_: None, cells=8, closeup_steps=1)
    seen = []
    clip_task.module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[-1]))
    for step in range(2):
        clip_task.losses(clip_task.module, step, sample_generators(0, step, 0, 1))
    assert seen == [8, 16]
    assert all(value.requires_grad for value in networks.denoising_unet.parameters())


def test_teacher_learns(avatar_set: AvatarSet, tmp_path: Path) -> None:
    """The loss falls below that of the silent start on the same draws; all three branches are among the samples."""
    torch.manual_seed(0)
    networks = Networks(replace(PORTRAIT, size=128, clip_frames=4, unet=SMALL_UNET, vae=SMALL_VAE))
    VAETask(networks.vae, avatar_set, batch=2).set_statistics(16)
    accelerator = Accelerator(cpu=True)
    clips = encode_clips(avatar_set, networks, accelerator, tmp_path / "latents")
    task = TeacherTask(networks, clips, 16, lambda *_: None, stills=True)

    def loss_of_fixed_draws() -> float:
        with torch.no_grad():
            return sum(float(task.losses(task.module, s, sample_generators(9, s, 0, 16))["loss"]) for s in range(6))

    before = loss_of_fixed_draws()
    train(task, replace(SETTINGS, steps=60, learning_rate=3e-3, ema_decay=0.9), tmp_path, accelerator, NEVER)
    assert loss_of_fixed_draws() < 0.985 * before

    kinds = set()
    for step in range(10):
        _, drops, _, _ = task.draw(sample_generators(1, step, 0, 16))
        kinds |= set(map(tuple, drops.tolist()))
    assert kinds == {(True, True), (True, False), (False, True), (False, False)}
