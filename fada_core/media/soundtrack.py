"""The original sound of a recording for the video: at its own rate, mono or stereo, read while the video is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import soxr
import torch
from torch import Tensor

from .audio import SAMPLE_RATE, Recording, as_planes, blocks, channel_names, front, full_scale
from .containers import decoded, opened


@dataclass(frozen=True)
class Soundtrack:
    """Sound in pieces, of which one is in memory at a time; it can be read once."""

    rate: int  #: Hz
    channels: int  #: 1 or 2
    pieces: Iterator[np.ndarray]  #: (samples, channels) float32, within -1..1


def soundtrack(recording: Recording) -> Soundtrack:
    """The original sound of a recording from its `start` on; more than two channels are mixed to stereo (ITU-R BS.775).

    Raises:
        FadaError: the file is missing or has changed, and can no longer be read.
    """
    planes = _planes(recording)
    rate, first = next(planes, (SAMPLE_RATE, np.zeros((1, 0), np.float32)))  # there may be none after `start`
    return Soundtrack(rate, len(first), (piece.T for _, piece in chain([(rate, first)], planes)))


def _planes(recording: Recording) -> Iterator[tuple[int, np.ndarray]]:
    """Pieces as (rate, (channels, samples)); a recording that changes its rate is resampled to the first one."""
    name, rate, channels, skip = f"'{recording.path.name}'", 0, 0, 0
    resampler, now = None, 0
    with opened(recording.path, name, "sound") as container:
        for planes, found, names in blocks(decoded(container, "sound", name, tell=False), name):
            piece = front(planes, names) * np.float32(recording.gain)
            if not rate:
                rate, channels, skip = found, len(piece), round(recording.start * found)
            if len(piece) != channels:
                piece = piece.mean(0, keepdims=True) if channels == 1 else np.repeat(piece, 2, 0)
            if found != now:
                resampler = None if found == rate else soxr.ResampleStream(found, rate, channels, dtype="float32")
                now = found
            if resampler is not None:
                piece = resampler.resample_chunk(np.ascontiguousarray(piece.T)).reshape(-1, channels).T
            piece, skip = piece[:, skip:], max(0, skip - piece.shape[1])
            if piece.shape[1]:
                yield rate, piece.clip(-1, 1)


def playable(waveform: Tensor, sample_rate: int) -> Tensor:
    """Convert a waveform as for `from_waveform` to (1 or 2 channels, samples) float32 in -1..1 at the same rate."""
    planes = as_planes(waveform, sample_rate)
    mixed = front(planes, channel_names(len(planes))) / full_scale(float(np.abs(planes).max()), "The audio")
    return torch.from_numpy(mixed / max(1.0, float(np.abs(mixed).max())))
