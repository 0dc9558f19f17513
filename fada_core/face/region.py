"""The region of the face in a portrait: the square around it that the model animates, and the networks' face inputs.

region = find_face(image, detector=load_finder(), required=False)
square = crop(image, region, size=512)
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor

from ..errors import FadaError
from ..media.image import to_square, to_uint8
from .detect import Detector, Face, Points, face_of_box
from .masks import Box, attention_masks, face_picture

log = logging.getLogger("fada.face")

MARGIN = 0.4
"""Room on each side of the face, relative to its longer side: the face then takes 56 % of the square. In Hallo's
training data it is 50 to 70 %."""
MIN_FACE = 16  #: smallest side of a face in pixels
GIVEN, DETECTED, ASSUMED = "given", "detected", "assumed"  #: by a box or mask; by a detector; centre of the picture
_DETECTION_SIDE = 1280  #: pixels; larger pictures are shrunk to this side for detection


@dataclass(frozen=True)
class FaceRegion:
    """The place of a face in a picture, in the picture's own pixels."""

    width: int  #: of the picture
    height: int
    left: int  #: of the animated square, which lies inside the picture
    top: int
    side: int
    face: Box  #: the silhouette, from forehead to chin and from ear to ear
    lips: Box
    points: Points  #: eyes, nose, mouth corners
    source: str = field(default=GIVEN, compare=False)  #: origin of the place: GIVEN, DETECTED or ASSUMED
    faces: tuple[Box, ...] = field(default=(), compare=False)  #: all detected faces, from left to right

    def face_picture(self, size: int) -> Tensor:
        """The face's box in the square, for the face locator: (1, 1, size, size) in 0..1."""
        return face_picture(self.face.shifted(-self.left, -self.top), self.side, self.side, size)

    def attention_masks(self, sides: Sequence[int]) -> list[list[Tensor]]:
        """Masks of the audio attention in the square: masks[level][region], (1, side * side, 1) in 0..1."""
        face, lips = (box.shifted(-self.left, -self.top) for box in (self.face, self.lips))
        return attention_masks(face, lips, self.side, self.side, sides)

    def fits(self, image: Tensor) -> None:
        """Check that `image` (1, 3, h, w) has the size of the picture in which the face was found.

        Raises:
            FadaError: it has another size.
        """
        height, width = image.shape[-2:]
        if (width, height) != (self.width, self.height):
            raise FadaError(
                f"The face was found in a picture of {self.width}x{self.height} pixels, but this one has "
                f"{width}x{height}; use the same picture for both."
            )


def find_face(
    image: Tensor,
    *,
    box: Sequence[float] | None = None,
    mask: Tensor | None = None,
    detector: Detector | None = None,
    index: int = 0,
    required: bool = True,
    margin: float = MARGIN,
) -> FaceRegion:
    """Locate the face: by `box`, else by `mask`, else by `detector`, else assume it in the centre of the picture.

    A face that is cut off by the edge of the picture is reduced to its visible part, and of several faces the largest
    is used unless `index` chooses another; both are logged. Where no face is found and none is required, a warning is
    logged.

    Args:
        image: the portrait, (1, 3, h, w) in -1..1.
        box: x0, y0, x1, y1 of the face, from forehead to chin and from ear to ear, in pixels of the picture.
        mask: (h, w) or (1, h, w), above 0.5 where the face is.
        detector: from `finder.load_finder` or `detect.load_detector`.
        index: number of the detected face, counted from 1 at the left; 0: the largest.
        required: raise an error where `detector` finds no face; False: use the centre of the picture.
        margin: room on each side of the face, relative to its longer side, 0..3. The square is at most as large as the
            picture allows.

    Raises:
        FadaError: no face or fewer than `index`; an invalid or empty box or mask, or one outside the picture; a face
            below 16 pixels; a margin out of range.
    """
    if not 0 <= margin <= 3:
        raise FadaError(f"The margin around the face is {margin:g}; give 0 to 3 times the face's size, usually 0.4.")
    if image.ndim != 4 or image.shape[:2] != (1, 3):
        raise FadaError(f"The portrait has the shape {tuple(image.shape)}; give one RGB picture, (1, 3, h, w).")
    height, width = image.shape[-2:]
    source, found = GIVEN, []
    if box is not None:
        face = face_of_box(_checked(box))
    elif mask is not None:
        face = face_of_box(_bounds(mask, height, width))
    else:
        found = _detected(image, detector) if detector is not None else []
        if not found and detector is not None and required:
            raise FadaError("No face was found in the picture; give its place as a box or mask, or use no detector.")
        if not found and not index:
            if detector is None:
                log.info("Without a face detector, the centre square of the picture is used.")
            else:
                log.warning(
                    "No face was found: the centre square of the picture is used. Give the face's box if it is "
                    "elsewhere."
                )
            return _middle(width, height, margin)
        source = DETECTED
        if not 0 <= index <= len(found):
            raise FadaError(f"There is no face number {index}: {len(found)} found in the picture; choose one of these.")
        if len(found) > 1 and not index:
            log.info("%d faces were found; the largest is used.", len(found))
        largest = max(found, key=lambda candidate: candidate.box.width * candidate.box.height)
        face = found[index - 1] if index else largest
    seen = face.box.clipped(width, height)
    if min(seen.width, seen.height) <= 0:
        raise FadaError(f"The face's box {_text(face.box)} is outside the picture of {width}x{height}; correct it.")
    if min(seen.width, seen.height) < MIN_FACE:
        raise FadaError(f"The face has {seen.width:.0f}x{seen.height:.0f} pixels; at least {MIN_FACE} are needed.")
    if seen != face.box:
        log.info("The face is cut off by the edge of the picture; its visible part is animated.")
    faces = tuple(candidate.box for candidate in found)
    return _region(width, height, face._replace(box=seen), margin, source, faces)


