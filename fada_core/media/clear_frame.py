"""A still picture from a video: its first sharp frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
from PIL import Image

from ..errors import FadaError

LOOKED_AT = 75
"""Number of frames to examine: three seconds of most videos, enough to pass a fade-in or a moving camera (our
choice)."""
_SIDE = 256  #: pixels; frames are compared at this size, where noise and compression have little effect
_AS_CLEAR = 0.7  #: sharpness of a sharp frame, relative to the sharpest one
_DARK, _FLAT = 16, 4  #: mean and standard deviation (of 255) below which a frame counts as black or empty


def first_clear_frame(frames: Iterable[np.ndarray]) -> np.ndarray:
    """The first of the frames (h, w, 3) uint8 that is neither black nor empty, and nearly as sharp as the sharpest.

    Sharpness is the variance of the Laplacian. Where all frames are black or empty, only sharpness counts. At most
    LOOKED_AT frames are held in memory.

    Raises:
        FadaError: there is no frame.
    """
    held = list(islice(iter(frames), LOOKED_AT))
    if not held:
        raise FadaError("The video has no complete frame; give another file.")
    measured = [(frame, *_measure(frame)) for frame in held]
    candidates = [entry for entry in measured if entry[2]] or measured
    enough = _AS_CLEAR * max(sharpness for _, sharpness, _ in candidates)
    return next(frame for frame, sharpness, _ in candidates if sharpness >= enough)


def _measure(frame: np.ndarray) -> tuple[float, bool]:
    """Sharpness of a frame, and whether it is neither black nor empty."""
    small = Image.fromarray(frame).convert("L")
    small.thumbnail((_SIDE, _SIDE))
    grey = np.asarray(small, np.float32)
    laplacian = grey[1:-1, :-2] + grey[1:-1, 2:] + grey[:-2, 1:-1] + grey[2:, 1:-1] - 4 * grey[1:-1, 1:-1]
    return float(laplacian.var()), bool(grey.mean() >= _DARK and grey.std() >= _FLAT)


def after(frames: Iterable[np.ndarray], start: float, fps: float) -> Iterator[np.ndarray]:
    """The frames of a constant rate from `start` (in seconds) on."""
    return islice(iter(frames), round(start * fps), None)
