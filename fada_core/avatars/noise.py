"""Random fields in space, evaluated at points, which vary the textures of skin, eyes and mouth."""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True, inline="always")
def _hash(x: int, y: int, z: int, seed: int) -> np.uint64:
    """Hash of a lattice point, 32 bits."""
    low = np.uint64(0xFFFFFFFF)
    h = (np.uint64(x) * np.uint64(0x9E3779B1)) ^ (np.uint64(y) * np.uint64(0x85EBCA77))
    h = (h ^ (np.uint64(z) * np.uint64(0xC2B2AE3D)) ^ (np.uint64(seed) * np.uint64(0x27D4EB2F))) & low
    h ^= h >> np.uint64(15)
    h = (h * np.uint64(0x2C1B3C6D)) & low
    h ^= h >> np.uint64(12)
    h = (h * np.uint64(0x297A2D39)) & low
    return h ^ (h >> np.uint64(15))


@numba.njit(cache=True, nogil=True, inline="always")
def _unit(h: np.uint64) -> np.float32:
    """32 bits -> -1..1."""
    return np.float32(h) * np.float32(2 / 4294967296.0) - np.float32(1)


@numba.njit(cache=True, nogil=True)
def _smooth_noise(points: np.ndarray, scale: np.ndarray, octaves: int, seed: int, out: np.ndarray) -> None:
    for i in range(len(points)):
        total = np.float32(0)
        gain = np.float32(1)
        fx, fy, fz = scale[0], scale[1], scale[2]
        for octave in range(octaves):
            px, py, pz = points[i, 0] * fx, points[i, 1] * fy, points[i, 2] * fz
            x, y, z = int(np.floor(px)), int(np.floor(py)), int(np.floor(pz))
            tx, ty, tz = px - x, py - y, pz - z
            tx, ty, tz = tx * tx * (3 - 2 * tx), ty * ty * (3 - 2 * ty), tz * tz * (3 - 2 * tz)
            s = seed + 7919 * octave
            value = np.float32(0)
            for dz in range(2):
                wz = tz if dz else 1 - tz
                for dy in range(2):
                    wy = (ty if dy else 1 - ty) * wz
                    a = _unit(_hash(x, y + dy, z + dz, s))
                    b = _unit(_hash(x + 1, y + dy, z + dz, s))
                    value += wy * (a + (b - a) * tx)
            total += gain * value
            gain *= np.float32(0.5)
            fx, fy, fz = fx * np.float32(2.03), fy * np.float32(2.03), fz * np.float32(2.03)
        out[i] = total


@numba.njit(cache=True, nogil=True)
def _nearest_seed(points: np.ndarray, frequency: np.float32, seed: int, distance: np.ndarray, tag: np.ndarray) -> None:
    for i in range(len(points)):
        px, py, pz = points[i, 0] * frequency, points[i, 1] * frequency, points[i, 2] * frequency
        x, y, z = int(np.floor(px)), int(np.floor(py)), int(np.floor(pz))
        best, label = np.float32(1e9), np.float32(0)
        for dz in range(-1, 2):
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    h = _hash(x + dx, y + dy, z + dz, seed)
                    ox = np.float32(h & np.uint64(1023)) / np.float32(1024)
                    oy = np.float32((h >> np.uint64(10)) & np.uint64(1023)) / np.float32(1024)
                    oz = np.float32((h >> np.uint64(20)) & np.uint64(1023)) / np.float32(1024)
                    d = (x + dx + ox - px) ** 2 + (y + dy + oy - py) ** 2 + (z + dz + oz - pz) ** 2
                    if d < best:
                        best = d
                        label = _unit(_hash(x + dx, y + dy, z + dz, seed + 1)) * np.float32(0.5) + np.float32(0.5)
        distance[i], tag[i] = np.sqrt(best) / frequency, label


def smooth_noise(
    points: np.ndarray, frequency: float | tuple[float, float, float], rng: np.random.Generator, octaves: int = 1
) -> np.ndarray:
    """Value noise (n,) float32 at `points` (n, 3), of mean 0 and standard deviation about 0.3.

    `frequency`: lattice cells per unit of length, one number or one for each axis. Each further octave has twice the
    frequency and half the amplitude.
    """
    scale = np.broadcast_to(np.asarray(frequency, np.float32), (3,))
    out = np.empty(len(points), np.float32)
    _smooth_noise(np.ascontiguousarray(points, np.float32), scale, octaves, int(rng.integers(1 << 30)), out)
    return out


def scattered(points: np.ndarray, frequency: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Distance (n,) float32 of `points` (n, 3) to the nearest random spot, and a random number 0..1 (n,) of that spot.

    There is one spot in every cube of side 1 / `frequency`.
    """
    distance, tag = np.empty(len(points), np.float32), np.empty(len(points), np.float32)
    _nearest_seed(
        np.ascontiguousarray(points, np.float32), np.float32(frequency), int(rng.integers(1 << 30)), distance, tag
    )
    return distance, tag
