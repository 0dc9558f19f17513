"""Measures of a clip, and the thresholds that decide its pool."""

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

_SHARPNESS_SIDE = 256  # pixels to which a clip's square is resized, because sharpness depends on scale
_NOSE_DEPTH = 1.27  # of the nose tip in front of the eyes, in half distances of the eyes (mediapipe's canonical face)
_LUMA = (0.299, 0.587, 0.114)  # BT.601


@dataclass(frozen=True)
class Thresholds:
    """Limits of a clip's scores for the high pool, and for any pool; unknown scores are not tested."""

    sync_c: float = 3.0
    """Smallest confidence of SyncNet in the high pool (LatentSync drops clips below 3)."""
    sync_c_least: float = 1.5
    """Smallest confidence of SyncNet in any pool; sound that is not the speaker's is below it."""
    offset: float = 1.0
    """Largest offset in frames between picture and sound in the high pool, in either direction."""
    yaw: float = 30.0
    """Largest yaw in degrees in the high pool, in either direction (Hallo's data: below 30)."""
    face: float = 0.3
    """Smallest side of the face in the high pool, relative to the picture; heads that move a lot need a wide crop."""
    face_pixels: float = 160.0
    """Smallest side of the face in the high pool, in pixels of the footage."""
    face_pixels_least: float = 64.0
    """Smallest side of the face in any pool, in pixels of the footage."""
    sharpness: float = 0.03
    """Smallest sharpness in the high pool: standard deviation of the Laplacian. In 8-bit values its square is 58, a
    common limit for blur."""
    brightness: float = 0.15
    """Smallest mean luma of the face in the high pool, 0..1."""
    speech: float = 0.2
    """Smallest share of time with sound as loud as speech in the high pool."""

    def pool(self, scores: Mapping[str, float]) -> tuple[Pool | None, str]:
        """The pool of a clip, or None for no pool, and the reason why it is not in a better one ("" for high)."""
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
    """`sharpness` and `brightness` of the face, or of the whole picture without one, in a picture (3, s, s) in -1..1.

    Brightness is the mean luma, 0..1. Sharpness is the standard deviation of its Laplacian, with the picture resized to
    256 pixels: 0 is blurred, 0.1 very sharp.
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
    """Yaw of a face in degrees from eyes and nose tip; positive towards the right of the picture.

    After a rotation by an angle a, eyes at x = -1 and 1 are 2 cos(a) apart, and a nose tip at a distance d in front of
    their centre has moved by d sin(a). So the shift of the nose along the line of the eyes, divided by half their
    distance, is d tan(a).
    """
    (x0, y0), (x1, y1), (nose_x, nose_y) = points[:3]
    along_x, along_y = x1 - x0, y1 - y0
    squared = along_x**2 + along_y**2
    if squared < 1e-6:  # in profile both eyes are at the same place
        return 90.0
    way = ((nose_x - (x0 + x1) / 2) * along_x + (nose_y - (y0 + y1) / 2) * along_y) / (squared / 2)
    return math.degrees(math.atan(way / _NOSE_DEPTH))
