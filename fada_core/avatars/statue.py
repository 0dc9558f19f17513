"""Statues: materials of marble, stone and bronze with their skin textures."""

import numpy as np

from .color import to_linear, to_srgb8
from .mesh import Overrides, triple
from .noise import scattered, smooth_noise
from .surface import ramp, surface

# Colours in sRGB: our choice.
_COLORS = {
    "marble": ((226, 222, 214), (214, 208, 200), (222, 206, 188), (206, 206, 204)),
    "stone": ((176, 164, 144), (150, 146, 140), (188, 160, 122), (128, 124, 118), (196, 190, 178), (172, 132, 104)),
    "bronze": ((140, 98, 54), (112, 76, 46), (164, 122, 64), (96, 84, 66)),
}


def material(name: str, rng: np.random.Generator, size: int = 512) -> Overrides:
    """A random material of a statue, `name` one of `styles.STATUES`, with a skin texture of `size` pixels a side.

    Marble has veins, stone has grain, pits and weather stains, and bronze has green patina in streaks.
    """
    canvas = surface(size)
    points = canvas.points
    options = _COLORS[name]
    body = to_linear(np.array(options[rng.integers(len(options))]) / 255) * rng.uniform(0.85, 1.1)
    color = body * np.ones((len(points), 1), np.float32)
    coarse, fine = smooth_noise(points, 1.4, rng, 3), smooth_noise(points, 14, rng, 3)
    # Dirt stays where rain does not reach: below brows and chin, in the ears, between the lips.
    sheltered = np.exp(-(((canvas.points[:, 1] - 7.36) / 0.1) ** 2)) * ramp(0.6, 0.3, canvas.side)
    sheltered += 0.8 * ramp(6.15, 5.95, points[:, 1]) + 0.8 * canvas.ears
    sheltered += np.exp(-(((points[:, 1] - 6.61) / 0.02) ** 2)) * ramp(0.3, 0.22, canvas.side)
    metal, gloss = 0.0, 0.3
    match name:
        case "marble":
            warp = points + 0.25 * np.stack([smooth_noise(points, 1.8, rng, 3) for _ in range(3)], 1)
            vein = ramp(0.09, 0.0, np.abs(smooth_noise(warp, 1.3, rng, 4))) * (0.4 + 0.8 * coarse).clip(0)
            color *= 1 + 0.06 * coarse[:, None] + 0.02 * fine[:, None]
            color *= 1 - rng.uniform(0.0, 0.4) * vein[:, None] * np.array([1.0, 0.95, 0.85], np.float32)
            color *= np.exp(-rng.uniform(0, 0.35) * (sheltered * (1 + fine)).clip(0))[:, None]
            gloss = rng.uniform(0.15, 0.5)
        case "stone":
            grain = smooth_noise(points, 40, rng, 2)
            distance, lot = scattered(points, 26, rng)
            pits = ramp(0.014, 0.004, distance) * (lot < 0.4)
            color *= 1 + 0.1 * coarse[:, None] + 0.1 * fine[:, None] + 0.12 * grain[:, None]
            color *= (1 - 0.45 * rng.random() * pits)[:, None]
            color *= np.exp(-rng.uniform(0.1, 0.8) * (0.6 * sheltered + 0.7 * coarse.clip(0)) * (1 + fine))[:, None]
            gloss = rng.uniform(0.0, 0.12)
        case "bronze":
            runs = smooth_noise(points * [1, 0.18, 1], 9, rng, 3)
            patina = rng.uniform(0.0, 0.7) * ramp(0.05, 0.6, 0.5 * runs + 0.5 * coarse + 0.35 * sheltered)
            color *= 1 + 0.15 * fine[:, None] + 0.15 * coarse[:, None]
            color += (to_linear(np.array([96, 142, 126]) / 255) - color) * (0.7 * patina)[:, None]
            metal, gloss = rng.uniform(0.7, 1.0), rng.uniform(0.3, 0.8)
    return Overrides(canvas.spread(to_srgb8(color)), triple(color.mean(0)), float(gloss), float(metal))
