"""Random traits of eyes, and the texture of an eyeball with iris, pupil, sclera and veins.

The texture is a view along the axis of the eye. Its centre is the centre of the pupil, and the distance from it is
proportional to the angle from the axis, with `REACH` at half a side. `eye_uv` maps directions to texture coordinates.
"""

from dataclasses import dataclass

import numpy as np

from .color import to_linear, to_srgb8
from .mesh import Triple, triple
from .noise import smooth_noise
from .surface import ramp

REACH = np.pi / 2  # angle from the axis at the edge of the texture
IRIS = np.radians(23.5)  # angle from the axis at the edge of the iris on MakeHuman's large eyeball, as in `organs`

# Irises: outer zone and zone around the pupil in sRGB, and relative frequencies (our estimate) with African, Asian and
# European ancestry.
IRISES = (
    ((44, 26, 17), (58, 34, 20), (70, 62, 5)),
    ((72, 44, 26), (98, 58, 30), (26, 32, 24)),
    ((112, 74, 42), (140, 90, 46), (3, 5, 12)),
    ((118, 104, 62), (142, 98, 50), (0.5, 0.6, 12)),  # hazel
    ((104, 122, 92), (140, 122, 74), (0.2, 0.2, 9)),  # green
    ((112, 146, 168), (140, 160, 164), (0.2, 0.1, 18)),  # blue
    ((88, 116, 146), (124, 144, 154), (0.1, 0.1, 12)),
    ((132, 144, 150), (146, 146, 136), (0.1, 0.1, 8)),  # grey
)


@dataclass(frozen=True)
class EyeTraits:
    """Looks of eyes. `iris` (outer) and `inner` colours; `pupil`: radius relative to the iris; the others 0..1."""

    iris: Triple
    inner: Triple
    pupil: float
    ring: float  # dark rim of the iris
    fibres: float
    yellow: float
    veins: float


def sample_eye_traits(rng: np.random.Generator, age: float, ancestry: np.ndarray, pool: str) -> EyeTraits:
    """Random eyes. `age` 0..1 (5 .. 85 years); `ancestry` (3,): African, Asian and European shares.

    Eyes of the moderate pool are redder.
    """
    chance = np.array([row[2] for row in IRISES]) @ np.asarray(ancestry, float)
    outer, inner, _ = IRISES[rng.choice(len(IRISES), p=chance / chance.sum())]
    tint = rng.normal(0, 0.06) + rng.normal(0, 0.02, 3)
    return EyeTraits(
        iris=triple(np.clip(to_linear(np.array(outer) / 255) * np.exp(3 * tint), 0, 1)),
        inner=triple(np.clip(to_linear(np.array(inner) / 255) * np.exp(3 * tint), 0, 1)),
        pupil=float(np.clip(rng.normal(0.38 - 0.1 * (age - 0.3), 0.06), 0.24, 0.55)),
        ring=float(rng.beta(2, 1.6) * (1 - 0.4 * age)),
        fibres=float(rng.beta(2.5, 1.8)),
        yellow=float(np.clip(rng.beta(1.4, 4) + 0.25 * age * rng.random(), 0, 1)),
        veins=float(np.clip(rng.beta(1.4, 3.5) * (1.4 if pool == "moderate" else 1), 0, 1)),
    )


def eye_uv(directions: np.ndarray) -> np.ndarray:
    """Texture coordinates (n, 2) of unit `directions` (n, 3) from the centre of an eye whose axis is (0, 0, 1)."""
    x, y, z = np.asarray(directions, np.float32).T
    angle = np.arccos(np.clip(z, -1, 1))
    radius = np.minimum(angle / REACH, 1) * 0.5 / np.maximum(np.hypot(x, y), 1e-6)
    return np.stack([0.5 + x * radius, 0.5 + y * radius], 1).astype(np.float32)


def eye_texture(traits: EyeTraits, rng: np.random.Generator, size: int = 256) -> np.ndarray:
    """Texture of the eyeball (size, size, 3) uint8 sRGB, row 0 at the top."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    x, y = (x + 0.5) / size * 2 - 1, 1 - (y + 0.5) / size * 2
    angle, turn = (np.hypot(x, y) * REACH).ravel(), np.arctan2(y, x).ravel()
    radius = angle / np.float32(IRIS)  # 1 at the edge of the iris
    flat = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], 1)
    round_ = np.stack([np.cos(turn), np.sin(turn), 0.22 * radius], 1)

    # Sclera: off-white, redder and veined away from the iris, shaded under the lids.
    wide = ramp(1.0, 3.0, radius)
    sclera = to_linear(np.array([231, 225, 219]) / 255) * np.ones((x.size, 1), np.float32)
    sclera *= 1 + 0.04 * smooth_noise(flat, 5, rng, 3)[:, None]
    sclera *= np.exp(-(traits.yellow * (0.3 + 0.5 * wide))[:, None] * np.array([0.05, 0.14, 0.5], np.float32))
    blood = (0.1 + 0.4 * traits.veins) * wide
    for frequency, width, strength in ((4.5, 0.06, 1.0), (9, 0.09, 0.6)):
        curl = 0.05 * np.stack([smooth_noise(flat, 9, rng, 2) for _ in range(3)], 1)
        across = smooth_noise(round_ * [1, 1, 0.5] + curl, frequency, rng, 2)
        blood += strength * traits.veins * ramp(width, 0, np.abs(across)) * ramp(1.15, 2.2, radius)
    sclera *= np.exp(-blood[:, None] * np.array([0.1, 0.55, 0.5], np.float32))
    sclera *= (1 - 0.3 * ramp(1.4, 3.6, radius) - 0.12 * ramp(0.05, 0.5, y.ravel()))[:, None]

    # Iris: radial fibres, a lighter or warmer zone around the pupil with a ragged border, a dark rim.
    fibres = smooth_noise(round_, 9, rng, 2) + 0.8 * smooth_noise(round_, 22, rng, 2)
    border = 0.5 + 0.5 * (traits.pupil - 0.35) + 0.12 * smooth_noise(round_ * [1, 1, 0], 6, rng, 2)
    zone = ramp(0.08, -0.08, radius - border)[:, None]
    iris = np.asarray(traits.iris) * (1 - zone) + np.asarray(traits.inner) * zone
    iris = iris * np.exp(traits.fibres * 0.75 * fibres - 0.25 * np.exp(-(((radius - border) / 0.05) ** 2)))[:, None]
    iris *= (1 - (0.35 + 0.5 * traits.ring) * ramp(0.74, 0.98, radius))[:, None]
    iris *= (1 - 0.35 * ramp(0.1, 0.9, y.ravel() / np.float32(IRIS / REACH)))[:, None]  # shadow of the upper lid
    pupil = ramp(0.04, -0.04, radius - traits.pupil)[:, None]
    iris = iris * (1 - pupil) + 0.004 * pupil
    edge = ramp(1.07, 0.95, radius)[:, None]
    return to_srgb8(sclera * (1 - edge) + iris * edge).reshape(size, size, 3)
