"""Facial lines as height maps: of a smile, raised brows and a frown, and the permanent ones of age."""

import numba
import numpy as np

from .noise import smooth_noise
from .surface import Surface, ramp

# Each line: its points (x, y) in decimetres on the base head seen from the front, its half width in decimetres, and its
# depth in millimetres. Lines are drawn on both sides of the face. The numbers are our choice, read off the base head.
SMILE = (
    (((0.185, 6.93), (0.235, 6.86), (0.285, 6.76), (0.325, 6.65), (0.345, 6.55)), 0.018, 0.95),  # nasolabial fold
    (((0.36, 6.72), (0.385, 6.62), (0.375, 6.52)), 0.012, 0.3),  # dimple beside the mouth
    (((0.452, 7.275), (0.51, 7.29), (0.575, 7.315)), 0.007, 0.3),  # crow's feet
    (((0.455, 7.262), (0.52, 7.25), (0.585, 7.25)), 0.007, 0.32),
    (((0.452, 7.248), (0.51, 7.21), (0.565, 7.18)), 0.007, 0.3),
    (((0.44, 7.235), (0.485, 7.175), (0.525, 7.12)), 0.007, 0.22),
    (((0.2, 7.205), (0.3, 7.165), (0.4, 7.185), (0.45, 7.22)), 0.01, 0.3),  # below the lower lid
)
FROWN = (
    (((0.055, 7.36), (0.062, 7.42), (0.055, 7.5), (0.06, 7.56)), 0.012, 0.6),
    (((0.105, 7.4), (0.115, 7.46)), 0.009, 0.3),
    (((0.0, 7.335), (0.05, 7.335), (0.09, 7.325)), 0.009, 0.3),  # root of the nose
)
AGE = (
    (((0.275, 6.585), (0.31, 6.5), (0.325, 6.42), (0.31, 6.36)), 0.012, 0.45),  # marionette line
    (((0.185, 7.235), (0.25, 7.14), (0.34, 7.105), (0.42, 7.14)), 0.014, 0.4),  # tear trough
    (((0.0, 6.44), (0.08, 6.432), (0.15, 6.445)), 0.014, 0.35),  # above the chin
    (((0.16, 7.37), (0.27, 7.405), (0.38, 7.395), (0.45, 7.35)), 0.008, 0.25),  # fold of the upper lid
    (((0.0, 5.95), (0.25, 5.97), (0.5, 6.03)), 0.016, 0.5),  # neck
    (((0.0, 5.76), (0.25, 5.79), (0.5, 5.86)), 0.016, 0.5),
    (((0.5, 6.95), (0.535, 6.83), (0.53, 6.7)), 0.01, 0.2),  # cheek
)


@numba.njit(cache=True, nogil=True)
def _furrow(points: np.ndarray, line: np.ndarray, width: float, depth: float, out: np.ndarray) -> None:
    """Add to `out` (n,) a furrow along `line` (k, 2), tapered at its ends and with raised edges."""
    reach = 4 * width
    x0, x1 = line[:, 0].min() - reach, line[:, 0].max() + reach
    y0, y1 = line[:, 1].min() - reach, line[:, 1].max() + reach
    count = len(line) - 1
    for i in range(len(points)):
        x, y = points[i, 0], points[i, 1]
        if x < x0 or x > x1 or y < y0 or y > y1:
            continue
        nearest, place = 1e9, 0.0
        for k in range(count):
            ax, ay = line[k, 0], line[k, 1]
            bx, by = line[k + 1, 0] - ax, line[k + 1, 1] - ay
            t = min(1.0, max(0.0, ((x - ax) * bx + (y - ay) * by) / (bx * bx + by * by)))
            d = (ax + t * bx - x) ** 2 + (ay + t * by - y) ** 2
            if d < nearest:
                nearest, place = d, (k + t) / count
        q = np.sqrt(nearest) / width
        if q < 4:
            taper = np.sqrt(max(0.0, 4 * place * (1 - place)))
            out[i] += depth * taper * (0.3 * np.exp(-((q - 1.9) ** 2)) - np.exp(-q * q))


def _draw(points: np.ndarray, lines: tuple, rng: np.random.Generator) -> np.ndarray:
    height = np.zeros(len(points), np.float32)
    for line, width, depth in lines:
        path = np.asarray(line, np.float32) + rng.normal(0, 0.006, (len(line), 2)).astype(np.float32)
        _furrow(points, path, width * rng.uniform(0.8, 1.25), depth * rng.uniform(0.5, 1.25), height)
    return height


def _forehead(rng: np.random.Generator) -> tuple:
    """Three to five lines across the forehead, in the format of SMILE."""
    lines, y, step = [], rng.uniform(7.53, 7.58), rng.uniform(0.06, 0.09)
    for _ in range(int(rng.integers(3, 6))):
        x, bow = np.linspace(0, rng.uniform(0.3, 0.46), 7), rng.uniform(-0.03, 0.03)
        wave = 0.012 * np.sin(x * rng.uniform(8, 14) + rng.uniform(0, 6))
        lines.append((np.stack([x, y + bow * (x / 0.4) ** 2 + wave], 1), rng.uniform(0.008, 0.013), 0.45))
        y += step * rng.uniform(0.8, 1.3)
    return tuple(lines)


def creases(canvas: Surface, wrinkles: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Height maps in millimetres, negative in a furrow: (n, 3) of smile, raised brows and frown, and (n,) permanent.

    `wrinkles` 0..1: depth of the permanent lines. At 0 the face still creases when it moves.
    """
    warp = np.stack([smooth_noise(canvas.points, 5, rng, 2), smooth_noise(canvas.points, 5, rng, 2)], 1) * 0.012
    points = np.stack([np.abs(canvas.points[:, 0] + warp[:, 0]), canvas.points[:, 1] + warp[:, 1]], 1)
    front = ramp(0.75, 1.0, canvas.points[:, 2])
    vigour = 0.9 + 0.7 * wrinkles
    smile = _draw(points, SMILE, rng) * front
    brows = _draw(points, _forehead(rng), rng) * front
    frown = _draw(points, FROWN, rng) * front
    moving = np.stack([smile, brows * (0.4 + wrinkles), frown], 1) * vigour
    worn = _draw(points, AGE, rng) * ramp(0.35, 0.7, canvas.points[:, 2])
    static = wrinkles * (0.75 * smile + 0.6 * rng.uniform(0.3, 1) * brows + 0.6 * rng.uniform(0.2, 1) * frown + worn)
    # A net of fine lines over the whole skin but the lips.
    net = smooth_noise(canvas.points, (34, 14, 20), rng, 2) + smooth_noise(canvas.points, (15, 36, 20), rng, 2)
    static += 0.12 * wrinkles**2 * net * (1 - canvas.lips)
    return moving.astype(np.float32), static.astype(np.float32)
