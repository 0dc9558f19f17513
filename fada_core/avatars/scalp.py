"""The scalp: where hair grows on the base mesh, and the radius of a person's own head in every direction.

Points are given in capsule coordinates: `azimuth` in degrees around the vertical (0 front, 90 the person's left, 180
back) and `slope` in degrees, 0 at the crown and 90 at the height of `CENTRE`. Below that height, an axis replaces the
centre, and slope grows by 60 per decimetre. Hairlines are defined in these coordinates on the base mesh, so they fit
every shape of head.
"""

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np

from . import assets
from .head import Head

CENTRE = np.array([0.0, 7.45, 0.55], np.float32)  # between the ears of the base mesh, in dm
PER_DM = 60.0  # degrees of slope for a decimetre below the centre
CELL = 4.0  # degrees per cell of the map of radii
ROWS, COLUMNS = 72, 90

# Slope of the hairline by azimuth: forehead, corner, temple, sideburn, over the ear, behind it, nape.
LINE = np.array(
    [
        (0, 56), (12, 56), (22, 57), (32, 60), (40, 65), (48, 73), (55, 84), (61, 95), (67, 106), (74, 113), (79, 110),
        (84, 94), (92, 88), (102, 89), (109, 98), (116, 115), (126, 130), (140, 138), (160, 142), (180, 142),
    ],
    np.float32,
)  # fmt: skip


def smooth(x: np.ndarray | float) -> np.ndarray:
    """Smoothstep: 0 below 0, 1 above 1, with zero slope at both."""
    t = np.clip(x, 0, 1)
    return t * t * (3 - 2 * t)


def unit(x: np.ndarray) -> np.ndarray:
    """Normalise vectors along the last axis."""
    return x / (np.sqrt((x * x).sum(-1, keepdims=True)) + 1e-9)


@dataclass(frozen=True)
class Line:
    """A person's hairline. `recession` 0..1 moves its corners back; `thinning` 0..1 balds the crown to a wreath."""

    recession: float
    thinning: float
    phases: np.ndarray  # (4,) radians, of its irregular course

    def inside(self, azimuth: np.ndarray, slope: np.ndarray) -> np.ndarray:
        """Degrees from the hairline into the hair; negative outside of it."""
        a = np.abs(azimuth)
        line = np.interp(a, LINE[:, 0], LINE[:, 1])
        line -= self.recession * (20 * np.exp(-(((a - 34) / 15) ** 2)) + 7 * np.exp(-((a / 26) ** 2)))
        p, r = self.phases, np.radians(azimuth)
        line += (
            0.9 * np.sin(5 * r + p[0])
            + 0.8 * np.sin(11 * r + p[1])
            + 0.7 * np.sin(23 * r + p[2])
            + 0.5 * np.sin(47 * r + p[3])
        )
        return line - slope

    def density(self, azimuth: np.ndarray, slope: np.ndarray) -> np.ndarray:
        """Density of hair 0..1 at azimuths and slopes in degrees."""
        a = np.abs(azimuth)
        full = smooth(
            (self.inside(azimuth, slope) + 2.5) / np.interp(a, (0, 30, 50, 70, 95), (10.0, 12.0, 15.0, 12.0, 7.0))
        )
        front = np.interp(a, (0, 60, 95, 180), (70.0, 70.0, 62.0, 66.0))  # the bald area begins here
        bald = smooth((front - slope) / 14 + 1.6 * self.thinning - 0.8) * smooth(self.thinning * 2.5)
        return full * (1 - bald)


