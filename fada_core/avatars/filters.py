"""Image filters (blur, Kuwahara, lines, paper, JPEG), each about a millisecond for a picture of 256 pixels.

Pictures are C-contiguous float32 (h, w, c), sRGB 0..1. Edge pixels are repeated beyond the border.
"""

import io
import math

import numba
import numpy as np
from PIL import Image

from .mesh import Part


@numba.njit(cache=True, nogil=True, fastmath=True)
def _convolve(picture: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    h, w, c = picture.shape
    r = len(kernel) // 2
    half = np.empty_like(picture)
    padded = np.empty((w + 2 * r) * c, np.float32)
    for y in range(h):
        row = picture[y].reshape(w * c)
        padded[r * c : (r + w) * c] = row
        for x in range(r):
            for k in range(c):
                padded[x * c + k] = row[k]
                padded[(r + w + x) * c + k] = row[(w - 1) * c + k]
        out = half[y].reshape(w * c)
        out[:] = 0
        for t in range(2 * r + 1):
            weight, start = kernel[t], t * c
            for i in range(w * c):
                out[i] += weight * padded[start + i]
    result = np.zeros_like(picture)
    for y in range(h):
        out = result[y].reshape(w * c)
        for t in range(2 * r + 1):
            weight = kernel[t]
            row = half[min(max(y + t - r, 0), h - 1)].reshape(w * c)
            for i in range(w * c):
                out[i] += weight * row[i]
    return result


def blur(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of (h, w) or (h, w, c) float32 with `sigma` in pixels; none if `sigma` is below 0.2."""
    if sigma < 0.2:
        return picture
    r = max(1, math.ceil(2.2 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-r, r + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    return _convolve(np.ascontiguousarray(picture).reshape(*picture.shape[:2], -1), kernel).reshape(picture.shape)


@numba.njit(cache=True, nogil=True, fastmath=True)
def _box(planes: np.ndarray, n: int) -> np.ndarray:
    """Sums of `planes` (h, w, c) over the n x n pixels that begin n // 2 above and left of each pixel."""
    h, w, c = planes.shape
    before, after = n // 2, n - n // 2
    half = np.empty_like(planes)
    total = np.empty(c, np.float32)
    for y in range(h):
        for k in range(c):
            total[k] = 0
            for t in range(-before, after):
                total[k] += planes[y, min(max(t, 0), w - 1), k]
        for x in range(w):
            for k in range(c):
                half[y, x, k] = total[k]
                total[k] += planes[y, min(x + after, w - 1), k] - planes[y, max(x - before, 0), k]
    result = np.empty_like(planes)
    row = np.zeros((w, c), np.float32)
    for t in range(-before, after):
        row += half[min(max(t, 0), h - 1)]
    for y in range(h):
        result[y] = row
        new, old = half[min(y + after, h - 1)], half[max(y - before, 0)]
        for x in range(w):
            for k in range(c):
                row[x, k] += new[x, k] - old[x, k]
    return result


@numba.njit(cache=True, nogil=True, fastmath=True)
def _kuwahara(picture: np.ndarray, n: int, sharpness: np.float32) -> np.ndarray:
    h, w, _ = picture.shape
    planes = np.empty((h, w, 4), np.float32)
    for y in range(h):
        for x in range(w):
            r, g, b = picture[y, x, 0], picture[y, x, 1], picture[y, x, 2]
            planes[y, x, 0], planes[y, x, 1], planes[y, x, 2] = r, g, b
            planes[y, x, 3] = r * r + g * g + b * b
    votes = _box(planes, n)  # becomes, for each square: weight times mean colour, and weight
    area = np.float32(1.0 / (n * n))
    for y in range(h):
        for x in range(w):
            r, g, b = votes[y, x, 0] * area, votes[y, x, 1] * area, votes[y, x, 2] * area
            spread = votes[y, x, 3] * area - r * r - g * g - b * b
            q = np.float32(1) / (np.float32(1) + sharpness * max(spread, np.float32(0)))
            q = q * q
            q = q * q + np.float32(1e-12)
            votes[y, x, 0], votes[y, x, 1], votes[y, x, 2], votes[y, x, 3] = q * r, q * g, q * b, q
    result = np.empty_like(picture)
    up, down = n // 2 - (n - 1), n // 2  # offsets to the centres of the squares that end and begin at a pixel
    for y in range(h):
        top, bottom = votes[max(y + up, 0)], votes[min(y + down, h - 1)]
        for x in range(w):
            i, j = max(x + up, 0), min(x + down, w - 1)
            share = np.float32(1) / (top[i, 3] + top[j, 3] + bottom[i, 3] + bottom[j, 3])
            for k in range(3):
                result[y, x, k] = (top[i, k] + top[j, k] + bottom[i, k] + bottom[j, k]) * share
    return result


def kuwahara(picture: np.ndarray, radius: int, sharpness: float = 3000) -> np.ndarray:
    """Smooth (h, w, 3) into flat patches with sharp borders (after Kuwahara et al. 1976, with soft weights).

    Each pixel becomes a weighted mean of the four squares of side `radius` + 1 that meet at it. Squares of low variance
    weigh most, the more so the higher `sharpness`.
    """
    return _kuwahara(np.ascontiguousarray(picture), radius + 1, np.float32(sharpness))


def jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    """Compress (h, w, 3) uint8 as a JPEG of `quality` 1..95, and decompress it."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer))


def luminance(picture: np.ndarray) -> np.ndarray:
    """Luma (h, w) of (h, w, 3) sRGB (Rec. 601)."""
    return picture @ np.array([0.299, 0.587, 0.114], np.float32)


@numba.njit(cache=True, nogil=True)
def _part_lines(parts: np.ndarray, table: np.ndarray) -> np.ndarray:
    h, w = parts.shape
    out = np.zeros((h, w), np.float32)
    for y in range(h - 1):
        for x in range(w - 1):
            a = parts[y, x]
            right, below = table[a, parts[y, x + 1]], table[a, parts[y + 1, x]]
            if right > 0:
                out[y, x] = max(out[y, x], right)
                out[y, x + 1] = max(out[y, x + 1], right)
            if below > 0:
                out[y, x] = max(out[y, x], below)
                out[y + 1, x] = max(out[y + 1, x], below)
    return out


def part_lines(parts: np.ndarray, table: np.ndarray, width: float) -> np.ndarray:
    """Lines (h, w) 0..1, some `width` pixels wide, along the borders of `parts` (h, w) uint8.

    `table` (k, k): strength of the line between two parts. Hair is treated as one mass, so that single hairs get no
    outline.
    """
    hair, empty = parts == Part.HAIR, parts == Part.BACKGROUND
    near = blur(np.stack([hair, empty], 2).astype(np.float32), 2.0 * len(parts) / 256)
    thin = np.where(near[..., 1] > 0.1, np.uint8(Part.BACKGROUND), np.uint8(Part.SKIN))
    parts = np.where(hair | empty, np.where(near[..., 0] > 0.45, np.uint8(Part.HAIR), thin), parts)
    parts[empty & (near[..., 0] <= 0.45)] = Part.BACKGROUND
    lines = blur(_part_lines(parts, table), 0.45 * width)
    return np.minimum(lines * 1.25, 1)


def difference_lines(tone: np.ndarray, sigma: float, gain: float, threshold: float = 0.012) -> np.ndarray:
    """Lines (h, w) 0..1 where `tone` (h, w) is darker than its surroundings, by a difference of Gaussians (Winnemoeller
    2011)."""
    dark = blur(tone, 1.6 * sigma) - blur(tone, sigma)
    return np.clip((dark - threshold) * gain, 0, 1)


def _uniform(field: np.ndarray) -> np.ndarray:
    """The ranks of all values of a field, as 0..1."""
    order = np.empty(field.size, np.float32)
    order[np.argsort(field, axis=None)] = np.linspace(0, 1, field.size, dtype=np.float32)
    return order.reshape(field.shape)


def streaks(size: int, angle: float, length: float, width: float, rng: np.random.Generator) -> np.ndarray:
    """A field (size, size), uniformly distributed in 0..1, of strokes `length` by `width` pixels at `angle` radians."""
    n = int(size * 1.5) + 8
    noise = rng.standard_normal((n, n)).astype(np.float32)
    row = blur(noise, width)
    k = max(1, int(length))
    row = np.cumsum(np.pad(row, ((0, 0), (k, 0)), mode="wrap"), 1)
    row = row[:, k:] - row[:, :-k]
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) - size / 2
    c, s = math.cos(angle), math.sin(angle)
    wave = 1.2 * np.sin(x / size * 5 + rng.uniform(0, 6)) + 1.2 * np.sin(y / size * 4 + rng.uniform(0, 6))
    u, v = x * c + y * s + n / 2, -x * s + y * c + n / 2 + wave
    field = row[v.astype(int).clip(0, n - 1), u.astype(int).clip(0, n - 1)]
    return _uniform(field)


def paper(size: int, grain: float, rng: np.random.Generator) -> np.ndarray:
    """Roughness of paper or canvas (size, size), uniformly distributed in 0..1, with bumps of some `grain` pixels."""
    field = blur(rng.standard_normal((size, size)).astype(np.float32), grain)
    field = field / field.std() + 0.5 * rng.standard_normal((size, size)).astype(np.float32)
    return _uniform(field)


def smooth_field(size: int, cells: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth random field (size, size) of mean 0 and standard deviation 1 with some `cells` bumps across."""
    sigma = size / cells / 2.5
    step = max(1, int(sigma / 2))
    n = size // step + 2
    field = blur(rng.standard_normal((n, n)).astype(np.float32), sigma / step)
    at = np.arange(size) / step
    i = at.astype(int)
    t = (at - i).astype(np.float32)
    field = field[i] * (1 - t)[:, None] + field[i + 1] * t[:, None]
    field = field[:, i] * (1 - t) + field[:, i + 1] * t
    return (field - field.mean()) / field.std()
