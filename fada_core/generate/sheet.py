"""The contact sheet: one picture of frames from the whole video, collected while the video is made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from ..errors import FadaError
from ..media.image import to_uint8
from ..media.video import contact_sheet

SHEET_COLUMNS, SHEET_ROWS = 6, 3
SHEETS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


class Sheet:
    """Collects the portrait's square and frames evenly spaced over the video for one picture.

    Args:
        portrait: (1, 3, size, size) in -1..1.
        frames: number of frames of the video.
    """

    def __init__(self, portrait: Tensor, frames: int) -> None:
        count = min(frames, SHEET_COLUMNS * SHEET_ROWS - 1)
        self._wanted = set(np.linspace(0, frames - 1, count).round().astype(int).tolist())
        self._seen = 0
        self._tiles = [to_uint8(portrait)[0].numpy()]

    def add(self, frames: Tensor) -> None:
        """Add the next frames of the video, (n, size, size, 3) uint8; those for the sheet are kept."""
        self._tiles += [frame.numpy().copy() for i, frame in enumerate(frames, self._seen) if i in self._wanted]
        self._seen += len(frames)

    def save(self, path: Path) -> None:
        try:
            contact_sheet(self._tiles, SHEET_COLUMNS, path)
        except OSError as error:
            raise FadaError(f"'{path}' cannot be written ({error.strerror}); choose another place.") from error