def capsule(points: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, ...]:
    """Azimuth (n,), slope (n,), outward unit vector (n, 3) and distance (n,) of points (n, 3) around a centre (3,).

    `scale` (3,): size of the head relative to the base mesh.
    """
    down = np.maximum(centre[1] - points[..., 1], 0)
    d = points - centre
    d[..., 1] += down
    d[..., 2] += 0.3 * scale[2] * smooth((down / scale[1] - 0.15) / 1.1)  # the axis leans back into the neck
    radius = np.sqrt((d * d).sum(-1)) + 1e-6
    azimuth = np.degrees(np.arctan2(d[..., 0], d[..., 2]))
    slope = np.degrees(np.arctan2(np.sqrt(d[..., 0] ** 2 + d[..., 2] ** 2), d[..., 1])) + PER_DM * down / scale[1]
    return azimuth, slope, d / radius[..., None], radius


@cache
def base() -> dict[str, np.ndarray]:
    """Arrays of the base mesh: `points` (V, 3), skin `faces` (F, 3), `azimuth` and `slope` (V,), and masks (V,) of the
    `ear` and `skull`."""
    head = assets.load()
    points = head.vertices
    faces = head.skin_base[head.skin_faces]
    azimuth, slope, _, _ = capsule(points, CENTRE, np.ones(3, np.float32))
    ear = np.zeros(len(points), bool)
    ear[head.skin_base[head.region("ears") > 0.5]] = True
    ear &= np.abs(points[:, 0]) > 0.6
    skin = np.zeros(len(points), bool)
    skin[faces] = True
    skull = skin & ~ear & (slope < 100)
    return {"points": points, "faces": faces, "azimuth": azimuth, "slope": slope, "ear": ear, "skull": skull}


# Barycentric coordinates of samples on each face, dense enough to fill nearly every cell of the map.
LATTICE = np.array([(i, j, 6 - i - j) for i in range(7) for j in range(7 - i)], np.float32) / 6


