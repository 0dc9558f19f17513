"""Puts the animated square back into the picture that it was cut from.

A model that works at 256 pixels gives soft pictures, and a portrait may have thousands. What the model did not change
stays the portrait's own: given the reconstruction of the still portrait (encoded and decoded, nothing denoised),
a frame is taken as that reconstruction plus a difference, and only the difference is laid over the picture.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import FadaError
from .region import FaceRegion

FEATHER = 0.1  #: width of the soft edge, as a part of the square's side
NOISE = 0.02, 0.06  #: differences from the reconstruction (of -1..1) up to the first are none, from the second on whole
DETAIL = 0.06, 0.2  #: likewise, where the picture's own fine detail gives way to the frame
SPREAD = 1 / 85  #: radius over which a change reaches to its neighbours, as a part of the square's side
_COLOUR_CELLS = 16  # per side: what a reconstruction gets wrong over such distances is colour, not detail
_MOST_GRAIN = 0.06  # standard deviation; a photograph's, at high sensitivity


def shrunk(original: Tensor, region: FaceRegion, width: int, height: int) -> tuple[Tensor, FaceRegion]:
    """The picture, (1, 3, h, w) in -1..1, at a smaller size of the same shape, and the face's region in it."""
    if (width, height) == (region.width, region.height):
        return original, region
    small = F.interpolate(original.float(), (height, width), mode="bicubic", antialias=True).clamp(-1, 1)
    x, y = width / region.width, height / region.height
    side = min(round(region.side * x), width, height)
    return small, replace(
        region,
        width=width,
        height=height,
        left=min(round(region.left * x), width - side),
        top=min(round(region.top * y), height - side),
        side=side,
        face=region.face.scaled(x, y),
        lips=region.lips.scaled(x, y),
        points=tuple((px * x, py * y) for px, py in region.points),
    )


class PasteBack:
    """Pastes frames into one picture; made once, called with as many frames at a time as memory allows.

    Towards the picture the square's edge is soft; where the square ends at the picture's own edge there is nothing to
    blend with, and it stays hard. Pixels outside of the square are the picture's own, exactly. With `still`, so are the
    pixels inside that the frames do not change; those that they change get the picture's grain.

    Args:
        original: the picture, (1, 3, h, w) in -1..1, of any size.
        region: the face's region in it.
        still: the square as the model's autoencoder reconstructs it, (1, 3, size, size) in -1..1; None: frames replace
            the whole square.
        feather: width of the soft edge, as a part of the square's side; 0 (hard) to 0.5 (soft up to the middle).
        match_colour: shift each frame's colours so that its edge has the picture's, or with `still` the
            reconstruction's. A model's colours drift with time, and any difference shows where the square ends.

    Raises:
        FadaError: the region belongs to a picture of another size, or the feather is out of range.
    """

    def __init__(
        self,
        original: Tensor,
        region: FaceRegion,
        *,
        still: Tensor | None = None,
        feather: float = FEATHER,
        match_colour: bool = True,
    ) -> None:
        region.fits(original)
        if not 0 <= feather <= 0.5:
            raise FadaError(f"The feather is {feather:g}; give 0 (hard edge) to 0.5 of the square's side.")
        self._original = original.float().cpu()
        self._rows = slice(region.top, region.top + region.side)
        self._columns = slice(region.left, region.left + region.side)
        self._side = region.side
        self._alpha = _weights(region, feather)
        self._under = self._original[..., self._rows, self._columns]
        self._still = None if still is None else still.float().cpu()
        if self._still is not None:
            error = self._under - self._sized(self._still)
            cells = F.interpolate(error, (_COLOUR_CELLS, _COLOUR_CELLS), mode="area")
            self._colour = F.interpolate(cells, (self._side, self._side), mode="bicubic")
            self._detail = error - self._colour
            self._grain = _grain(self._under)
        # Colours are compared in the soft edge of usual width, by some thousands of its pixels.
        aim, edge = (self._under if self._still is None else self._still), _weights(region, FEATHER)[None, None]
        edge = F.interpolate(edge, aim.shape[-2:], mode="area")[0, 0]
        self._stride = max(aim.shape[-1] // 256, 1)
        self._aim, edge = self._thinned(aim), self._thinned(edge) < 1
        self._edge = edge if match_colour and edge.any() else None

    def __call__(self, frames: Tensor) -> Tensor:
        """Frames (n, 3, size, size) in -1..1 to (n, 3, h, w) in -1..1, float32 on the CPU.

        Raises:
            FadaError: the frames are not square, or not of the reconstruction's size.
        """
        height, width = frames.shape[-2:]
        if height != width:
            raise FadaError(f"The frames have {width}x{height} pixels; give square ones, as the model makes them.")
        if self._still is not None and width != self._still.shape[-1]:
            raise FadaError(
                f"The frames have {width} pixels a side, the reconstruction {self._still.shape[-1]}; give those of one "
                "model."
            )
        frames = frames.float().cpu()
        whole = self._still is None
        frames = self._coloured(self._sized(frames)) if whole else self._laid_over(self._coloured(frames))
        pasted = self._original.repeat(len(frames), 1, 1, 1)
        pasted[..., self._rows, self._columns] = torch.lerp(self._under.expand_as(frames), frames, self._alpha)
        return pasted

    def _sized(self, frames: Tensor) -> Tensor:
        if frames.shape[-1] == self._side:
            return frames
        return F.interpolate(frames, (self._side, self._side), mode="bicubic", antialias=True).clamp(-1, 1)

    def _thinned(self, pictures: Tensor) -> Tensor:
        return pictures[..., :: self._stride, :: self._stride]

    def _coloured(self, frames: Tensor) -> Tensor:
        """The frames with the colours that their edge should have."""
        if self._edge is None:
            return frames
        difference = (self._aim - self._thinned(frames))[..., self._edge]
        # The median: what moves through the edge, hair or a shoulder, does not change it.
        return (frames + difference.median(-1).values[..., None, None]).clamp(-1, 1)

    def _laid_over(self, frames: Tensor) -> Tensor:
        """(n, 3, side, side): the picture's square with what the frames change in it."""
        change = frames - self._still
        amount = change.abs().amax(1, keepdim=True)
        reach = max(1, round(SPREAD * frames.shape[-1]))
        amount = F.max_pool2d(amount, 2 * reach + 1, stride=1, padding=reach)
        for _ in range(2):  # two boxes in a row: soft without a corner
            amount = F.avg_pool2d(F.pad(amount, (reach,) * 4, mode="replicate"), 2 * reach + 1, stride=1)
        moved = self._sized(self._still + change * _step(amount, *NOISE))
        new = F.interpolate(_step(amount, *DETAIL), (self._side, self._side), mode="bilinear")
        return (moved + self._colour + (1 - new) * self._detail + new * self._grain).clamp(-1, 1)


def _step(value: Tensor, low: float, high: float) -> Tensor:
    """0 up to `low`, 1 from `high` on, a smooth step between."""
    t = ((value - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def _grain(picture: Tensor) -> Tensor:
    """Noise as strong as that of the picture (1, 3, h, w), always the same: the picture's own stands still, too.

    The median tells grain from edges and texture, which only a part of a picture has.
    """
    fine = picture - F.avg_pool2d(F.pad(picture, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    deviation = (1.4826 * fine.abs().flatten(2).median(-1).values).clamp(max=_MOST_GRAIN)
    noise = torch.randn(picture[:, :1].shape, generator=torch.Generator().manual_seed(0))
    return deviation[..., None, None] * noise


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
