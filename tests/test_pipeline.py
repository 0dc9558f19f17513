"""The pipeline: inputs, outputs, and messages for mistakes."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import fada_core
from fada_core.checkpoint import CheckpointInfo, save_checkpoint
from fada_core.errors import FadaError
from fada_core.pipeline import Pipeline
from fada_core.system import default_device, default_dtype
from tests.support.networks import FRAME, SMALL, make_networks, speech


def make_pipeline() -> Pipeline:
    return Pipeline(make_networks(SMALL), CheckpointInfo(role="teacher"))


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return make_pipeline()


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.rand(1, 3, 90, 70, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def cond(pipe, image):
    return pipe.encode(image, speech(10 * FRAME))


@pytest.mark.parametrize("samples", [1, 1600, FRAME, FRAME + 1, 16000])
def test_video_is_as_long_as_the_audio(pipe, image, samples):
    cond = pipe.encode(image, speech(samples))
    assert cond.frames == max(1, math.ceil(samples / FRAME))
    latents = torch.cat(list(pipe.sample(cond, steps=1, ref_cfg=1, audio_cfg=1)))
    assert latents.shape == (cond.frames, 16, 8, 8)


def test_frames_come_out_clip_by_clip(pipe, cond):
    clips = list(pipe.sample(cond, steps=2))
    assert [len(clip) for clip in clips] == [4, 4, 2]
    frames = pipe.decode(torch.cat(clips), batch=3)
    assert frames.shape == (10, 3, 64, 64) and frames.dtype == torch.float32
    assert frames.isfinite().all() and frames.abs().max() <= 1
    torch.testing.assert_close(frames, pipe.decode(torch.cat(clips)), atol=1e-5, rtol=0)
    assert pipe.preview(clips[0][-1:]).shape == (1, 3, 64, 64)


def test_defaults_are_the_papers_75_passes(pipe, cond):
    next(pipe.sample(cond))
    assert (pipe.stats.clips, pipe.stats.frames, pipe.stats.nfe_per_clip) == (1, 4, 75)
    assert pipe.stats.seconds > 0
    next(pipe.sample(cond, ref_cfg=1, audio_cfg=1))
    assert pipe.stats.nfe_per_clip == 25


def test_defaults_come_from_the_checkpoint(pipe, cond):
    own = Pipeline(pipe.networks, CheckpointInfo(role="teacher", steps=3, ref_cfg=1.0, audio_cfg=2.0))
    mine = next(own.sample(cond))
    assert own.stats.nfe == 6
    assert torch.equal(mine, next(pipe.sample(cond, steps=3, ref_cfg=1.0, audio_cfg=2.0)))


def test_same_seed_same_video(pipe, image):
    def run(seed: int) -> torch.Tensor:
        return torch.cat(list(pipe.sample(pipe.encode(image, speech(5 * FRAME)), steps=2, seed=seed)))

    first = run(7)
    torch.rand(3)  # the global generator has no say
    assert torch.equal(first, run(7))
    assert not torch.allclose(first, run(8))
    assert run(2**64 - 1).isfinite().all()


def test_sound_and_portrait_reach_the_video(pipe, image):
    def run(picture: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
        return next(pipe.sample(pipe.encode(picture, audio), steps=2))

    first = run(image, speech(4 * FRAME))
    assert (run(image, 0 * speech(4 * FRAME)) - first).abs().max() > 1e-4
    assert (run(-image, speech(4 * FRAME)) - first).abs().max() > 1e-4


def test_callback_interrupts_and_sees_clean_latents(pipe, cond):
    class Interrupted(Exception):
        pass

    seen = []

    def callback(step, steps, latents):
        seen.append((step, steps, pipe.preview(latents[:1]).shape))
        if step == 3:
            raise Interrupted

    clips = pipe.sample(cond, steps=2, callback=callback)
    assert len(next(clips)) == 4
    with pytest.raises(Interrupted):
        next(clips)
    assert seen == [(step, 6, (1, 3, 64, 64)) for step in (1, 2, 3)]


def test_sampling_goes_on_after_an_earlier_one(pipe, cond):
    whole = list(pipe.sample(cond, steps=2))
    rest = list(pipe.sample(cond, steps=2, after=whole[0]))
    assert pipe.stats.frames == 6
    assert all(map(torch.equal, rest, whole[1:]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "fast"}, "'fast' needs a student checkpoint, but this one is a teacher; choose mode 'teacher'"),
        ({"mode": "balanced"}, "needs a student"),
        ({"mode": "best"}, "teacher, balanced, fast"),
        ({"steps": 0}, "1 to 1000"),
        ({"steps": 1001}, "1 to 1000"),
        ({"ref_cfg": float("nan")}, "ref_cfg is nan"),
        ({"audio_cfg": float("inf")}, "audio_cfg is inf"),
        ({"audio_cfg": -1.0}, "0 to 20"),
        ({"ref_cfg": 20.5}, "0 to 20"),
        ({"solver": "euler"}, "ddim"),
        ({"seed": 2**64}, "64 bits"),
        ({"after": torch.zeros(3, 16, 8, 8)}, "whole clips, 4 frames each"),
        ({"after": torch.zeros(12, 16, 8, 8)}, "fewer than the video's 10"),
        ({"after": torch.zeros(4, 4, 8, 8)}, "shape"),
    ],
)
def test_wrong_settings_are_refused_before_the_first_clip(pipe, cond, change, message):
    with pytest.raises(FadaError, match=message):
        pipe.sample(cond, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"audio": torch.zeros(0)}, "0 frames"),
        ({"audio": torch.zeros(2, 100)}, "mono"),
        ({"audio": torch.full((100,), float("nan"))}, "not finite"),
        ({"image": torch.full((1, 3, 8, 8), float("inf"))}, "not finite"),
        ({"image": torch.zeros(1, 4, 8, 8)}, "RGB"),
        ({"image": torch.zeros(1, 3, 0, 8)}, "RGB"),
    ],
)
def test_wrong_input_is_refused(pipe, image, change, message):
    with pytest.raises(FadaError, match=message):
        pipe.encode(**{"image": image, "audio": speech(FRAME), **change})


def test_condition_of_another_model_is_refused(pipe, cond):
    with pytest.raises(FadaError, match="another model"):
        pipe.sample(replace(cond, config=replace(SMALL, name="other")))


def test_out_of_memory_says_what_to_lower(image, cond, monkeypatch):
    pipe = make_pipeline()

    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(pipe.networks, "predict", fail)
    with pytest.raises(FadaError, match="batch_branches=False"):
        next(pipe.sample(cond))
    monkeypatch.setattr(pipe.networks.vae, "decode", fail)
    with pytest.raises(FadaError, match="offload=True"):
        pipe.decode(torch.zeros(1, 16, 8, 8))
    monkeypatch.setattr(pipe.networks.vae, "encode", fail)
    with pytest.raises(FadaError, match="out of memory"):
        pipe.encode(image, speech(FRAME))


def test_a_student_without_tokens_has_one_mode(pipe, image):
    """Accelerated weights, into which guidance is distilled, have the mode fast and scales of 1."""
    info = CheckpointInfo(role="student", steps=2, ref_cfg=1.0, audio_cfg=1.0, scale_ranges=((1.0, 1.0), (1.0, 1.0)))
    student = Pipeline(pipe.networks, info)
    assert student.modes == ("fast",)
    cond = student.encode(image, speech(FRAME))
    next(student.sample(cond))
    assert student.stats.nfe_per_clip == 2
    with pytest.raises(FadaError, match="needs a student with CFG tokens"):
        student.sample(cond, mode="balanced")
    with pytest.raises(FadaError, match="audio_cfg is 3, but this model has no guidance to scale; leave audio_cfg out"):
        student.sample(cond, audio_cfg=3.0)


@pytest.mark.parametrize("interval", [(1.0, 0.0), (float("nan"), 1.0), (-5.0, 9.0), (0.5, 0.5)])
def test_guidance_interval_that_is_none(pipe, cond, interval):
    with pytest.raises(FadaError, match="no part of the schedule"):
        pipe.sample(cond, guidance_interval=interval)


def test_guidance_interval_saves_evaluations(pipe, cond):
    next(pipe.sample(cond, steps=4, ref_cfg=2.0, audio_cfg=3.0, guidance_interval=(0.0, 0.6)))
    assert pipe.stats.nfe_per_clip == 1 + 1 + 3 + 3


def test_load_gives_the_same_pipeline(pipe, image, cond, tmp_path):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, pipe.networks, CheckpointInfo(role="teacher", steps=2))
    loaded = fada_core.load(path, device="cpu")
    ours, theirs = next(loaded.sample(cond)), next(pipe.sample(cond, steps=2))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)  # weights lie in another order, which rounds otherwise
    ours, theirs = (each.encode(image, speech(FRAME)).audio_features for each in (loaded, pipe))
    assert torch.equal(ours, theirs)


def test_half_precision_runs(pipe, image, tmp_path):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, pipe.networks, CheckpointInfo(role="teacher", steps=2))
    half = fada_core.load(path, device="cpu", dtype=torch.bfloat16)
    assert half.networks.dtype == torch.bfloat16
    latents = next(half.sample(half.encode(image, speech(4 * FRAME))))
    assert latents.dtype == torch.float32 and latents.isfinite().all()
    assert half.decode(latents).dtype == torch.float32


@pytest.mark.parametrize("device", ["toaster", "xpu"])
def test_missing_devices_are_refused(device, tmp_path):
    with pytest.raises(FadaError, match=f"device|{default_device().type}"):
        fada_core.load(tmp_path / "model.safetensors", device=device)


def test_default_precision_is_full_on_the_cpu():
    assert default_dtype(torch.device("cpu")) == torch.float32


def test_import_is_light():
    code = "import sys, fada_core; assert 'torch' not in sys.modules; assert fada_core.__version__"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603
