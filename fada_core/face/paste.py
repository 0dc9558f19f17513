"""Puts the animated square back into the picture that it was cut from."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import FadaError
from .region import FaceRegion

FEATHER = 0.1  #: width of the soft edge, as a part of the square's side


class PasteBack:
    """Pastes frames into one picture; made once, called with as many frames at a time as memory allows.

    Towards the picture the square's edge is soft; where the square ends at the picture's own edge there is nothing to
    blend with, and it stays hard. Pixels outside of the square are the picture's own, exactly.

    Args:
        original: the picture, (1, 3, h, w) in -1..1, of any size.
        region: the face's region in it.
        feather: width of the soft edge, as a part of the square's side; 0 (hard) to 0.5 (soft up to the middle).
        match_colour: shift each frame's colours so that its edge has the picture's. A model's colours drift with time,
            and any difference shows where the square ends.

    Raises:
        FadaError: the region belongs to a picture of another size, or the feather is out of range.
    """

    def __init__(
        self, original: Tensor, region: FaceRegion, *, feather: float = FEATHER, match_colour: bool = True
    ) -> None:
        region.fits(original)
        if not 0 <= feather <= 0.5:
            raise FadaError(f"The feather is {feather:g}; give 0 (hard edge) to 0.5 of the square's side.")
        self._original = original.float().cpu()
        self._rows = slice(region.top, region.top + region.side)
        self._columns = slice(region.left, region.left + region.side)
        self._side = region.side
        self._alpha = _weights(region, feather)
        # Colours are compared in the soft edge of usual width, by some thousands of its pixels.
        self._stride = max(region.side // 256, 1)
        edge = _weights(region, FEATHER)[:: self._stride, :: self._stride] < 1
        self._edge = edge if match_colour and edge.any() else None

    def __call__(self, frames: Tensor) -> Tensor:
        """Frames (n, 3, size, size) in -1..1 to (n, 3, h, w) in -1..1, float32 on the CPU.

        Raises:
            FadaError: the frames are not square.
        """
        if frames.shape[-1] != frames.shape[-2]:
            height, width = frames.shape[-2:]
            raise FadaError(f"The frames have {width}x{height} pixels; give square ones, as the model makes them.")
        side = self._side
        frames = frames.float().cpu()
        if frames.shape[-1] != side:
            frames = F.interpolate(frames, (side, side), mode="bicubic", antialias=True).clamp(-1, 1)
        under = self._original[..., self._rows, self._columns]
        if self._edge is not None:
            step = (..., slice(None, None, self._stride), slice(None, None, self._stride))
            difference = (under[step] - frames[step])[..., self._edge]
            # The median: what moves through the edge, hair or a shoulder, does not change it.
            frames = (frames + difference.median(-1).values[..., None, None]).clamp(-1, 1)
        pasted = self._original.repeat(len(frames), 1, 1, 1)
        pasted[..., self._rows, self._columns] = torch.lerp(under.expand_as(frames), frames, self._alpha)
        return pasted


def _weights(region: FaceRegion, feather: float) -> Tensor:
    """How much of the frame shows in the square, (side, side) in 0..1."""

    def axis(start: int, length: int) -> Tensor:
        position = torch.arange(region.side) + 0.5
        line = torch.ones(region.side)
        for soft, distance in ((start > 0, position), (start + region.side < length, region.side - position)):
            if soft and feather:
                t = (distance / (feather * region.side)).clamp(max=1)
                line = line * t * t * (3 - 2 * t)  # a smooth step
        return line

    return axis(region.top, region.height)[:, None] * axis(region.left, region.width)
