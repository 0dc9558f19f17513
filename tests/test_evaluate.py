"""The measures: known answers on made-up series and pictures, and the shipped regressor on held-out renderings."""

from __future__ import annotations

import math

import pytest
import torch

from fada_core import avatars
from fada_core.data.avatars import HELD_OUT_SEED
from fada_core.evaluate.__main__ import summarise
from fada_core.evaluate.lips import correlation, correlation_and_offset, load_regressor
from fada_core.evaluate.metrics import Truth, face_mask, flicker, masked_psnr, measure


def wave(shift: int = 0, n: int = 100) -> torch.Tensor:
    """Speech-like: two incommensurate frequencies, `shift` frames late."""
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


@pytest.fixture(scope="module")
def clips() -> list[avatars.AvatarClip]:
    pytest.importorskip("espeakng_loader")
    return [avatars.sample(HELD_OUT_SEED + 500 + i, "high", 2.0) for i in range(8)]


def test_regressor_reads_held_out_mouths(clips: list[avatars.AvatarClip]) -> None:
    """The measure itself is good to r >= 0.95 on faces, voices and texts that it has not seen."""
    regressor = load_regressor()
    with torch.inference_mode():
        read = torch.cat([regressor(clip.frames.float() / 127.5 - 1) for clip in clips])
    assert correlation(read, torch.cat([clip.truth["openness"] for clip in clips])) >= 0.95


def test_measures_of_the_truth_itself(clips: list[avatars.AvatarClip]) -> None:
    """A rendering measured against itself is in sync, loses nothing, and does not fit another recording."""
    clip = next(clip for clip in clips if clip.truth["openness"].std() > 0.05)
    other = next(c for c in clips if c is not clip and c.truth["openness"].std() > 0.05)
    truth = Truth(clip.portrait, clip.frames.float() / 127.5 - 1, clip.truth)
    with torch.inference_mode():
        values = measure(truth.frames, truth, other.truth["openness"], load_regressor(), 12)
    assert values["lips_r"] == values["lips_r_of_truth"] > 0.85
    assert values["lips_offset"] == 0
    assert abs(values["lips_r_other_audio"]) < values["lips_r"] - 0.3
    assert values["psnr_last_clip"] == values["psnr_last_clip_of_truth"]
    assert 0 < face_mask(truth).mean() < 0.6
