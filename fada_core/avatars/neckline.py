"""Necklines: curves over the skin of neck, chest and shoulders, and the part of the body that clothes cover.

A neckline is given as a value of `spread` for each azimuth around the neck, both on the base mesh. `spread` grows from
about 0.1 on the neck to 1.5 on the upper chest.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from . import assets
from .scalp import Skull, base, unit

AROUND = 72  # points of a neckline
NECKLINES = {
    # Spread at azimuths 0, 20, 45, 90, 180 degrees.
    "crew": (0.78, 0.74, 0.64, 0.52, 0.46),
    "scoop": (1.3, 1.22, 0.95, 0.62, 0.55),
    "vee": (1.55, 1.12, 0.82, 0.55, 0.46),
    "boat": (0.85, 0.85, 0.9, 1.02, 0.6),
    "collar": (0.62, 0.56, 0.5, 0.42, 0.38),
    "open collar": (1.1, 0.66, 0.54, 0.42, 0.38),
    "lapels": (2.1, 1.45, 0.86, 0.52, 0.42),
    "roll": (0.5, 0.5, 0.46, 0.4, 0.36),
}


@cache
def spread() -> tuple[np.ndarray, np.ndarray]:
    """Spread (V,) in dm and azimuth around the neck (V,) in degrees of the base vertices."""
    points = base()["points"]
    x, z = points[:, 0], points[:, 2] - 0.25
    return np.sqrt(x * x + z * z) + 5.9 - points[:, 1], np.degrees(np.arctan2(x, z))


def line(name: str, azimuth: np.ndarray) -> np.ndarray:
    """Spread of the neckline `name`, one of NECKLINES, at azimuths in degrees."""
    return np.interp(np.abs(azimuth), (0, 20, 45, 90, 180), NECKLINES[name])


@dataclass(frozen=True)
class Surface:
    """Points on the skin: `plain` (n, 3) on the base mesh, `own` and `normal` (n, 3) on the person, `neck` (n,) as in
    `Mesh`, and `depth` (n,): distance from the neckline into the cloth, in units of spread."""

    plain: np.ndarray
    own: np.ndarray
    normal: np.ndarray
    neck: np.ndarray
    depth: np.ndarray


def clip(skull: Skull, field: np.ndarray) -> tuple[Surface, np.ndarray, np.ndarray]:
    """The part of the body where `field` (V,) is positive: surface, faces (F, 3), and a mask (n,) of rim vertices.

    The field becomes the `depth` of the surface.
    """
    static = base()
    y, z = static["points"][:, 1], static["points"][:, 2]
    torso = (y < 6.4) & ((z < 0.86) | (y < 5.9))  # excludes jaw and chin
    faces = static["faces"]
    faces = faces[torso[faces].all(1) & (field[faces] > 0).any(1)]
    sign = field[faces] > 0
    whole = sign.all(1)
    pairs: dict[tuple[int, int], int] = {}
    out = [faces[whole]]
    count = len(field)

    def between(a: int, b: int) -> int:
        return pairs.setdefault((min(a, b), max(a, b)), count + len(pairs))

    cut = []
    for face, inside in zip(faces[~whole].tolist(), sign[~whole].tolist(), strict=True):
        ring = []
        for i in range(3):
            a, b = i, (i + 1) % 3
            if inside[a]:
                ring.append(face[a])
            if inside[a] != inside[b]:
                ring.append(between(face[a], face[b]))
        cut += [[ring[0], ring[i], ring[i + 1]] for i in range(1, len(ring) - 1)]
    out.append(np.array(cut, int).reshape(-1, 3))
    ends = np.array(list(pairs), np.int64).reshape(-1, 2)
    t = (field[ends[:, 0]] / (field[ends[:, 0]] - field[ends[:, 1]]))[:, None]

    def extend(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values, values[ends[:, 0]] * (1 - t) + values[ends[:, 1]] * t])

    used, new = np.unique(np.concatenate(out), return_inverse=True)
    neck = assets.load().neck[:, None]
    surface = Surface(
        extend(static["points"])[used],
        extend(skull.points)[used],
        unit(extend(skull.normals))[used],
        extend(neck)[used, 0],
        extend(field[:, None])[used, 0],
    )
    return surface, new.reshape(-1, 3).astype(np.int32), used >= count


def contour(skull: Skull, name: str, shift: np.ndarray | float = 0.0) -> Surface:
    """AROUND points of a neckline from azimuth 0 to 360; `shift` (AROUND,) or one number is added to its spread."""
    value, azimuth = spread()
    around = np.arange(AROUND) * (360 / AROUND)
    around = np.where(around > 180, around - 360, around)
    shifts = np.broadcast_to(np.asarray(shift, float), AROUND)
    order = np.argsort(around)
    add = np.interp(azimuth, around[order], shifts[order], period=360)
    surface, _, rim = clip(skull, value - line(name, azimuth) - add)
    x, z = surface.plain[rim, 0], surface.plain[rim, 2] - 0.25
    near = np.abs(np.hypot(x, z)) < 2.2
    at = np.degrees(np.arctan2(x, z))[near]
    order = np.argsort(at)

    def sample(values: np.ndarray) -> np.ndarray:
        values = values[rim][near][order]
        return np.stack([np.interp(around, at[order], v, period=360) for v in values.reshape(len(at), -1).T], 1)

    own, normal = sample(surface.own), unit(sample(surface.normal))
    for _ in range(2):
        own = 0.25 * np.roll(own, 1, 0) + 0.5 * own + 0.25 * np.roll(own, -1, 0)
        normal = unit(0.25 * np.roll(normal, 1, 0) + 0.5 * normal + 0.25 * np.roll(normal, -1, 0))
    return Surface(sample(surface.plain), own, normal, sample(surface.neck)[:, 0], np.zeros(AROUND))


def between(low: Surface, high: Surface, t: float, rise: float) -> np.ndarray:
    """Points (n, 3) between two lines, at `low` for t = 0 and at `high` for t = 1, `rise` dm off the skin."""
    return low.own * (1 - t) + high.own * t + unit(low.normal * (1 - t) + high.normal * t) * rise
