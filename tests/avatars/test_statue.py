"""Statues: each material has its colour and gloss."""

import numpy as np
import pytest

from fada_core.avatars import statue, styles


@pytest.mark.parametrize("name", styles.STATUES)
def test_a_statue_is_of_one_stuff(name):
    made = [statue.material(name, np.random.default_rng(seed), 96) for seed in range(6)]
    again = statue.material(name, np.random.default_rng(0), 96)
    np.testing.assert_array_equal(made[0].albedo, again.albedo)
    for stuff in made:
        assert stuff.albedo.shape == (96, 96, 3) and stuff.albedo.dtype == np.uint8
        assert stuff.albedo.std() < 60 and 0 <= stuff.gloss <= 1
        assert (stuff.metal > 0.5) == (name == "bronze")
    brightness = np.mean([stuff.albedo.mean() for stuff in made])
    assert brightness > 180 if name == "marble" else brightness < 180
