"""Random traits and textures of teeth with gums, and of the tongue.

Teeth: u runs along the row from the person's right (0) to the left (1), and v points up: from the biting edge (0) to
the gums (1) in the upper row, from the gums to the biting edge in the lower row. Tongue: v = 1 is the tip.
"""

from dataclasses import dataclass

import numpy as np

from .color import to_linear, to_srgb8
from .noise import smooth_noise
from .surface import ramp

# Widths of teeth from the middle to the back, in millimetres: rounded averages of dental anatomy.
UPPER = (8.6, 6.7, 7.6, 7.0, 6.8, 10.2, 9.6)
LOWER = (5.3, 5.8, 6.8, 7.0, 7.2, 11.0, 10.4)
HEIGHTS = (1.0, 0.9, 0.98, 0.86, 0.8, 0.74, 0.7)  # of the crowns, relative to the first


@dataclass(frozen=True)
class MouthTraits:
    """Looks of teeth, gums and tongue, all 0..1."""

    white: float
    stains: float
    crooked: float
    gap: float  # between the two middle teeth
    gum: float  # how dark the gums are
    coat: float  # pale coating of the tongue


def sample_mouth_traits(rng: np.random.Generator, age: float, melanin: float, pool: str) -> MouthTraits:
    """Random mouth: teeth yellow with `age` 0..1 (5 .. 85 years), gums darken with `melanin` 0..1; the moderate pool
    has worse teeth."""
    worse = 1.0 if pool == "moderate" else 0.5
    return MouthTraits(
        white=float(np.clip(rng.beta(2.6, 1.6) - 0.35 * age * rng.random(), 0, 1)),
        stains=float(rng.beta(1.2, 3) * (0.3 + age) * worse),
        crooked=float(rng.beta(1.3, 2.5) * worse * 1.5) if rng.random() < 0.7 else 0.0,
        gap=float(rng.uniform(0.2, 1)) if rng.random() < 0.12 else 0.0,
        gum=float(np.clip(0.75 * melanin * rng.random() + 0.1 * rng.random(), 0, 1)),
        coat=float(rng.beta(1.5, 3)),
    )


