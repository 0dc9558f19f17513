"""Cameras and defects: each setting has its effect, and the same seed gives the same frames."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fada_core.avatars import camera, degrade
from fada_core.data.quality import RAMPS


def scene(n: int = 2, size: int = 64) -> np.ndarray:
    """Frames (n, s, s, 3) with a ramp of grey and a red square."""
    x = np.linspace(20, 235, size)
    frame = np.repeat(np.broadcast_to(x, (size, size))[..., None], 3, 2).copy()
    frame[20:44, 20:44] = (180, 60, 50)
    return np.repeat(frame[None].astype(np.uint8), n, 0)


def shot(frames: np.ndarray | None = None, seed: int = 0, **settings) -> np.ndarray:
    frames = scene() if frames is None else frames
    return camera.develop(replace(camera.CameraLook(), **settings), frames, np.random.default_rng(seed)).astype(int)


def test_a_camera_without_faults_changes_nothing():
    assert np.abs(shot() - scene().astype(int)).max() <= 1


def test_settings_do_what_they_say():
    plain = shot()
    assert shot(exposure=0.7).mean() > plain.mean() + 20 > shot(exposure=-0.7).mean() + 40
    warm = shot(balance=(1.2, 1.0, 0.8))
    assert (warm - plain)[..., 0].mean() > 5 and (warm - plain)[..., 2].mean() < -5
    assert shot(contrast=1.4).std() > plain.std() > shot(contrast=0.8).std()
    assert shot(black=0.1).min() > plain.min() + 10
    assert np.ptp(shot(saturation=0.2)[0, 30, 30]) < 0.5 * np.ptp(plain[0, 30, 30])
    ratio = shot(vignette=0.5) / np.maximum(plain, 1)
    assert ratio[0, 32, 50].mean() > 0.9 > 0.6 > ratio[0, 0, 63].mean()
    edge = np.abs(np.diff(plain[0, 32, :, 0])).max()
    assert np.abs(np.diff(shot(softness=4.0)[0, 32, :, 0])).max() < 0.7 * edge


def test_sharpening_and_coloured_fringes():
    frames = np.repeat(np.repeat(scene(1), 4, 1), 4, 2)  # 256 pixels, the unit of lengths
    soft = shot(frames, softness=1.0)[0, 128, :, 0]
    sharp = shot(frames, softness=1.0, sharpening=1.0)[0, 128, :, 0]
    assert np.abs(np.diff(sharp)).max() > 1.2 * np.abs(np.diff(soft)).max()
    assert np.ptp(shot(frames)[0, 128, 76:79], axis=1).max() == 0
    assert np.ptp(shot(frames, color_blur=2.0)[0, 128, 76:79], axis=1).max() > 10


def test_exposure_burns_nothing_out_that_was_not_white():
    assert (np.diff(shot(exposure=0.8)[0, 5, :, 1]) >= 0).all() and shot(exposure=0.8)[0, 5, -6, 1] < 254


def test_grain_moves_while_the_picture_stands():
    first, second = shot(grain=0.03, color_grain=0.01)
    assert 2 < (first - second).std() < 20
    np.testing.assert_array_equal(shot(grain=0.03, seed=4), shot(grain=0.03, seed=4))
    still = shot(softness=0.5, vignette=0.3, jpeg=70)
    np.testing.assert_array_equal(still[0], still[1])


def test_the_high_pool_has_the_better_cameras():
    def worst(pool: str) -> tuple[float, float, float]:
        looks = [camera.sample_camera_look(np.random.default_rng(seed), pool) for seed in range(200)]
        return tuple(np.mean([getattr(look, k) for look in looks]) for k in ("softness", "grain", "color_blur"))

    assert all(high < moderate for high, moderate in zip(worst("high"), worst("moderate"), strict=True))


def as_tensor() -> torch.Tensor:
    return torch.from_numpy(scene()).permute(0, 3, 1, 2)


@pytest.mark.parametrize("name", degrade.VISUAL)
def test_a_stronger_defect_harms_more_and_has_a_score(name):
    clean = as_tensor()
    harm = []
    for strength in (0.0, 0.5, 1.0):
        worse = degrade.suffer(clean, name, strength, torch.Generator().manual_seed(1))
        assert worse.shape == clean.shape and worse.dtype == torch.uint8
        harm.append(float((worse.float() - clean.float()).square().mean()))
    assert harm[0] < harm[1] < harm[2]
    assert RAMPS[name](1.0) < RAMPS[name](0.0) == 1


def test_one_to_three_defects_are_named_with_their_strength():
    generator = torch.Generator().manual_seed(2)
    counts = set()
    for _ in range(30):
        _, done = degrade.degrade(as_tensor()[:1], generator)
        counts.add(len(done))
        for defect in done:
            name, strength = defect.split()
            assert name in degrade.VISUAL and 0 <= float(strength) <= 1
    assert counts == {1, 2, 3}


def test_an_unknown_defect_is_an_error():
    with pytest.raises(ValueError, match="no defect 'rain'"):
        degrade.suffer(as_tensor(), "rain", 0.5, torch.Generator())
