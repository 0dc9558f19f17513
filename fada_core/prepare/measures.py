"""What is measured of a clip, and which pool follows from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.samples import Pool
from ..face.detect import Points
from ..face.masks import Box

_SHARPNESS_SIDE = 256  # pixels of the whole clip's square: sharpness depends on scale
_NOSE_DEPTH = 1.27  # of the tip before the eyes' plane, in half distances of the eyes (mediapipe's canonical face)
_LUMA = (0.299, 0.587, 0.114)  # BT.601


@dataclass(frozen=True)
class Thresholds:
    """What a clip needs for the high pool, or for any; a score that is not known is not asked for."""

    sync_c: float = 3.0
    """SyncNet's confidence for the high pool (LatentSync drops clips below 3)."""
    sync_c_least: float = 1.5
    """SyncNet's confidence for any pool; sound that is not the speaker's lies below."""
    offset: float = 1.0
    """Frames between picture and sound for the high pool, either way."""
    yaw: float = 30.0
    """Degrees to either side for the high pool (Hallo's data: below 30)."""
    face: float = 0.3
    """Side of the face as a part of the picture's for the high pool; heads that move much need a wide crop."""
    face_pixels: float = 160.0
    """Side of the face in the footage's own pixels for the high pool."""
    face_pixels_least: float = 64.0
    """The same for any pool."""
    sharpness: float = 0.03
    """Deviation of the Laplacian for the high pool; its square in 8-bit values, 58, is a common limit for blur."""
    brightness: float = 0.15
    """Mean luma of the face for the high pool, 0..1."""
    speech: float = 0.2
    """Share of the time with sound as loud as speech for the high pool."""

    def pool(self, scores: Mapping[str, float]) -> tuple[Pool | None, str]:
        """The pool, None where a clip belongs to none; and what kept it from the next better one."""
        least = {"sync_c": self.sync_c_least, "face_pixels": self.face_pixels_least}
        for name, limit in least.items():
            if scores.get(name, limit) < limit:
                return None, f"{name} {scores[name]:.3g} is below {limit:g}"
        for name in ("sync_c", "face", "face_pixels", "sharpness", "brightness", "speech"):
            limit = getattr(self, name)
            if scores.get(name, limit) < limit:
                return "moderate", f"{name} {scores[name]:.3g} is below {limit:g}"
        for name in ("offset", "yaw"):
            limit = getattr(self, name)
            if abs(scores.get(name, 0.0)) > limit:
                return "moderate", f"{name} {scores[name]:.3g} is beyond {limit:g}"
        return "high", ""


def light(image: Tensor, face: Box | None) -> dict[str, float]:
    """`sharpness` and `brightness` of the face (of all where none is known) in a square picture (3, s, s) in -1..1.

    Brightness is the mean luma, 0..1; sharpness the deviation of its Laplacian with the whole picture at 256 pixels a
    side: 0 blurred, 0.1 very sharp.
    """
    luma = (torch.tensor(_LUMA)[:, None, None] * (image + 1) / 2).sum(0)
    side = _SHARPNESS_SIDE
    small = F.interpolate(luma[None, None], (side, side), mode="bilinear", antialias=True)
    edges = F.conv2d(small, torch.tensor([[[[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]]]), padding=1)
    if face is not None:
        inner = face.scaled(side / image.shape[-1], side / image.shape[-1]).clipped(side - 1, side - 1)
        rows, columns = slice(int(inner.y0), int(inner.y1) + 1), slice(int(inner.x0), int(inner.x1) + 1)
        small, edges = small[..., rows, columns], edges[..., rows, columns]
    return {"sharpness": float(edges[..., 1:-1, 1:-1].std()), "brightness": float(small.mean())}


def yaw(points: Points) -> float:
    """Degrees by which a face is turned to the picture's right, from eyes and nose tip.

    Turned by an angle a, eyes at x = -1 and 1 come to lie 2 cos(a) apart, and a nose tip before their middle by d moves
    by d sin(a): the nose's way along the line of the eyes, by half their distance, is d tan(a).
    """
    (x0, y0), (x1, y1), (nose_x, nose_y) = points[:3]
    along_x, along_y = x1 - x0, y1 - y0
    squared = along_x**2 + along_y**2
    if squared < 1e-6:  # in profile the eyes lie on each other
        return 90.0
    way = ((nose_x - (x0 + x1) / 2) * along_x + (nose_y - (y0 + y1) / 2) * along_y) / (squared / 2)
    return math.degrees(math.atan(way / _NOSE_DEPTH))
