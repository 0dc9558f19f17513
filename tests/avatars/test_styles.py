"""Styles: they change the picture, do not flicker, and keep mouth and eyes visible."""

import numpy as np
import pytest

from fada_core.avatars import filters, styles
from fada_core.avatars.mesh import Part
from fada_core.errors import FadaError

SIZE = 96
CHANGING = [name for name in styles.STYLES if name != "photograph"]


def portrait(mouth: float) -> tuple[np.ndarray, np.ndarray]:
    """A face of simple shapes with lips `mouth` pixels open: picture (s, s, 3) uint8 and parts (s, s) uint8."""
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    parts = np.zeros((SIZE, SIZE), np.uint8)
    color = np.zeros((SIZE, SIZE, 3), np.float32) + (0.35, 0.42, 0.5)

    def ellipse(cx, cy, rx, ry, part, rgb):
        inside = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1
        parts[inside] = part
        color[inside] = rgb

    ellipse(48, 44, 32, 40, Part.HAIR, (0.15, 0.09, 0.06))
    ellipse(48, 52, 25, 34, Part.SKIN, (0.82, 0.62, 0.52))
    for side in (-11, 11):
        ellipse(48 + side, 46, 6, 3, Part.EYES, (0.9, 0.88, 0.86))
        ellipse(48 + side, 46, 2.5, 2.5, Part.EYES, (0.1, 0.08, 0.07))
    ellipse(48, 68, 11, 4 + mouth, Part.LIPS, (0.68, 0.36, 0.34))
    if mouth:
        ellipse(48, 68, 8, mouth, Part.MOUTH, (0.12, 0.04, 0.04))
    color *= (1.1 - 0.006 * x)[..., None]
    return np.round(255 * np.clip(color, 0, 1)).astype(np.uint8), parts


def styled(name: str, *mouths: float, seed: int = 3) -> np.ndarray:
    frames, parts = zip(*(portrait(m) for m in mouths), strict=True)
    style = styles.prepare(name, frames[0], parts[0], np.random.default_rng(seed))
    return styles.apply(style, np.stack(frames), np.stack(parts))


def test_a_photograph_stays_as_it_is():
    np.testing.assert_array_equal(styled("photograph", 0)[0], portrait(0)[0])


@pytest.mark.parametrize("name", CHANGING)
def test_a_style_changes_the_picture_but_not_from_frame_to_frame(name):
    out = styled(name, 0, 0)
    assert out.dtype == np.uint8 and out.shape == (2, SIZE, SIZE, 3)
    np.testing.assert_array_equal(out[0], out[1])
    assert np.abs(out[0].astype(int) - portrait(0)[0]).mean() > 0.5
    np.testing.assert_array_equal(out, styled(name, 0, 0))


@pytest.mark.parametrize("name", CHANGING)
@pytest.mark.parametrize("seed", [3, 4, 5])
def test_an_opening_mouth_is_seen_and_the_rest_holds_still(name, seed):
    shut, open_ = styled(name, 0, 5, seed=seed).astype(int).mean(3)
    change = np.abs(shut - open_)
    assert change[64:73, 42:55].mean() > 12
    assert change[:30].mean() < 0.5


@pytest.mark.parametrize("name", CHANGING)
def test_eyes_stand_out(name):
    tone = styled(name, 0)[0].astype(int).mean(2)
    for x in (37, 59):
        eye = tone[43:50, x - 6 : x + 7]
        assert eye.max() - eye.min() > 50


def test_the_high_pool_holds_photographs_alone_and_the_moderate_one_all():
    rng = np.random.default_rng(0)
    assert {styles.sample_style(rng, "high") for _ in range(20)} == {"photograph"}
    assert {styles.sample_style(rng, "moderate") for _ in range(600)} == set(styles.STYLES)


def test_an_unknown_style_is_named():
    frame, parts = portrait(0)
    with pytest.raises(FadaError, match="no style 'cubism'"):
        styles.prepare("cubism", frame, parts, np.random.default_rng(0))


def test_blur_is_a_gaussian_and_keeps_the_mean_of_a_flat_picture():
    picture = np.zeros((41, 41), np.float32)
    picture[20, 20] = 1
    y, x = np.mgrid[-20:21, -20:21]
    expected = np.exp(-(x**2 + y**2) / (2 * 2.0**2)) / (2 * np.pi * 2.0**2)
    np.testing.assert_allclose(filters.blur(picture, 2.0), expected, atol=2e-3)
    np.testing.assert_allclose(filters.blur(np.ones((9, 13, 3), np.float32), 1.5), 1, rtol=1e-5)


def test_kuwahara_keeps_edges_and_removes_noise():
    rng = np.random.default_rng(1)
    picture = np.zeros((40, 40, 3), np.float32)
    picture[:, 20:] = 0.8
    noisy = picture + rng.normal(0, 0.03, picture.shape).astype(np.float32)
    out = filters.kuwahara(noisy, 3)
    assert np.abs(out - picture)[:, 2:-2].max() < 0.06
    assert out[:, 4:16].std() < 0.5 * noisy[:, 4:16].std()
