"""The picture that stands for a video: the first one that is as clear as its beginning has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
from PIL import Image

from ..errors import FadaError

LOOKED_AT = 75
"""Frames from the beginning: three seconds of most videos, enough to be past a fade-in or a moving camera (our
choice)."""
_SIDE = 256  #: pixels; frames are compared at this size, where noise and compression hardly count
_AS_CLEAR = 0.7  #: of the sharpest frame's sharpness
_DARK, _FLAT = 16, 4  #: mean and standard deviation of bytes below which there is nothing to see


def first_clear_frame(frames: Iterable[np.ndarray]) -> np.ndarray:
    """The first of the frames (h, w, 3) uint8 that is neither black nor empty nor blurred beside those around it.

    Sharpness is the variance of the Laplacian. Where all frames are dark or flat, the sharpest. Two passes over at most
    LOOKED_AT frames, which are held meanwhile.

    Raises:
        FadaError: there is no frame.
    """
    held = list(islice(iter(frames), LOOKED_AT))
    if not held:
        raise FadaError("The video has no whole picture in it; give another file.")
    measured = [(frame, *_measure(frame)) for frame in held]
    candidates = [entry for entry in measured if entry[2]] or measured
    enough = _AS_CLEAR * max(sharpness for _, sharpness, _ in candidates)
    return next(frame for frame, sharpness, _ in candidates if sharpness >= enough)


def _measure(frame: np.ndarray) -> tuple[float, bool]:
    """Sharpness, and whether there is anything to see."""
    small = Image.fromarray(frame).convert("L")
    small.thumbnail((_SIDE, _SIDE))
    grey = np.asarray(small, np.float32)
    laplacian = grey[1:-1, :-2] + grey[1:-1, 2:] + grey[:-2, 1:-1] + grey[2:, 1:-1] - 4 * grey[1:-1, 1:-1]
    return float(laplacian.var()), bool(grey.mean() >= _DARK and grey.std() >= _FLAT)


def after(frames: Iterable[np.ndarray], start: float, fps: float) -> Iterator[np.ndarray]:
    """The frames of a constant rate from `start`, in seconds, on."""
    return islice(iter(frames), round(start * fps), None)
