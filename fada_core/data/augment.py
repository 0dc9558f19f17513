"""Augmentation of rendered clips: mirroring, rotation, enlargement and changes of colour.

All pictures of a clip are changed alike, so that the changed clip shows the same person as another photograph would. A
changed clip costs a quarter of a new one, because it is only encoded, not rendered.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .samples import ClipSource, RawClip

CLOSER = 1.0, 1.3  #: range of the factor of enlargement
TURNED = math.radians(8)  #: largest rotation
GAMMA = 0.7, 1.5
CONTRAST = 0.75, 1.25
SATURATION = 0.3, 1.5
WHITE = 0.12  #: largest relative change of red and blue
GREY_SHARE = 0.12  #: share of clips without colours
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Augmented:
    """`versions` of every clip of `source`: all clips as they are, then all with one change, then all with another."""

    source: ClipSource
    versions: int

    def __len__(self) -> int:
        return len(self.source) * self.versions

    def key(self, index: int) -> tuple[str, str]:
        """See `samples.ClipSource`."""
        version, index = divmod(index, len(self.source))
        name, digest = self.source.key(index)
        return (f"{name}-{version}", f"{digest} augmented") if version else (name, digest)

    def fetch(self, index: int) -> RawClip:
        """See `samples.ClipSource`."""
        version, index = divmod(index, len(self.source))
        clip = self.source.fetch(index)
        return changed(clip, torch.Generator().manual_seed(index * 1000 + version)) if version else clip


def changed(clip: RawClip, generator: torch.Generator) -> RawClip:
    """The clip with a random framing and random colours, the same for all its pictures; boxes are moved accordingly."""
    zoom, turn, x, y, mirror = torch.rand(5, generator=generator).tolist()
    zoom = CLOSER[0] + (CLOSER[1] - CLOSER[0]) * zoom
    turn = TURNED * (2 * turn - 1)
    size = clip.portrait.shape[-1]
    # The map from coordinates in the changed picture to coordinates in the clip's, both -1..1, for `affine_grid`.
    cosine, sine, sign = math.cos(turn) / zoom, math.sin(turn) / zoom, -1.0 if mirror < 0.5 else 1.0
    reach = 1 - 1 / zoom
    matrix = torch.tensor(
        [[sign * cosine, -sine, reach * (2 * x - 1)], [sign * sine, cosine, reach * (2 * y - 1) * 0.5]]
    )
    colours = _colours(generator)

    def picture(pixels: Tensor) -> Tensor:
        images = pixels.float() / 255
        grid = F.affine_grid(matrix[None], [1, 3, size, size], align_corners=False).expand(len(images), -1, -1, -1)
        images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
        return colours(images).mul(255).round().clamp(0, 255).to(torch.uint8)

    def boxes(corners: Tensor | None) -> Tensor | None:
        return None if corners is None else _moved(corners, matrix, size)

    return replace(
        clip,
        portrait=picture(clip.portrait[None])[0],
        frames=picture(clip.frames),
        clean_frames=None if clip.clean_frames is None else picture(clip.clean_frames),
        mouth_boxes=boxes(clip.mouth_boxes),
        eyes_boxes=boxes(clip.eyes_boxes),
        face_boxes=boxes(clip.face_boxes),
        identity=None,  # it was computed from the unchanged face
    )


def _colours(generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """A random change of colours: a function of pictures (n, 3, h, w) in 0..1."""
    gamma, contrast, saturation, grey, red, blue = torch.rand(6, generator=generator).tolist()
    gamma = GAMMA[0] * (GAMMA[1] / GAMMA[0]) ** gamma
    contrast = CONTRAST[0] + (CONTRAST[1] - CONTRAST[0]) * contrast
    saturation = 0.0 if grey < GREY_SHARE else SATURATION[0] + (SATURATION[1] - SATURATION[0]) * saturation
    white = torch.tensor([1 + WHITE * (2 * red - 1), 1.0, 1 + WHITE * (2 * blue - 1)])[:, None, None]

    def apply(images: Tensor) -> Tensor:
        images = (images * white).clamp(0, 1) ** gamma
        luma = (images * torch.tensor(_LUMA)[:, None, None]).sum(1, keepdim=True)
        return (0.5 + contrast * (luma + saturation * (images - luma) - 0.5)).clamp(0, 1)

    return apply


def _moved(boxes: Tensor, matrix: Tensor, size: int) -> Tensor:
    """Boxes (n, 4) in pixels of the changed pictures that contain the given boxes of the clip's pictures."""
    turn, shift = matrix[:, :2], matrix[:, 2]
    x0, y0, x1, y1 = (boxes / size * 2 - 1).unbind(-1)
    corners = torch.stack([torch.stack([x, y], -1) for x in (x0, x1) for y in (y0, y1)], 1)
    moved = ((corners - shift) @ torch.linalg.inv(turn).T + 1) / 2 * size
    return torch.cat([moved.amin(1), moved.amax(1)], -1)
