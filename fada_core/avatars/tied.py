"""Tied hair: pulled over the head to one or two knots, with a ponytail, a bun or a braid at each."""

import numpy as np

from .growth import STEPS, Roots
from .scalp import Skull, smooth, unit


def knot(skull: Skull, azimuth: float, slope: float, away: float) -> np.ndarray:
    """A point (3,) `away` dm off the head at an azimuth and a slope in degrees."""
    return skull.place(np.array(azimuth, np.float32), np.array(slope, np.float32), away, ears=False)


def pull(
    skull: Skull,
    roots: Roots,
    knots: np.ndarray,
    layer: np.ndarray,
    volume: float,
    segments: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Strands (n, segments + 1, 3) from each root over the skull to the nearest of `knots` (k, 3).

    `layer` (n,): 0 (innermost) .. 1; `volume`: height in dm of the outermost layer.
    """
    to = knots[((roots.points[:, None] - knots) ** 2).sum(-1).argmin(1)] + rng.normal(0, 0.035, (len(layer), 3))
    t = np.linspace(0, 1, segments + 1, dtype=np.float32)[None, :, None]
    lines = roots.points[:, None] * (1 - t) + to[:, None] * t
    lines[:, :, 1] += 0.12 * np.sin(np.pi * t[..., 0]) * rng.random(len(layer))[:, None]
    room = 0.015 + volume * (0.2 + 0.8 * layer)[:, None] * smooth(np.minimum(4 * t, 3 * (1.05 - t)))[..., 0]
    lines = skull.push(lines.astype(np.float32), room.astype(np.float32), ears=False)
    lines[:, 0] = roots.points
    return lines


def course(
    skull: Skull, start: np.ndarray, heading: np.ndarray, length: float, room: float, steer: np.ndarray
) -> np.ndarray:
    """Path (STEPS + 1, 3) of tied hair that leaves `start` (3,) along `heading` (3,) and falls, bent by `steer` (3,).

    `length` and `room`, its distance from the head, in dm.
    """
    point, heading, track = start.astype(np.float32), unit(heading).astype(np.float32), [start.astype(np.float32)]
    for _ in range(STEPS):
        heading = unit(heading + np.array([0, -0.42, 0], np.float32) + 0.1 * steer)
        moved = skull.push((point + heading * length / STEPS)[None], np.array([room], np.float32))[0]
        heading = unit(moved - point)
        point = moved
        track.append(point)
    return np.stack(track).astype(np.float32)


def frame(path: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit tangents and two unit normals, each (m, 3), of a path (m, 3)."""
    along = unit(np.gradient(path, axis=0))
    across = unit(np.cross(along, np.array([0.05, 0.1, -1.0], np.float32)))
    return along, across, np.cross(along, across)


def tail(
    path: np.ndarray, count: int, radius: float, segments: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Strands of a ponytail around `path` (m, 3), and unit vectors out of it, both (count, segments + 1, 3)."""
    t = np.linspace(0, 1, segments + 1)
    at = (t[None] * (0.75 + 0.25 * rng.random((count, 1))) * (len(path) - 1.001)).astype(np.float32)
    low = at.astype(int)
    part = (at - low)[..., None]
    centre = path[low] * (1 - part) + path[low + 1] * part
    _, across, up = frame(path)
    angle, off = rng.random(count) * 2 * np.pi, np.sqrt(rng.random(count))
    swell = radius * (0.3 + 0.9 * smooth(np.array(t) * 3) - 0.55 * smooth(np.array(t) * 1.4 - 0.4))
    x, y = np.cos(angle)[:, None] * off[:, None] * swell, np.sin(angle)[:, None] * off[:, None] * swell
    away = across[low] * x[..., None] + up[low] * y[..., None]
    return (centre + away).astype(np.float32), unit(away + 1e-4).astype(np.float32)


def bun(
    centre: np.ndarray, axis: np.ndarray, radius: float, count: int, segments: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Strands of a bun around `axis` (3,) through `centre` (3,), and unit vectors out of it, both (count, segments + 1,
    3)."""
    axis = unit(axis)
    x = unit(np.cross(axis, np.array([0.3, 1, 0.1], np.float32)))
    y = np.cross(axis, x)
    t = np.linspace(0, 1, segments + 1)[None]
    latitude = np.arcsin(rng.uniform(-0.55, 0.98, (count, 1)))
    turn = rng.random((count, 1)) * 6.28 + t * rng.uniform(1.6, 2.6, (count, 1))
    latitude = latitude + 0.35 * np.sin(turn * 1.0 + rng.random((count, 1)) * 0.6) * (
        0.3 + 0.7 * rng.random((count, 1))
    )
    r = radius * (0.93 + 0.1 * rng.random((count, 1)) - 0.05 * np.cos(6.28 * t))
    out = np.cos(latitude)[..., None] * (np.cos(turn)[..., None] * x + np.sin(turn)[..., None] * y)
    out = out + (0.8 * np.sin(latitude))[..., None] * axis
    return (centre + r[..., None] * out).astype(np.float32), unit(out).astype(np.float32)


def braid(path: np.ndarray, radius: float, around: int) -> tuple[np.ndarray, np.ndarray]:
    """Strands of a three-strand braid along `path`, and unit vectors out of them, both (3 * around, 45, 3).

    `around`: cards around each of the three.
    """
    dense = np.linspace(0, len(path) - 1.001, 45)
    low = dense.astype(int)
    part = (dense - low)[:, None]
    middle = path[low] * (1 - part) + path[low + 1] * part
    _, across, up = frame(middle)
    length = np.sqrt((np.diff(middle, axis=0) ** 2).sum(1)).sum()
    turn = np.linspace(0, 2 * np.pi * length / (5.2 * radius), len(middle))
    thin = radius * (1 - 0.35 * np.linspace(0, 1, len(middle)) ** 2)
    lines, outs = [], []
    for strand in range(3):
        a = turn + strand * 2 * np.pi / 3
        core = middle + across * (0.62 * thin * np.sin(a))[:, None] + up * (0.33 * thin * np.sin(2 * a))[:, None]
        along, x, y = frame(core)
        for k in range(around):
            b = 2 * np.pi * k / around
            out = x * np.cos(b) + y * np.sin(b)
            lines.append(core + out * (0.48 * thin)[:, None])
            outs.append(out)
    return np.stack(lines).astype(np.float32), np.stack(outs).astype(np.float32)
