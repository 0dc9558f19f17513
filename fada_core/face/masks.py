"""Face inputs of the networks: the face's box as a picture, and the masks of the three audio regions.

Both equal Hallo's (arXiv 2406.08801) bit for bit, 8-bit rounding included, because its public weights were trained with
them. Tests compare them with masks from the original code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

FACE_EXPANSION, LIP_EXPANSION = 1.2, 2.0  #: as in Hallo's inference
MASK_SIDE = 64  #: side in cells at which attention masks are made, before they are resized for each level
FACE_BLUR, LIP_BLUR = 51, 31  #: taps of the Gaussian blurs, in cells


class Box(NamedTuple):
    """A rectangle in pixels, x to the right and y down; x1 and y1 are exclusive."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        return self.y1 - self.y0

    def shifted(self, x: float, y: float) -> Box:
        return Box(self.x0 + x, self.y0 + y, self.x1 + x, self.y1 + y)

    def scaled(self, x: float, y: float) -> Box:
        return Box(self.x0 * x, self.y0 * y, self.x1 * x, self.y1 * y)

    def clipped(self, width: float, height: float) -> Box:
        """The part inside a picture of this size; it has no area where there is none."""
        x0, x1 = (min(max(x, 0), width) for x in (self.x0, self.x1))
        y0, y1 = (min(max(y, 0), height) for y in (self.y0, self.y1))
        return Box(x0, y0, x1, y1)


def expand(box: Box, ratio: float, width: int, height: int) -> Box:
    """Expand `box` around its centre by `ratio`, on whole pixels, and move it back into the picture.

    The floor divisions are Hallo's. A box that becomes larger than the picture is cut here; in Hallo's code it loses
    its area.
    """

    def axis(low: float, high: float, length: int) -> tuple[int, int]:
        low, high = round(low), round(high)
        middle, reach = (low + high) // 2, (high - low) * ratio // 2
        low, high = middle - reach, middle + reach
        if low < 0:
            low, high = 0, high - low
        if high > length:
            low, high = low - (high - length), length
        return max(round(low), 0), round(high)

    x0, x1 = axis(box.x0, box.x1, width)
    y0, y1 = axis(box.y0, box.y1, height)
    return Box(x0, y0, x1, y1)


def face_picture(face: Box, width: int, height: int, size: int) -> Tensor:
    """Input of the face locator, (1, 1, size, size) in 0..1: white inside the face's box.

    Args:
        face: box of the silhouette, in pixels of a picture of `width` x `height`; this function expands it.
    """
    x0, y0, x1, y1 = expand(face, FACE_EXPANSION, width, height)
    mask = np.zeros((height, width), np.uint8)
    mask[int(y0) : int(y1), int(x0) : int(x1)] = 255
    resized = np.asarray(Image.fromarray(mask).resize((size, size), Image.Resampling.BILINEAR), np.float32)
    return torch.from_numpy(resized / 255)[None, None]


def attention_masks(face: Box, lips: Box, width: int, height: int, sides: Sequence[int]) -> list[list[Tensor]]:
    """Masks of the audio attention: masks[level][region], (1, side * side, 1) float32 in 0..1, with soft edges.

    Regions: everything but the face, the face without the lips, the lips.

    Args:
        face, lips: boxes of silhouette and lips in pixels of a picture of `width` x `height`; this function expands
            them.
        sides: cells per side of each level's attention.
    """
    wide = expand(face, FACE_EXPANSION, width, height)
    near = expand(lips, LIP_EXPANSION, width, height)
    around = _normalised(_blurred(_shrunk(wide, width, height), FACE_BLUR))
    mouth = _normalised(_blurred(_shrunk(near, width, height), LIP_BLUR))
    # As in Hallo: converting to 0..1 and truncating makes some cells darker than 255 - around by 1.
    beyond = ((1.0 - around / 255) * 255).astype(np.uint8)
    regions = beyond, np.maximum(around.astype(np.int64) - mouth, 0).astype(np.uint8), mouth
    return [[_level(region, side) for region in regions] for side in sides]


def _level(mask: np.ndarray, side: int) -> Tensor:
    resized = np.asarray(Image.fromarray(mask).resize((side, side), Image.Resampling.BILINEAR), np.float32)
    return torch.from_numpy(resized / 255).reshape(1, side * side, 1)


def _shrunk(box: Box, width: int, height: int) -> np.ndarray:
    """A filled rectangle (255 on 0) in a picture, resized to the masks' cells like OpenCV: linear, not antialiased."""

    def axis(low: float, high: float, length: int) -> np.ndarray:
        line = np.zeros(length)
        line[int(low) : int(high)] = 1
        return np.interp((np.arange(MASK_SIDE) + 0.5) * (length / MASK_SIDE) - 0.5, np.arange(length), line)

    return np.rint(255 * np.outer(axis(box.y0, box.y1, height), axis(box.x0, box.x1, width))).astype(np.uint8)


def _blurred(mask: np.ndarray, taps: int) -> np.ndarray:
    """OpenCV's Gaussian blur of 8-bit pictures: weights in 256ths, mirrored edges, rounding only at the end.

    It has to be exact, because the following stretch of contrast would amplify differences.
    """
    sigma = 0.3 * ((taps - 1) * 0.5 - 1) + 0.8  # OpenCV's default
    half = taps // 2
    exact = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * sigma**2))
    exact *= 256 / exact.sum()
    weights, error = np.zeros(taps, np.int64), 0.0
    for i in range(half):  # rounding errors are carried to the next weight, the last one to the middle
        wanted = exact[i] + error
        weights[i] = weights[-1 - i] = np.rint(wanted)
        error = wanted - weights[i]
    weights[half] = 256 - weights.sum()
    padded = np.pad(mask.astype(np.int64), half, mode="reflect")
    rows = np.tensordot(np.lib.stride_tricks.sliding_window_view(padded, taps, 1), weights, 1)
    both = np.tensordot(np.lib.stride_tricks.sliding_window_view(rows, taps, 0), weights, 1)
    return ((both + 2**15) >> 16).astype(np.uint8)


def _normalised(mask: np.ndarray) -> np.ndarray:
    """Stretch the contrast to 0..255; a mask of a single value is returned as it is."""
    low, high = int(mask.min()), int(mask.max())
    return mask if low == high else np.rint((mask - float(low)) * (255 / (high - low))).astype(np.uint8)