def crop(image: Tensor, region: FaceRegion, size: int) -> Tensor:
    """Crop the region's square from `image` (1, 3, h, w) in -1..1 and resize it to (1, 3, size, size).

    Raises:
        FadaError: the region belongs to a picture of another size.
    """
    region.fits(image)
    left, top, side = region.left, region.top, region.side
    return to_square(image[..., top : top + side, left : left + side], size)


def _region(width: int, height: int, face: Face, margin: float, source: str, faces: tuple[Box, ...]) -> FaceRegion:
    side = min(round(max(face.box.width, face.box.height) * (1 + 2 * margin)), width, height)
    left = min(max(round((face.box.x0 + face.box.x1 - side) / 2), 0), width - side)
    top = min(max(round((face.box.y0 + face.box.y1 - side) / 2), 0), height - side)
    return FaceRegion(width, height, left, top, side, *face, source, faces)


def _middle(width: int, height: int, margin: float) -> FaceRegion:
    """The largest square in the centre, with a face that leaves `margin` on each side."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    room = side * margin / (1 + 2 * margin)
    face = face_of_box(Box(left + room, top + room, left + side - room, top + side - room))
    return FaceRegion(width, height, left, top, side, *face, ASSUMED)


def _checked(box: Sequence[float]) -> Box:
    if len(box) != 4 or not (box[0] < box[2] and box[1] < box[3]):  # also false for NaN
        raise FadaError(f"{_text(box)} is not a box; give four numbers, left, top, right and bottom, in pixels.")
    return Box(*box)


def _text(box: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in box)


def _bounds(mask: Tensor, height: int, width: int) -> Box:
    """Bounding box of the pixels above one half. Raises `FadaError` for an empty mask and for one of another size."""
    where = mask.reshape(mask.shape[-2:]) > 0.5
    if not where.any():  # checked before the size, because loaders give a small empty mask for a picture without alpha
        raise FadaError("The mask of the face is empty; paint the face, or leave the mask out.")
    if where.shape != (height, width):
        raise FadaError(
            f"The mask has {where.shape[1]}x{where.shape[0]} pixels, the picture {width}x{height}; make them equal."
        )
    rows, columns = (where.any(axis).nonzero()[:, 0].tolist() for axis in (1, 0))
    return Box(columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)


def _detected(image: Tensor, detector: Detector) -> list[Face]:
    """Faces in the picture, from left to right, detected in a copy of at most _DETECTION_SIDE pixels."""
    height, width = image.shape[-2:]
    scale = min(1.0, _DETECTION_SIDE / max(height, width))
    if scale < 1:
        small = max(round(height * scale), 1), max(round(width * scale), 1)
        image = F.interpolate(image.float(), small, mode="bilinear", antialias=True)
    x, y = width / image.shape[-1], height / image.shape[-2]
    faces = [
        Face(face.box.scaled(x, y), face.lips.scaled(x, y), tuple((px * x, py * y) for px, py in face.points))
        for face in detector(to_uint8(image)[0].numpy())
    ]
    return sorted(faces, key=lambda face: face.box.x0)