class Skull:
    """A person's head as a map of radii, for the roots of hair and for collisions.

    `points` (V, 3): base vertices of the person's neutral head; `normals` (V, 3).
    """

    def __init__(self, points: np.ndarray):
        self.points = points = points.astype(np.float32)
        static = base()
        mask = static["skull"]
        plain, own = static["points"][mask], points[mask]
        spread, away = plain - plain.mean(0), own - own.mean(0)
        self.scale = (spread * away).sum(0) / (spread * spread).sum(0)
        self.shift = own.mean(0) - self.scale * plain.mean(0)
        self.centre = self.scale * CENTRE + self.shift
        faces = static["faces"]
        normals = np.zeros_like(points)
        flat = np.cross(points[faces[:, 1]] - points[faces[:, 0]], points[faces[:, 2]] - points[faces[:, 0]])
        for axis in range(3):
            for corner in range(3):
                normals[:, axis] += np.bincount(faces[:, corner], flat[:, axis], len(points)).astype(np.float32)
        self.normals = unit(normals)
        self.area = 0.5 * np.sqrt((flat * flat).sum(1))
        corners = points[faces].transpose(1, 0, 2).reshape(3, -1)
        samples = (LATTICE @ corners).reshape(len(LATTICE), -1, 3)
        azimuth, slope, _, radius = capsule(samples, self.centre, self.scale)
        row = np.rint(slope / CELL).astype(int).clip(0, ROWS - 1)
        cell = row * COLUMNS + np.rint(azimuth / CELL).astype(int) % COLUMNS
        bare = ~static["ear"][faces].any(1)
        self.map = self._radii(cell, radius)
        self.bare_map = self._radii(cell[:, bare], radius[:, bare])
        #: (3,), the point from which hair grows in all directions
        self.whorl = self.place(np.array(168.0, np.float32), np.array(22.0, np.float32))

    @staticmethod
    def _radii(cell: np.ndarray, radius: np.ndarray) -> np.ndarray:
        """Largest radius in each cell, (ROWS, COLUMNS + 1); the last column repeats the first."""
        flat = np.zeros(ROWS * COLUMNS, np.float32)
        np.maximum.at(flat, cell.ravel(), radius.ravel())
        out = flat.reshape(ROWS, COLUMNS)
        out[0] = out[0].max()
        for _ in range(8):  # empty cells get the mean of their neighbours
            empty = out == 0
            if not empty.any():
                break
            ring = np.stack(
                [
                    np.roll(out, 1, 1),
                    np.roll(out, -1, 1),
                    np.pad(out, ((1, 0), (0, 0)))[:-1],
                    np.pad(out, ((0, 1), (0, 0)))[1:],
                ]
            )
            mean = ring.sum(0) / np.maximum((ring > 0).sum(0), 1)
            out = np.where(empty, mean, out)
        return np.concatenate([out, out[:, :1]], 1)

    def coordinates(self, points: np.ndarray) -> tuple[np.ndarray, ...]:
        """`capsule` coordinates around this head."""
        return capsule(points, self.centre, self.scale)

    def radius(self, azimuth: np.ndarray, slope: np.ndarray, ears: bool = True) -> np.ndarray:
        """Distance in dm of the surface from the centre or axis, with or without ears, bilinear in the map."""
        table = self.map if ears else self.bare_map
        x = np.minimum((azimuth / CELL) % COLUMNS, COLUMNS - 1e-3)
        y = np.clip(slope / CELL, 0, ROWS - 1.001)
        i, j = x.astype(int), y.astype(int)
        x, y = x - i, y - j
        return (table[j, i] * (1 - x) + table[j, i + 1] * x) * (1 - y) + (
            table[j + 1, i] * (1 - x) + table[j + 1, i + 1] * x
        ) * y

    def push(self, points: np.ndarray, clearance: np.ndarray | np.floating, ears: bool = True) -> np.ndarray:
        """Move points (..., 3) outwards to at least `clearance` dm from the head."""
        azimuth, slope, out, radius = self.coordinates(points)
        lack = self.radius(azimuth, slope, ears) + clearance - radius
        return points + out * np.maximum(lack, 0)[..., None]

    def place(
        self, azimuth: np.ndarray, slope: np.ndarray, clearance: np.ndarray | float = 0.0, ears: bool = True
    ) -> np.ndarray:
        """Points (..., 3) `clearance` dm off the head at an azimuth and a slope in degrees, which is at most 280."""
        a, s = np.radians(azimuth), np.radians(np.minimum(slope, 90))
        down = np.maximum(slope - 90, 0) / PER_DM
        d = np.stack([np.sin(s) * np.sin(a), np.cos(s), np.sin(s) * np.cos(a)], -1)
        axis = np.stack([0 * down, -down * self.scale[1], -0.3 * self.scale[2] * smooth((down - 0.15) / 1.1)], -1)
        return (self.centre + axis + d * (self.radius(azimuth, slope, ears) + clearance)[..., None]).astype(np.float32)

    def roots(self, weight: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Random points on the skin: faces (count,) of `base()["faces"]` and barycentric coordinates (count, 3).

        `weight` (V,): density at the base vertices.
        """
        faces = base()["faces"]
        mass = np.cumsum(self.area * weight[faces].mean(1))
        at = (np.arange(count) + rng.random(count)) * (mass[-1] / count)
        face = np.searchsorted(mass, at).clip(0, len(faces) - 1)
        a, b = np.sqrt(rng.random(count)), rng.random(count)
        return face, np.stack([1 - a, a * (1 - b), a * b], 1).astype(np.float32)

    def neck(self, points: np.ndarray) -> np.ndarray:
        """(n,) float32: how far hair or cloth at points (n, 3) turns with the skull, like `HeadData.neck` for skin."""
        y, z = ((points - self.shift) / self.scale)[:, 1:].T
        return smooth(y + 0.45 * (z - 0.3).clip(0, 1) - 5.25).astype(np.float32)


@lru_cache(maxsize=2)
def skull_of(head: Head) -> Skull:
    """The skull of a head. Cached, because hair and clothes of a person both need it."""
    return Skull(head.neutral)