def _picture(width: int, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """u and v (h * w,) of the pixels of a texture, row 0 at v = 1, and points (h * w, 3) for noise."""
    v, u = np.mgrid[0:height, 0:width].astype(np.float32)
    u, v = ((u + 0.5) / width).ravel(), 1 - ((v + 0.5) / height).ravel()
    return u, v, np.stack([u * width / height, v, np.zeros_like(u)], 1)


def teeth_texture(traits: MouthTraits, upper: bool, rng: np.random.Generator, width: int = 512) -> np.ndarray:
    """Texture of a row of fourteen teeth, (width // 4, width, 3) uint8 sRGB."""
    height = width // 4
    u, v, points = _picture(width, height)
    down = 1 - v if upper else v  # 0 at the far edge of the gums, 1 at the biting edge
    sizes = np.array(UPPER if upper else LOWER)
    widths = np.concatenate([sizes[::-1], sizes]) * np.exp(0.05 * traits.crooked * rng.normal(size=14))
    edges = np.concatenate([[0], np.cumsum(widths)]) / widths.sum()
    which = np.clip(np.searchsorted(edges, u, side="right") - 1, 0, 13)
    across = (u - edges[which]) / np.diff(edges)[which] * 2 - 1  # -1..1 over one tooth
    across += 0.1 * traits.crooked * rng.normal(size=14)[which] * (down - 0.5)

    crown = np.concatenate([HEIGHTS[::-1], HEIGHTS])[which]
    gum_line = 0.42 - 0.1 * (crown - 0.7) / 0.3 + 0.02 * rng.normal(size=14)[which]
    gum_line = gum_line + (0.15 if upper else 0.12) * np.abs(across) ** 2.5  # the gums reach further between teeth
    # Biting edges: incisors straight with round corners, canines pointed, molars bumpy.
    place = np.abs(which - 6.5).astype(int)
    point = np.where(place == 2, 0.09 * np.abs(across), 0.045 * np.abs(across) ** 5)
    uneven = 0.03 * traits.crooked * rng.normal(size=14)[which] + 0.035 * (place == 1)
    end = 0.985 - point - np.abs(uneven) - 0.012 * (place >= 3) * (1 - np.cos(across * 5))

    shade = np.exp(0.07 * rng.normal(size=14))[which] * (1 - 0.06 * (place == 2))
    tone = to_linear(np.array([196, 176, 138]) / 255) * (1 - traits.white)
    tone = (tone + to_linear(np.array([234, 228, 214]) / 255) * traits.white) * shade[:, None]
    root = ramp(0.35, 0.0, (down - gum_line) / (end - gum_line))
    tone *= np.exp(-(0.35 * root)[:, None] * np.array([0.25, 0.5, 1.2]))
    stain = ramp(0.0, 0.6, smooth_noise(points, 9, rng, 3)) * traits.stains * (0.4 + root + 0.7 * np.abs(across) ** 4)
    tone *= np.exp(-0.8 * stain[:, None] * np.array([0.5, 0.9, 1.6]))
    glassy = ramp(0.14, 0.0, end - down) * (place < 3)
    tone *= 1 - 0.22 * glassy[:, None] * np.array([1.0, 0.85, 0.7])
    tone *= 1 + 0.05 * smooth_noise(points * [6, 1, 1], 6, rng, 2)[:, None]
    round_off = 1 - 0.32 * np.abs(across) ** 3  # crowns are darker at their sides, which face away
    between = ramp(1.0, 0.9 - 0.05 * traits.crooked, np.abs(across))
    if traits.gap and upper:
        beside = ((which == 6) & (across > 0)) | ((which == 7) & (across < 0))
        open_ = ramp(1.0 - 0.12 * traits.gap, 0.86 - 0.2 * traits.gap, np.abs(across))
        between = np.where(beside, between * open_, between)
    dark = np.array([0.035, 0.012, 0.011])
    color = dark + (tone * round_off[:, None] - dark) * (between * ramp(0.012, -0.012, down - end))[:, None]

    pink = to_linear(np.array([198, 112, 110]) / 255) * (1 - traits.gum)
    pink = pink + to_linear(np.array([96, 56, 54]) / 255) * traits.gum
    bumps = smooth_noise(points, 16, rng, 2)
    gum = pink * (1 + 0.12 * bumps - 0.2 * np.abs(across) ** 4 * ramp(0.3, 0.1, down))[:, None]
    gum = gum * (0.75 + 0.25 * ramp(0.0, 0.3, down))[:, None]
    cover = ramp(0.015, -0.015, down - gum_line)[:, None]
    color = color + (gum - color) * cover
    color *= (1 - 0.75 * np.abs(2 * u - 1) ** 2.2)[:, None]  # less light reaches the back teeth
    return to_srgb8(color).reshape(height, width, 3)


def tongue_texture(traits: MouthTraits, rng: np.random.Generator, size: int = 128) -> np.ndarray:
    """Texture of the tongue, (size, size, 3) uint8 sRGB."""
    u, v, points = _picture(size, size)
    papillae = smooth_noise(points, 46, rng, 2)
    groove = np.exp(-(((u - 0.5 - 0.01 * smooth_noise(points, 5, rng)) / 0.022) ** 2)) * ramp(0.97, 0.8, v)
    uneven = 1 + 0.16 * papillae + 0.1 * smooth_noise(points, 6, rng, 2)
    color = to_linear(np.array([196, 104, 100]) / 255) * uneven[:, None]
    coat = traits.coat * ramp(0.97, 0.8, v) * (0.55 + 0.45 * papillae) * (1 - groove)
    color += (to_linear(np.array([214, 176, 164]) / 255) - color) * (0.6 * np.clip(coat, 0, 1))[:, None]
    color *= (1 - 0.35 * groove)[:, None]
    return to_srgb8(color).reshape(size, size, 3)
