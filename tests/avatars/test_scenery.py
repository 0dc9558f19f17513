"""Backgrounds: shape, variety, softness, and the same picture for the same seed."""

import numpy as np
import pytest

from fada_core.avatars import scenery


@pytest.mark.parametrize("kind", scenery.SCENES, ids=lambda kind: kind.__name__)
def test_every_kind_is_a_picture_in_linear_light(kind):
    for seed in range(6):
        picture = np.asarray(kind(48, np.random.default_rng(seed)))
        assert picture.shape == (48, 48, 3) and np.isfinite(picture).all()
        assert 0 < picture.mean() < 2.5


def test_a_background_is_repeatable_and_no_two_are_alike():
    first, again = (scenery.background(np.random.default_rng(5), 64) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.float32 and first.min() >= 0
    means = [scenery.background(np.random.default_rng(seed), 32).mean((0, 1)) for seed in range(40)]
    assert np.std(means, axis=0).min() > 0.1


def test_a_background_does_not_depend_on_its_size():
    for seed in range(8):
        small, large = (scenery.background(np.random.default_rng(seed), size) for size in (64, 128))
        assert abs(small.mean() - large.mean()) < 0.25 * large.mean() + 0.05


def test_hardly_any_background_is_as_sharp_as_a_face():
    def detail(picture: np.ndarray) -> float:
        tone = picture.mean(2)
        return np.abs(np.diff(tone, axis=1)).mean() / (tone.mean() + 1e-6)

    soft = [detail(scenery.background(np.random.default_rng(seed), 128)) for seed in range(30)]
    assert np.median(soft) < 0.03
