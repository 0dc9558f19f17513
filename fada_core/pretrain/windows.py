"""The face finder's training pictures: stills of people at random positions, sizes and angles on other pictures.

Points and boxes are in pixels from the upper left corner of the picture. A matrix (3, 3) maps a still's pixels to the
picture's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..face.finder import CROP, SILHOUETTE, TEMPLATE, WINDOW, five_points, similarity
from .disturb import disturbed, retouched
from .stills import Still, StillSet

SMALLEST, LARGEST = 20.0, 112.0  #: range of the longer side of a face's box in a window, in pixels
MIRRORED = np.array(
    [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46, 39, 38, 37, 36]
    + [41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65, 70, 69, 68]
)
"""Indices of the points that become the points 0 .. 70 when the picture is mirrored."""
_FACES = (0.25, 0.55, 0.12, 0.08)  # shares of windows with 0, 1, 2 and 3 people
_TILT = 48.0  # largest rotation in degrees
_CROPS = ("face", "askew", "nobody", "nothing")  # askew: a misplaced face; nobody: a person without a visible face
_CROP_SHARES = (0.5, 0.15, 0.2, 0.15)
_NOBODY = np.zeros((0, 71, 2), np.float32)


@dataclass(frozen=True)
class Window:
    """`picture` (128, 128, 3) uint8; `points` (n, 71, 2) of its faces; `counts` (n,) bool: whether a face is visible
    enough to be a positive example. The others are ignored in the loss."""

    picture: np.ndarray
    points: np.ndarray
    counts: np.ndarray


def box(points: np.ndarray) -> np.ndarray:
    """Left, top, right and bottom (..., 4) of the silhouettes of faces (..., 71, 2)."""
    edge = points[..., SILHOUETTE, :]
    return np.concatenate([edge.min(-2), edge.max(-2)], -1)


@dataclass(frozen=True)
class Windows:
    """Draws training pictures from `stills`, and from pictures without faces, `others` (n, s, s, 3) uint8."""

    stills: StillSet
    others: np.ndarray

    def window(self, rng: np.random.Generator) -> Window:
        """A training picture of the first network, with up to three faces."""
        picture, points, counts = self._behind(WINDOW, rng), _NOBODY, np.zeros(0, bool)
        if rng.random() < 0.2:
            self._faceless(picture, rng)
        several = rng.choice(len(_FACES), p=_FACES)
        for _ in range(several):
            still = self._still(rng)
            size = np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST if several == 1 else LARGEST / 2.5)))
            placed = self._placed(still, size / _longer(still.points), points, rng)
            if placed is None:
                continue
            matrix, mine = placed
            covered = paste(picture, still, matrix, rng)
            for n, (x0, y0, x1, y1) in enumerate(box(points).round().astype(int).clip(0, WINDOW)):
                counts[n] &= covered[y0:y1, x0:x1].mean() < 0.25
            points, counts = np.concatenate([points, mine[None]]), np.append(counts, _seen(box(mine)) > 0.7)
        if len(points) and rng.random() < 0.15:
            self._occlude(picture, box(points[rng.integers(len(points))]), rng)
        return Window(disturbed(picture, rng), points, counts)

    def empty(self, rng: np.random.Generator) -> np.ndarray:
        """A training picture of the first network without faces, (128, 128, 3) uint8."""
        picture = self._behind(WINDOW, rng)
        if rng.random() < 0.5:
            self._faceless(picture, rng)
        return disturbed(picture, rng)

    def crop(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, bool]:
        """A training picture (96, 96, 3) uint8 of the second network, the points (71, 2) of its face, zeros if it shows
        none, and whether it is a positive example."""
        picture = self._behind(CROP, rng)
        kind = _CROPS[rng.choice(len(_CROPS), p=_CROP_SHARES)]
        if kind == "nobody":
            self._faceless(picture, rng)
        if kind in ("nobody", "nothing"):
            return disturbed(picture, rng), np.zeros((71, 2), np.float32), False
        still = self._still(rng)
        # Random errors, as in the five points that the first network predicts.
        found = five_points(still.points) + rng.normal(0, 0.03, (5, 2)) * _longer(still.points)
        matrix = similarity(found, (np.array(TEMPLATE) + 0.5) * CROP)
        matrix = _about(CROP / 2, rng.uniform(-12, 12), np.exp(rng.uniform(-0.2, 0.2))) @ matrix
        if kind == "askew":
            matrix = _askew(rng) @ matrix
        mirrored = rng.random() < 0.5
        if mirrored:
            matrix = np.array([[-1, 0, CROP], [0, 1, 0], [0, 0, 1]]) @ matrix
        points = _moved(still.points, matrix)[MIRRORED if mirrored else slice(None)]
        paste(picture, still, matrix, rng)
        if rng.random() < 0.15:
            self._occlude(picture, box(points), rng)
        if rng.random() < 0.4:  # low resolution, as of a small face
            side = round(CROP / rng.uniform(1, 5))
            small = Image.fromarray(picture).resize((side, side), Image.Resampling.BOX)
            picture = np.asarray(small.resize((CROP, CROP), Image.Resampling.BILINEAR))
        return disturbed(picture, rng), points, kind == "face"

    def _still(self, rng: np.random.Generator) -> Still:
        return self.stills[int(rng.integers(len(self.stills)))]

    def _behind(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """A background without faces, (size, size, 3) uint8: one colour, or a scaled and rotated part of `others`."""
        if rng.random() < 0.2:
            return np.broadcast_to(rng.integers(0, 256, 3).astype(np.uint8), (size, size, 3)).copy()
        other = self.others[rng.integers(len(self.others))]
        side = round(len(other) * np.exp(rng.uniform(np.log(0.25), 0)))
        x, y = rng.integers(0, len(other) - side + 1, 2)
        part = Image.fromarray(np.rot90(other[y : y + side, x : x + side], rng.integers(4)))
        return np.array(part.resize((size, size), Image.Resampling.BILINEAR))

    def _placed(
        self, still: Still, scale: float, taken: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """A random matrix for a still, and the still's points (71, 2) in the window; None if six tries in a row overlap
        with the faces `taken` (n, 71, 2)."""
        for _ in range(6):
            turn = rng.uniform(-_TILT, _TILT) if rng.random() < 0.5 else rng.normal(0, 7)
            mirrored = rng.random() < 0.5
            matrix = _about(0, turn, scale) @ np.diag([-1.0 if mirrored else 1.0, 1.0, 1.0])
            points = _moved(still.points, matrix)[MIRRORED if mirrored else slice(None)]
            x0, y0, x1, y1 = box(points)
            # The box's centre keeps this distance from the edges, so up to a tenth of the sides is outside.
            margin = 0.4 * np.array([x1 - x0, y1 - y0])
            low, high = np.minimum(margin, WINDOW / 2), np.maximum(WINDOW - margin, WINDOW / 2)
            shift = rng.uniform(low, high) - np.array([x0 + x1, y0 + y1]) / 2
            matrix[:2, 2] += shift
            points = (points + shift).astype(np.float32)
            if all(_shared(each, box(points)) == 0 for each in box(taken)):
                return matrix, points
        return None

    def _faceless(self, picture: np.ndarray, rng: np.random.Generator) -> None:
        """Paste a person whose face is scrambled, or beyond the picture's edge, so that hair, neck or clothes show."""
        still, size = self._still(rng), len(picture)
        scale = size / len(still.picture) * np.exp(rng.uniform(np.log(0.4), np.log(2.5)))
        matrix = _about(0, rng.uniform(-40, 40), scale)
        middle, target = _moved(still.points, matrix).mean(0), rng.uniform(0, size, 2)
        if rng.random() < 0.35:
            still = _disordered(still, rng)
        else:  # the face is beyond one edge, close enough for other parts of the person to remain inside
            beyond = scale * _longer(still.points) * rng.uniform(0.65, 1.2)
            target[rng.integers(2)] = rng.choice([-beyond, size + beyond])
        matrix[:2, 2] += target - middle
        paste(picture, still, matrix, rng)

    def _occlude(self, picture: np.ndarray, where: np.ndarray, rng: np.random.Generator) -> None:
        """Cover a part of the box `where` (4,) with a piece of background."""
        size = where[2:] - where[:2]
        low = where[:2] + rng.uniform(-0.2, 0.9, 2) * size
        corners = np.concatenate([low, low + rng.uniform(0.1, 0.4, 2) * size])
        x0, y0, x1, y1 = corners.round().astype(int).clip(0, len(picture))
        picture[y0:y1, x0:x1] = self._behind(len(picture), rng)[y0:y1, x0:x1]


