"""The metrics: known results for made-up series and pictures, and the shipped regressor on held-out renderings."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from fada_core import avatars
from fada_core.data.avatars import HELD_OUT_SEED
from fada_core.evaluate.cases import SILENCE, AvatarCases, Case, held_out_words
from fada_core.evaluate.frechet import clip_features, distance_over_videos, frame_features, frechet_distance
from fada_core.evaluate.lips import correlation, correlation_and_offset, load_regressor
from fada_core.evaluate.metrics import Truth, face_mask, flicker, masked_psnr, measure
from fada_core.evaluate.runs import summarise
from fada_core.media.audio import SAMPLE_RATE


def wave(shift: int = 0, n: int = 100) -> torch.Tensor:
    """A series like speech: two incommensurate frequencies, delayed by `shift` frames."""
    t = torch.arange(n) - shift
    return 0.5 + 0.3 * torch.sin(0.7 * t) + 0.2 * torch.sin(0.31 * t)


def test_correlation() -> None:
    assert correlation(wave(), 3 * wave() - 1) == pytest.approx(1)
    assert correlation(wave(), -wave()) == pytest.approx(-1)
    assert math.isnan(correlation(wave(), torch.ones(100)))


@pytest.mark.parametrize("late", [-3, 0, 2])
def test_offset_tells_how_late_the_video_is(late: int) -> None:
    r, offset = correlation_and_offset(wave(late), wave())
    assert offset == late
    assert (r > 0.999) == (late == 0)


def test_psnr_looks_only_where_the_mask_is() -> None:
    a, b = torch.zeros(2, 3, 8, 8), torch.zeros(3, 8, 8)
    a[..., :4] = 0.2  # an error of a tenth of the full range on the left half
    left = torch.zeros(1, 1, 8, 8)
    left[..., :4] = 1
    assert masked_psnr(a, b, left) == pytest.approx(20, abs=1e-3)
    assert masked_psnr(a, b, 1 - left) == math.inf


def test_flicker_ignores_steady_motion() -> None:
    frames = torch.linspace(-1, 1, 10)[:, None, None, None].expand(10, 3, 4, 4)
    mask = torch.ones(1, 1, 4, 4)
    assert flicker(frames, mask) == pytest.approx(0, abs=1e-6)
    assert flicker(frames * torch.tensor([1.0, -1.0]).repeat(5)[:, None, None, None], mask) > 0.5


def test_summary_leaves_out_what_was_not_measured() -> None:
    summary = summarise([{"a": 1.0}, {"a": 3.0, "b": math.nan}])
    assert summary["a"] == {"mean": 2.0, "ci95": pytest.approx(1.96), "n": 2}
    assert summary["b"]["n"] == 0


def normal(mean: list[float], covariance: list[list[float]], n: int, seed: int) -> torch.Tensor:
    """Samples (n, d) with exactly this mean and unbiased covariance."""
    x = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x - x.mean(0)
    white = x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (n - 1))).T
    return white @ torch.linalg.cholesky(torch.tensor(covariance, dtype=torch.float64)).T + torch.tensor(mean)


@pytest.mark.parametrize("n", [3, 50])
def test_frechet_distance_of_normal_distributions(n: int) -> None:
    """Closed forms: diagonal covariances, and the 2 x 2 case tr sqrt(M) = sqrt(tr M + 2 sqrt(det M))."""
    a = normal([0.0, 0.0], [[4.0, 0.0], [0.0, 1.0]], n, 0)
    b = normal([3.0, 4.0], [[1.0, 0.0], [0.0, 9.0]], n, 1)
    assert frechet_distance(a, b) == pytest.approx(25 + (2 - 1) ** 2 + (1 - 3) ** 2)
    assert frechet_distance(b, a) == pytest.approx(30)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    s, t = [[2.0, 0.6], [0.6, 1.0]], [[1.0, -0.3], [-0.3, 0.5]]
    product = torch.tensor(s) @ torch.tensor(t)
    root = math.sqrt(float(product.trace()) + 2 * math.sqrt(float(torch.linalg.det(product))))
    assert frechet_distance(normal([1.0, 0.0], s, n, 2), normal([0.0, 0.0], t, n, 3)) == pytest.approx(
        1 + 4.5 - 2 * root
    )


def test_frechet_distance_with_fewer_samples_than_dimensions() -> None:
    """A shift is measured despite singular covariances; a single sample has no distribution."""
    x = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(x, x + 0.5) == pytest.approx(40 * 0.25, rel=1e-6)
    assert frechet_distance(x, x.flip(1)) > 1
    assert math.isnan(frechet_distance(x[:1], x))


def test_interval_of_a_distance_comes_from_the_videos() -> None:
    generator = torch.Generator().manual_seed(0)
    true = [torch.randn(20, 3, generator=generator) for _ in range(6)]
    made = [x + 1 for x in true]
    assert distance_over_videos(made, true)[0] == pytest.approx(3, rel=1e-5)
    assert distance_over_videos(made, true)[1] == pytest.approx(0, abs=1e-5)  # every video is shifted alike
    uneven = [x + (i % 2) for i, x in enumerate(true)]
    assert distance_over_videos(uneven, true)[1] > 0.2
    assert distance_over_videos(uneven, true) == distance_over_videos(uneven, true)
    assert math.isnan(distance_over_videos(made[:1], true[:1])[1])


def test_features_answer_to_what_is_wrong_with_a_video() -> None:
    t = torch.arange(24)[:, None, None, None]
    x = torch.linspace(0, 6, 64)
    video = 0.5 * torch.sin(x[None, None, None] + 2 * x[None, None, :, None] + 0.2 * t).expand(-1, 3, -1, -1)
    noise = torch.randn(video.shape, generator=torch.Generator().manual_seed(0))
    assert frame_features(video).shape == (24, 96) and clip_features(video).shape == (2, 192)
    assert clip_features(video[:5]).shape == (1, 192)

    def distance(features, made: torch.Tensor) -> float:
        return float((features(made).mean(0) - features(video).mean(0)).norm())

    for features in (frame_features, clip_features):
        little, much = (distance(features, video + strength * noise) for strength in (0.02, 0.1))
        assert 0.1 < little < much
        assert distance(features, video - 0.3) > 0.1
    frozen, shuffled = video[:1].expand_as(video), video[torch.arange(24) * 7 % 24]
    assert distance(frame_features, shuffled) < 1e-4  # the same pictures
    assert min(distance(clip_features, frozen), distance(clip_features, shuffled)) > 1


@pytest.fixture(scope="module")
def clips() -> list[avatars.AvatarClip]:
    pytest.importorskip("espeakng_loader")
    seeds = range(HELD_OUT_SEED + 500, HELD_OUT_SEED + 506)
    return [avatars.sample(seed, "high", 1.2, size=128, framing="face") for seed in seeds]


def test_regressor_reads_held_out_mouths(clips: list[avatars.AvatarClip]) -> None:
    """The correlation is at least 0.85 on people, voices and texts that were in no training."""
    regressor = load_regressor()
    with torch.inference_mode():
        read = torch.cat([regressor(clip.frames.float() / 127.5 - 1) for clip in clips])
    assert correlation(read, torch.cat([clip.truth["openness"] for clip in clips])) >= 0.85


def test_measures_of_the_truth_itself(clips: list[avatars.AvatarClip]) -> None:
    """A rendering compared with itself is in sync, shows the same person, and does not fit another recording."""
    clip = next(clip for clip in clips if clip.truth["openness"].std() > 0.05)
    other = next(c for c in clips if c is not clip and c.truth["openness"].std() > 0.05).truth["openness"]
    truth = Truth(clip.portrait.float() / 127.5 - 1, clip.frames.float() / 127.5 - 1, clip.truth)
    regressor = load_regressor()
    values = measure(truth.frames, truth, other, regressor, 12)
    assert values["lips_r"] > 0.85
    assert values["lips_offset"] == 0
    assert values["lips_error"] < 0.15
    assert abs(values["lips_r_other_audio"]) < values["lips_r"] - 0.3
    assert values["openness_at_rest"] < 0.15
    assert values["psnr_first_clip"] > 18
    assert 0 < face_mask(truth).mean() < 0.6
    hidden = measure(truth.frames, replace(truth, mouth_hidden=True), other, regressor, 12)
    assert hidden == {name: values[name] for name in ("psnr_first_clip", "psnr_last_clip", "flicker")}


def test_both_sets_say_the_same_words_and_end_in_silence() -> None:
    pytest.importorskip("espeakng_loader")
    seconds, fps = 1.2, 25.0
    words = held_out_words(2, seconds, fps)
    assert [w.seed for w in words] == [w.seed for w in held_out_words(2, seconds, fps)]
    assert all(w.seed >= HELD_OUT_SEED and len(w.openness) == 30 for w in words)
    regressor = load_regressor()
    cases: dict[str, list[Case]] = {
        pool: list(AvatarCases(words, pool, seconds, 64, fps, 12, regressor)) for pool in ("high", "moderate")
    }
    for high, moderate in zip(cases["high"], cases["moderate"], strict=True):
        assert torch.equal(high.waveform, moderate.waveform)  # neither delayed nor noisy
        assert len(high.waveform) == round(seconds * SAMPLE_RATE) and len(high.frames) == len(moderate.frames) == 30
        assert high.waveform[-round(SILENCE * SAMPLE_RATE) :].abs().max() == 0 < high.waveform.abs().max()
        assert (high.portrait - moderate.portrait).abs().mean() > 0.05  # somebody else
        # Without defects: one and the same flat background at the first and the last moment.
        corner = moderate.frames[:, :, :2, :2]
        assert (corner[0] - corner[-1]).abs().max() < 0.05
