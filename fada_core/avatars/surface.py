"""The skin as a canvas: which point of the base head each texel of the UV square shows, and the regions of the face.

Everything painted on skin is a function of positions on MakeHuman's base head (decimetres), so that it has the same
grain everywhere and no seams, whatever the layout of the texture coordinates.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter

from .assets import load


@dataclass(frozen=True)
class Surface:
    """The covered texels of a square of `size`, row by row.

    `index` (n,): positions in the flattened square; `points` (n, 3): rest positions; `side` (n,): |x|;
    `nearest` (size, size): for every texel the row of the covered one that is nearest, to fill the gaps;
    the masks `lips`, `mouth` (its inside), `eyelids`, `ears` (n,) are 0..1."""

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
        """(n, ...) -> (size, size, ...), with the gaps between charts filled from their edges."""
        return values[self.nearest]


@lru_cache(maxsize=4)
def surface(size: int) -> Surface:
    """The canvas of `size` texels a side; made once a process and size (some 0.5 s at 512)."""
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
    """A soft round patch (n,) on both sides of the face: 1 at (+-x, y, z), 1/e at `radius`, in decimetres."""
    offset = np.stack([canvas.side - x, canvas.points[:, 1] - y, canvas.points[:, 2] - z], 1) / np.float32(radius)
    return np.exp(-(offset**2).sum(1))


def ramp(low: float, high: float, values: np.ndarray) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between (the other way round where low > high)."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)
