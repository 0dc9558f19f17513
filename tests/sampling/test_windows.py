"""Overlapping windows over the whole video: equal to sampling step by step over all frames, in constant memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fada_core.errors import FadaError
from fada_core.models.audio.projection import clip_windows
from fada_core.models.inputs import Subject
from fada_core.models.networks import Networks
from fada_core.sampling.chain import sample_chain
from fada_core.sampling.denoise import Denoiser, GuidedClip, prepare_subject
from fada_core.sampling.schedule import NoiseSchedule
from fada_core.sampling.solvers import build_solver
from fada_core.sampling.windows import window_starts
from fada_core.settings import SamplingSettings
from tests.support.networks import OVERLAPPING, make_features, make_networks

SIDE = OVERLAPPING.size // OVERLAPPING.vae.downscale


@pytest.fixture(scope="module")
def networks() -> Networks:
    return make_networks(OVERLAPPING)


@pytest.fixture
def subject(networks: Networks) -> Subject:
    portrait = torch.randn(1, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return prepare_subject(networks, portrait, face_box=torch.ones(1, 1, OVERLAPPING.size, OVERLAPPING.size))


def step_by_step(networks: Networks, subject: Subject, features: Tensor, settings: SamplingSettings) -> Tensor:
    """Sample with all frames in memory: all windows of a step before the next step."""
    frames, length = len(features), OVERLAPPING.clip_frames
    schedule, generator = NoiseSchedule(OVERLAPPING.schedule), torch.Generator().manual_seed(0)
    x = torch.cat([torch.randn(1, 1, 4, SIDE, SIDE, generator=generator) for _ in range(frames)], 1)
    motion = x.new_zeros(1, 0, 4, SIDE, SIDE)
    solver = build_solver(schedule, settings.steps, settings.solver)
    for step, t in enumerate(solver.timesteps):
        total, count = torch.zeros_like(x), torch.zeros(frames)
        for start in window_starts(frames, length, OVERLAPPING.clip_overlap, step):
            audio = clip_windows(features, start, length, 1)
            guided = GuidedClip(Denoiser(networks), subject, motion, audio, settings)
            total[:, start : start + length] += guided.step(x[:, start : start + length], t)[0]
            count[start : start + length] += 1
        x = solver.step(total / count[:, None, None, None], t, x)
    return x


@pytest.mark.parametrize("overlap", [1, 3])
@pytest.mark.parametrize("frames", [12, 13, 40])
def test_windows_cover_all_frames_and_move(frames: int, overlap: int) -> None:
    seen = set()
    for step in range(10):
        starts = window_starts(frames, 12, overlap, step)
        assert starts[0] == 0 and starts[-1] == frames - 12
        assert all(0 < b - a <= 12 - overlap for a, b in zip(starts, starts[1:], strict=False))
        seen.add(tuple(starts))
    assert len(seen) > 1 or frames < 14


@pytest.mark.parametrize(("solver", "scale"), [("ddim", 1.0), ("dpm++", 2.5)])
def test_staggered_steps_equal_one_step_after_the_other(
    networks: Networks, subject: Subject, solver: str, scale: float
) -> None:
    features, settings = make_features(OVERLAPPING, 15), SamplingSettings(3, scale, scale, solver=solver)
    whole = step_by_step(networks, subject, features, settings)
    generator = torch.Generator().manual_seed(0)
    clips = list(sample_chain(Denoiser(networks), subject, features, settings, generator))
    torch.testing.assert_close(torch.cat([clip.latents for clip in clips], 1), whole, atol=1e-4, rtol=1e-4)
    windows = sum(len(window_starts(15, 4, 1, step)) for step in range(3))
    assert sum(clip.nfe for clip in clips) == windows * (1 if scale == 1 else 2)
    assert {clip.nfe_per_clip for clip in clips} == {3 * (1 if scale == 1 else 2)}


def test_scales_apply_in_their_interval_only(networks: Networks, subject: Subject) -> None:
    """Outside of the interval one branch suffices."""
    config = networks.config
    audio, x = clip_windows(make_features(config, 4), 0, 4, 1), torch.randn(1, 4, 4, SIDE, SIDE)
    motion = x.new_zeros(1, 0, 4, SIDE, SIDE)

    def predict(t: int, scale: float, interval: tuple[float, float]) -> tuple[Tensor, int]:
        settings = SamplingSettings(3, scale, scale, guidance_interval=interval)
        guided = GuidedClip(Denoiser(networks), subject, motion, audio, settings)
        return guided.step(x, t)[0], guided.nfe

    for t, inside in ((999, False), (700, True), (500, True), (300, False)):
        prediction, nfe = predict(t, 2.5, (0.5, 0.8))
        expected, expected_nfe = predict(t, 2.5 if inside else 1.0, (0.0, 1.0))
        torch.testing.assert_close(prediction, expected, rtol=0, atol=0)
        assert nfe == expected_nfe == (2 if inside else 1)


def test_frames_are_finished_on_the_way(networks: Networks, subject: Subject) -> None:
    """The first clip needs only the first few windows, however long the video is."""
    done: list[tuple[int, int]] = []

    def callback(step: int, steps: int, expected: Tensor) -> None:
        done.append((step, steps))
        assert expected.shape == (4, 4, SIDE, SIDE)

    features, settings = make_features(OVERLAPPING, 500), SamplingSettings(2, 1.0, 1.0)
    clips = sample_chain(Denoiser(networks), subject, features, settings, torch.Generator(), callback)
    assert next(clips).latents.shape == (1, 3, 4, SIDE, SIDE)
    step, steps = done[-1]
    assert step == len(done) <= 6 and steps > 300


@pytest.mark.parametrize("solver", ["ddim", "dpm++"])
def test_sampling_goes_on_after_the_first_clips(networks: Networks, subject: Subject, solver: str) -> None:
    """The same frames, computed only from the windows that they depend on."""
    features, settings = make_features(OVERLAPPING, 50), SamplingSettings(3, 2.5, 2.5, solver=solver)

    def sample(after: Tensor | None = None) -> tuple[list[Tensor], list[tuple[int, int]]]:
        done: list[tuple[int, int]] = []
        clips = sample_chain(
            Denoiser(networks),
            subject,
            features,
            settings,
            torch.Generator().manual_seed(0),
            lambda step, steps, _: done.append((step, steps)),
            after,
        )
        return [clip.latents for clip in clips], done

    whole, all_done = sample()
    for count in range(1, len(whole)):
        rest, done = sample(torch.cat(whole[:count], 1))
        assert len(rest) == len(whole) - count
        assert all(map(torch.equal, rest, whole[count:]))
        assert done == all_done[-len(done) :]
        assert len(done) <= 3 * (len(rest) + 1) + 6  # each step begins some windows earlier than the one after


def test_a_short_video_is_cut_from_a_whole_window(networks: Networks, subject: Subject) -> None:
    for frames in (1, 3, 5):
        features, settings = make_features(OVERLAPPING, frames), SamplingSettings(1, 1.0, 1.0)
        clips = sample_chain(Denoiser(networks), subject, features, settings, torch.Generator())
        assert sum(clip.latents.shape[1] for clip in clips) == frames


def test_contradicting_configs_are_refused() -> None:
    with pytest.raises(FadaError, match="clip_overlap"):
        replace(OVERLAPPING, clip_overlap=4)
    with pytest.raises(FadaError, match="clip_overlap"):
        replace(OVERLAPPING, motion_frames=1)
    with pytest.raises(FadaError, match="10 audio tokens of width 8"):
        replace(OVERLAPPING, condition=replace(OVERLAPPING.condition, audio_tokens=12))
    with pytest.raises(FadaError, match="audio or to identity"):
        replace(OVERLAPPING, unet=replace(OVERLAPPING.unet, image_token_dim=8))