def paste(picture: np.ndarray, still: Still, matrix: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Paste a still into `picture` (s, s, 3) uint8, in place: the person only, or the whole still.

    Returns a mask (s, s) bool of the pasted pixels.
    """
    shown = still.person if rng.random() < 0.5 else np.ones_like(still.person)
    layer = Image.fromarray(np.dstack([retouched(still.picture, rng), shown * np.uint8(255)]))
    factor = max(1, int(1 / np.hypot(*matrix[:2, 0])))
    if factor > 1:
        layer = layer.reduce(factor)
        matrix = matrix @ np.diag([factor, factor, 1.0])
    inverse = np.linalg.inv(matrix)[:2].ravel().tolist()
    size = len(picture)
    layer = layer.transform((size, size), Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR)
    placed = np.asarray(layer)
    alpha = placed[..., 3:].astype(np.float32) / 255
    picture[:] = (picture + alpha * (placed[..., :3] - picture.astype(np.float32))).astype(np.uint8)
    return placed[..., 3] > 127


def _disordered(still: Still, rng: np.random.Generator) -> Still:
    """The still with the tiles of the face's box shuffled: it has the parts of a face, but is none."""
    x0, y0, x1, y1 = box(still.points).round().astype(int).clip(0, len(still.picture))
    parts = int(rng.integers(3, 6))
    height, width = (y1 - y0) // parts, (x1 - x0) // parts
    picture = still.picture.copy()
    for target, source in enumerate(rng.permutation(parts * parts)):
        (ty, tx), (sy, sx) = divmod(target, parts), divmod(int(source), parts)
        from_y, from_x = y0 + sy * height, x0 + sx * width
        tile = still.picture[from_y : from_y + height, from_x : from_x + width]
        picture[y0 + ty * height :, x0 + tx * width :][:height, :width] = tile[:: rng.choice([-1, 1])]
    return Still(picture, still.person, still.points)


def _askew(rng: np.random.Generator) -> np.ndarray:
    """A matrix that moves a crop's face far off its centre, makes it much too small or large, or turns it over."""
    kind = rng.integers(4)
    if kind == 2:
        return _about(CROP / 2, 0, np.exp(rng.choice([-1, 1]) * rng.uniform(np.log(2.2), np.log(4))))
    if kind == 3:
        return _about(CROP / 2, rng.uniform(90, 270), 1)
    matrix, angle = np.eye(3), rng.uniform(0, 2 * np.pi)
    matrix[:2, 2] = CROP * rng.uniform(0.5, 1.0) * np.array([np.cos(angle), np.sin(angle)])
    return matrix


def _about(middle: float, degrees: float, scale: float) -> np.ndarray:
    """The matrix (3, 3) that rotates and scales about the point (middle, middle)."""
    turn = scale * np.exp(1j * np.radians(degrees))
    shift = middle * (1 + 1j) * (1 - turn)
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag], [0, 0, 1]])


def _moved(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points (n, 2), transformed."""
    return (points @ matrix[:2, :2].T + matrix[:2, 2]).astype(np.float32)


def _longer(points: np.ndarray) -> float:
    """The longer side in pixels of a face's box."""
    x0, y0, x1, y1 = box(points)
    return float(max(x1 - x0, y1 - y0))


def _shared(first: np.ndarray, second: np.ndarray) -> float:
    """Area of the intersection of two boxes (4,)."""
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    return float((high - low).clip(0).prod())


def _seen(where: np.ndarray) -> float:
    """Share of a box's area inside the window, 0..1."""
    return _shared(where, np.array([0, 0, WINDOW, WINDOW])) / float((where[2:] - where[:2]).prod())
