"""Pastes the animated square back into the picture from which it was cropped.

A model of 256 pixels gives soft frames, while a portrait may have thousands of pixels. To keep the portrait's detail
where nothing changes, frames are compared with the reconstruction of the portrait (encoded and decoded, not denoised),
and only the difference is added to the picture.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import FadaError
from .region import FaceRegion

FEATHER = 0.1  #: width of the soft edge, relative to the square's side
NOISE = 0.02, 0.06  #: differences (values in -1..1) below the first count as none, above the second in full
DETAIL = 0.06, 0.2  #: differences below the first keep the picture's fine detail, above the second lose all of it
SPREAD = 1 / 85  #: radius by which changes are spread to neighbouring pixels, relative to the square's side
_COLOUR_CELLS = 16  # per side: errors of the reconstruction at this scale count as colour, finer ones as detail
_MOST_GRAIN = 0.06  # standard deviation, as in a photograph at high sensitivity


def shrunk(original: Tensor, region: FaceRegion, width: int, height: int) -> tuple[Tensor, FaceRegion]:
    """The picture (1, 3, h, w) in -1..1 resized to `width` x `height`, of the same aspect ratio, and its region."""
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
    """Pastes frames into a picture. Create it once, and call it with as many frames at a time as memory allows.

    The square's edges are soft, except along the picture's own edges, where there is nothing to blend with. Pixels
    outside the square stay exactly as they are. With `still`, so do the pixels inside that the frames do not change;
    changed pixels get the picture's grain.

    Args:
        original: the picture, (1, 3, h, w) in -1..1, of any size.
        region: the face's region in it.
        still: the square as reconstructed by the model's autoencoder, (1, 3, size, size) in -1..1; None: frames
            replace the whole square.
        feather: width of the soft edge, relative to the square's side: 0 (hard) to 0.5 (soft up to the centre).
        match_colour: shift the colours of each frame so that its edge matches the picture, or with `still` the
            reconstruction. A model's colours drift over time, and a difference would show at the square's edge.

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
        # Colours are compared on a sample of the pixels in a soft edge of the default width.
        aim, edge = (self._under if self._still is None else self._still), _weights(region, FEATHER)[None, None]
        edge = F.interpolate(edge, aim.shape[-2:], mode="area")[0, 0]
        self._stride = max(aim.shape[-1] // 256, 1)
        self._aim, edge = self._thinned(aim), self._thinned(edge) < 1
        self._edge = edge if match_colour and edge.any() else None

    def __call__(self, frames: Tensor) -> Tensor:
        """Paste frames (n, 3, size, size) in -1..1: (n, 3, h, w) in -1..1, float32 on the CPU.

        Raises:
            FadaError: the frames are not square, or not of the reconstruction's size.
        """
        height, width = frames.shape[-2:]
        if height != width:
            raise FadaError(f"The frames have {width}x{height} pixels; give square frames, as from the model.")
        if self._still is not None and width != self._still.shape[-1]:
            raise FadaError(
                f"The frames have {width} pixels a side, the reconstruction {self._still.shape[-1]}; use one model for "
                "both."
            )
        frames = frames.float().cpu()
        if self._still is None:
            frames = self._coloured(self._sized(frames))
        else:
            frames = self._laid_over(self._coloured(frames), self._still)
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
        """Shift the colours of the frames to match at their edge."""
        if self._edge is None:
            return frames
        difference = (self._aim - self._thinned(frames))[..., self._edge]
        # The median ignores hair or a shoulder that moves through the edge.
        return (frames + difference.median(-1).values[..., None, None]).clamp(-1, 1)

    def _laid_over(self, frames: Tensor, still: Tensor) -> Tensor:
        """The picture's square with the changes of the frames from `still`, (n, 3, side, side)."""
        change = frames - still
        amount = change.abs().amax(1, keepdim=True)
        reach = max(1, round(SPREAD * frames.shape[-1]))
        amount = F.max_pool2d(amount, 2 * reach + 1, stride=1, padding=reach)
        for _ in range(2):  # two box filters: a smooth kernel
            amount = F.avg_pool2d(F.pad(amount, (reach,) * 4, mode="replicate"), 2 * reach + 1, stride=1)
        moved = self._sized(still + change * _step(amount, *NOISE))
        new = F.interpolate(_step(amount, *DETAIL), (self._side, self._side), mode="bilinear")
        return (moved + self._colour + (1 - new) * self._detail + new * self._grain).clamp(-1, 1)


def _step(value: Tensor, low: float, high: float) -> Tensor:
    """Smoothstep: 0 below `low`, 1 above `high`."""
    t = ((value - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def _grain(picture: Tensor) -> Tensor:
    """Noise with the strength of the picture's grain (1, 3, h, w), the same for all frames, like the picture's own.

    The median ignores edges and texture, which cover only a part of a picture.
    """
    fine = picture - F.avg_pool2d(F.pad(picture, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    deviation = (1.4826 * fine.abs().flatten(2).median(-1).values).clamp(max=_MOST_GRAIN)
    noise = torch.randn(picture[:, :1].shape, generator=torch.Generator().manual_seed(0))
    return deviation[..., None, None] * noise


def _weights(region: FaceRegion, feather: float) -> Tensor:
    """Weight of the frame in the square, (side, side) in 0..1."""

    def axis(start: int, length: int) -> Tensor:
        position = torch.arange(region.side) + 0.5
        line = torch.ones(region.side)
        for soft, distance in ((start > 0, position), (start + region.side < length, region.side - position)):
            if soft and feather:
                t = (distance / (feather * region.side)).clamp(max=1)
                line = line * t * t * (3 - 2 * t)
        return line

    return axis(region.top, region.height)[:, None] * axis(region.left, region.width)
