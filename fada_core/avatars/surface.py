"""The skin as a canvas: the point of the base head that each texel shows, and masks of facial regions.

Everything on the skin is painted by position on MakeHuman's base head (in decimetres), so that it has the same scale
everywhere and no seams, whatever the layout of the texture coordinates.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter

from .assets import load


@dataclass(frozen=True)
class Surface:
    """The n texels of a texture of `size` that show skin, row by row.

    `index` (n,): places in the flattened texture; `points` (n, 3): positions in dm on the base head; `side` (n,): |x|;
    `nearest` (size, size): for each texel of the texture the nearest of the n, to fill gaps; `lips`, `mouth` (inside),
    `eyelids`, `ears` (n,): masks 0..1.
    """

    size: int
    index: np.ndarray
    points: np.ndarray
    side: np.ndarray
    nearest: np.ndarray
    lips: np.ndarray
    mouth: np.ndarray
    eyelids: np.ndarray
    ears: np.ndarray

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Values (n, ...) -> texture (size, size, ...), with gaps between charts filled from their edges."""
        return values[self.nearest]


@lru_cache(maxsize=4)
def surface(size: int) -> Surface:
    """The canvas of `size` texels a side, cached (it takes some 0.5 s at 512)."""
    head = load()
    positions, inside = head.texels(size)
    index = np.flatnonzero(inside)
    points = positions.reshape(-1, 3)[index]
    rows = np.full(size * size, -1)
    rows[index] = np.arange(len(index))
    _, where = distance_transform_edt(rows.reshape(size, size) < 0, return_indices=True)
    nearest = rows.reshape(size, size)[tuple(where)]
    masks = {}
    for name in ("lips", "inside_mouth", "eyelids", "ears"):
        picture = gaussian_filter(head.masks[name].astype(np.float32) / 255, 0.7)
        masks[name] = picture[tuple(((i + 0.5) / size * len(picture)).astype(int) for i in divmod(index, size))]
    return Surface(
        size, index, points, np.abs(points[:, 0]), nearest,
        masks["lips"], masks["inside_mouth"], masks["eyelids"], masks["ears"],
    )  # fmt: skip


def spot(canvas: Surface, x: float, y: float, z: float, radius: float | tuple[float, float, float]) -> np.ndarray:
    """A soft spot (n,) on both sides of the face: 1 at (+-x, y, z), 1/e at `radius`, in decimetres."""
    offset = np.stack([canvas.side - x, canvas.points[:, 1] - y, canvas.points[:, 2] - z], 1)
    return np.exp(-((offset / np.asarray(radius, np.float32)) ** 2).sum(1))


def ramp(low: float, high: float, values: np.ndarray | np.floating) -> np.ndarray:
    """Smoothstep: 0 below `low`, 1 above `high`; falling where low > high."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)
