"""Ground truth of a rendered frame: 68 landmarks, masks and boxes.

Landmarks are vertices of the base mesh, picked by hand, in iBUG's order: 0-16 jaw, 17-26 brows, 27-35 nose, 36-47 eyes,
48-59 outer lips, 60-67 inner lips, each from the viewer's left. The inner lips are the ring where closed lips touch.
"""

from functools import cache

import numpy as np

from ..errors import FadaError
from . import assets
from .head import Posed
from .light import Camera
from .mesh import Part

# Vertices of hm08 for the landmarks in the middle and in the person's left half (the viewer's right).
JAW = (11898, 7624, 7462, 7460, 7459, 7614, 12349, 12045)  # from the chin to the ear
CHIN, BROW = 5296, (7006, 7003, 7002, 7004, 7005)
BRIDGE, SEPTUM, NOSTRIL = (132, 131, 201, 297), 317, (7077, 7096)
EYE = (7795, 7791, 7775, 7781, 7785, 7788)  # inner corner, upper lid, outer corner, lower lid
LIP_TOP, LIP_UPPER, LIP_CORNER, LIP_LOWER, LIP_BOTTOM = 455, (7215, 7170), 10405, (7166, 7241), 492
INNER_TOP, INNER_UPPER, INNER_CORNER, INNER_LOWER, INNER_BOTTOM = 474, 11964, 7191, 7236, 493


@cache
def vertices() -> np.ndarray:
    """Base vertices (68,) int of the landmarks."""
    data = assets.load()
    left = data.rows

    def right(numbers: tuple[int, ...]) -> list[int]:
        return data.mirror[left(numbers)].tolist()

    points = right(JAW[::-1]) + left((CHIN,)) + left(JAW)
    points += right(BROW[::-1]) + left(BROW)
    points += left(BRIDGE) + right(NOSTRIL[::-1]) + left((SEPTUM,)) + left(NOSTRIL)
    inner, upper_in, upper_out, outer, lower_out, lower_in = EYE
    points += right((outer, upper_out, upper_in, inner, lower_in, lower_out)) + left(EYE)
    points += right((LIP_CORNER, *LIP_UPPER[::-1])) + left((LIP_TOP, *LIP_UPPER, LIP_CORNER, *LIP_LOWER))
    points += left((LIP_BOTTOM,)) + right(LIP_LOWER[::-1])
    points += right((INNER_CORNER, INNER_UPPER)) + left((INNER_TOP, INNER_UPPER, INNER_CORNER, INNER_LOWER))
    points += left((INNER_BOTTOM,)) + right((INNER_LOWER,))
    return np.array(points)


def project(points: np.ndarray, camera: Camera, size: int) -> np.ndarray:
    """World points (n, 3) -> pixels (n, 2) of a picture of `size`: x to the right, y down, 0 at the edge."""
    view = camera.view()
    seen = points @ view[:, :3].T + view[:, 3]
    return size / 2 + camera.focal(size) * np.stack([seen[:, 0], -seen[:, 1]], 1) / -seen[:, 2:]


def landmarks(posed: Posed, camera: Camera, size: int) -> np.ndarray:
    """Landmarks (68, 2) float32 in pixels of a picture of `size`."""
    return project(posed.vertices[vertices()], camera, size).astype(np.float32)


MASKS = {
    "face": (Part.SKIN, Part.LIPS, Part.MOUTH, Part.TEETH, Part.TONGUE, Part.EYES, Part.BROW, Part.LASH, Part.BEARD),
    "mouth": (Part.LIPS, Part.MOUTH, Part.TEETH, Part.TONGUE),
    "lips": (Part.LIPS,),
    "eyes": (Part.EYES, Part.LASH),
    "hair": (Part.HAIR,),
}


def mask(parts: np.ndarray, name: str) -> np.ndarray:
    """Mask (s, s) bool of the pixels in a frame's parts (s, s) that belong to `name`, one of `MASKS`.

    "face" includes all visible skin. Raises `FadaError` for an unknown name.
    """
    if name not in MASKS:
        raise FadaError(f"There is no mask {name!r}; choose one of {', '.join(MASKS)}.")
    return np.isin(parts, MASKS[name])


def hair_box(parts: np.ndarray) -> tuple[float, float, float, float]:
    """Box (left, top, right, bottom) in pixels of the hair in a frame's parts (s, s); zeros where there is none."""
    rows, columns = (np.flatnonzero(mask(parts, "hair").any(axis)) for axis in (1, 0))
    if not len(rows):
        return (0.0, 0.0, 0.0, 0.0)
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def boxes(points: np.ndarray, margin: float = 0.0) -> dict[str, tuple[float, float, float, float]]:
    """Boxes (left, top, right, bottom) in pixels of "face", "mouth" and "eyes" from landmarks (68, 2).

    The face's box reaches from the chin to half the length of the nose above the brows. Each box is extended on every
    side by `margin` times its size.
    """
    out = {}
    for name, part in (("face", points), ("mouth", points[48:68]), ("eyes", points[36:48])):
        low, high = part.min(0), part.max(0)
        if name == "face":
            low = low - [0, 0.5 * abs(points[33, 1] - points[27, 1])]
        wide = (high - low) * margin
        (left, top), (right, bottom) = (low - wide).tolist(), (high + wide).tolist()
        out[name] = left, top, right, bottom
    return out
