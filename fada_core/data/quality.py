"""Confidence in a clip as ground truth: one number from the scores of its source or preparation.

The paper balances its two losses by data quality, but does not say how quality is measured; this measure is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import FadaError
from ..records import shortened, shown

SPEECH_WINDOW = 320  #: samples: 20 ms at 16 kHz
SPEECH_FLOOR_DB = -45.0  #: of full scale; quieter windows count as silence in any clip
SPEECH_RANGE_DB = 30.0  #: windows this much below the loudest are pauses
SILENT_SHARE = 0.05  #: clips with less speech activity than this count as silent


@dataclass(frozen=True)
class Ramp:
    """Confidence from one score: 1 at `good` and beyond, `least` at `bad` and beyond, linear between the two."""

    good: float
    bad: float
    least: float

    def __call__(self, value: float) -> float:
        towards_bad = (value - self.good) / (self.bad - self.good)
        return 1 - (1 - self.least) * min(1.0, max(0.0, towards_bad))


#: Scores that count, by their names in a manifest. Published thresholds lie within the ramps: LatentSync (arXiv
#: 2412.09262) drops clips with a sync confidence below 3 or a HyperIQA below 40; in Hallo's data (arXiv 2406.08801) the
#: face covers 50 to 70 % of the picture and is turned by less than 30 degrees.
RAMPS: dict[str, Ramp] = {
    "sync_c": Ramp(5.0, 1.5, 0.15),  # confidence of SyncNet
    "offset": Ramp(0.0, 3.0, 0.15),  # frames between picture and sound, in either direction
    "iqa": Ramp(60.0, 30.0, 0.4),  # HyperIQA, 0..100
    "sharpness": Ramp(0.03, 0.01, 0.3),  # see `prepare.measures.light`
    "brightness": Ramp(0.2, 0.05, 0.4),  # mean luma of the face, 0..1
    "face": Ramp(0.3, 0.1, 0.4),  # side of the face's box relative to the picture
    "face_pixels": Ramp(160.0, 48.0, 0.4),  # the same in pixels of the footage, before it was resized
    "yaw": Ramp(30.0, 75.0, 0.4),  # degrees, in either direction
    # The avatars' defects, strengths 0..1 of `avatars.degrade`; noise in decibels below the speech.
    "dark": Ramp(0.0, 1.0, 0.7),
    "blur": Ramp(0.0, 1.0, 0.4),
    "compressed": Ramp(0.0, 1.0, 0.6),
    "lowres": Ramp(0.0, 1.0, 0.5),
    "noise": Ramp(0.0, 1.0, 0.5),
    "audio_noise_db": Ramp(25.0, 5.0, 0.7),
}
_SIGNED = ("offset", "yaw")


def overall(scores: Mapping[str, float | None]) -> float:
    """Confidence 0..1 in a clip as ground truth: the product of the ramps of all known scores.

    It is a product because a good score does not make up for a bad one: sharpness does not correct an offset of three
    frames. Scores that are missing, None or have an unknown name count as good. An entry `overall`, 0..1, replaces all
    other scores.

    Raises:
        FadaError: a score is not a finite number.
    """
    known = {name: value for name, value in scores.items() if value is not None}
    for name, value in known.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise FadaError(
                f"The quality score '{shortened(name)}' is {shown(value)}; give a finite number, or leave it out."
            )
    if "overall" in known:
        return min(1.0, max(0.0, float(known["overall"])))
    values = {name: abs(value) if name in _SIGNED else value for name, value in known.items()}
    return math.prod(RAMPS[name](value) for name, value in values.items() if name in RAMPS)


def speech_activity(waveform: Tensor) -> float:
    """Share of 20 ms windows of (samples,) float at 16 kHz that are loud enough to be speech, 0..1.

    Only the level is measured, so music and noise count as speech.
    """
    windows = waveform[: len(waveform) // SPEECH_WINDOW * SPEECH_WINDOW].view(-1, SPEECH_WINDOW)
    if not len(windows):
        return 0.0
    level = 10 * torch.log10(windows.square().mean(1).clamp(min=1e-12))
    threshold = max(SPEECH_FLOOR_DB, float(level.max()) - SPEECH_RANGE_DB)
    return float((level > threshold).float().mean())
