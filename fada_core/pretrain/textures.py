"""Synthetic textures, with which the autoencoder generalises beyond heads.

The dead leaves model (Matheron 1968; Lee, Mumford and Huang 2001) stacks opaque shapes whose sizes follow a power law.
Its pictures have the edges, scales and spectrum of natural images. Each leaf is filled with one colour, a gradient,
stripes, or noise of some scale. This mixture and its ranges are our choice.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_LEAVES = 90
_SMALLEST, _LARGEST = 0.05, 1.0  #: range of the radii, relative to the picture's side


def dead_leaves(size: int, generator: torch.Generator) -> Tensor:
    """A random picture, (3, size, size) float32 in -1..1."""
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    palette = rng.uniform(0, 1, (6, 3)) ** rng.uniform(0.6, 2.0)
    # Natural pictures are less saturated than random colours.
    palette += rng.uniform(0.1, 0.9) * (palette.mean(1, keepdims=True) - palette)
    picture = np.empty((size, size, 3), np.float32)
    picture[:] = palette[0]
    # Large leaves are drawn first. Radii have a density of r^-3, the exponent that makes pictures scale-invariant.
    radii = (_LARGEST**-2 + rng.uniform(0, 1, _LEAVES) * (_SMALLEST**-2 - _LARGEST**-2)) ** -0.5
    for radius in np.sort(radii)[::-1]:
        cx, cy, angle = *rng.uniform(-0.1, 1.1, 2), rng.uniform(0, np.pi)
        top, left = (max(0, int((c - 1.5 * radius) * size)) for c in (cy, cx))
        bottom, right = (min(size, int((c + 1.5 * radius) * size) + 2) for c in (cy, cx))
        if top >= bottom or left >= right:
            continue
        part = slice(top, bottom), slice(left, right)
        dx, dy = x[part] - cx, y[part] - cy
        u, v = np.cos(angle) * dx + np.sin(angle) * dy, np.cos(angle) * dy - np.sin(angle) * dx
        power, flatness = rng.choice([1.0, 2.0, 8.0]), rng.uniform(0.3, 1.0)
        distance = (np.abs(u / radius) ** power + np.abs(v / (radius * flatness)) ** power) ** (1 / power)
        softness = rng.choice([1.0, 1.0, 4.0]) / (radius * size)  # an edge about one pixel wide, or out of focus
        alpha = np.clip((1 - distance) / softness + 0.5, 0, 1)[..., None]
        fill = np.clip(palette[rng.integers(6)] + rng.normal(0, 0.06, 3), 0, 1) + _pattern(u, v, size, rng)[..., None]
        picture[part] += alpha * (fill - picture[part])
    light = 1 + rng.uniform(-0.4, 0.4) * (x - 0.5) + rng.uniform(-0.4, 0.4) * (y - 0.5)
    picture = picture * light[..., None] + rng.normal(0, rng.choice([0.0, 0.0, 0.01, 0.04]), picture.shape)
    return torch.from_numpy(np.clip(picture * 2 - 1, -1, 1).astype(np.float32).transpose(2, 0, 1).copy())


def _pattern(u: np.ndarray, v: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Values to add to a leaf's colour, in the shape of its coordinates `u` and `v`."""
    strength = rng.uniform(0, 0.25)
    kind = rng.integers(4)
    if kind == 0:
        return np.zeros_like(u)
    if kind == 1:
        return strength * 4 * (rng.normal() * u + rng.normal() * v)
    if kind == 2:
        frequency = 2 * np.pi * size / rng.uniform(2.5, 24)  # periods of 2.5 to 24 pixels
        return strength * np.sin(frequency * u + rng.uniform(0, 6) + 2 * np.sin(rng.uniform(5, 40) * v))
    coarse = rng.normal(0, 1, (int(2 ** rng.uniform(1, 7)),) * 2).astype(np.float32)
    across, down = ((c * len(coarse) * 2).astype(int) % len(coarse) for c in (u, v))
    return strength * coarse[down, across]
