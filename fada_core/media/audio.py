"""Sound in: any file or waveform as mono float samples at 16 kHz, which is what the networks hear.

Channels are mixed as ITU-R BS.775 says, for speech that may be anywhere among them; integers that were stored as
floating-point numbers are recognised.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soxr  # librosa's resampler; used directly because librosa only takes a whole recording at once
import torch
from torch import Tensor

from ..errors import FadaError
from .containers import MAX_RATE, MIN_RATE, decoded, existing_file, opened

log = logging.getLogger("fada.media")

SAMPLE_RATE = 16000
MAX_HOURS = 6.0  #: of sound that is taken at once: 1.4 GB
LOUD = 8.0  #: times full scale: beyond, samples are integers in floating-point clothes
_LOST = 0.3  #: power of the mix, as a part of the loudest channel's, below which speech was lost in the mixing
_SQUARE_HALF = 0.5**0.5
# ITU-R BS.775-3, annex 4, table 2, the row for mono; the bass channel is not part of any mix.
_MONO = {"FC": 1.0, "FL": _SQUARE_HALF, "FR": _SQUARE_HALF, "FLC": _SQUARE_HALF, "FRC": _SQUARE_HALF}
_BASS = ("LFE", "LFE2")
_AROUND = 0.5  # every other channel
_NAMES = {
    3: ("FL", "FR", "LFE"),
    4: ("FL", "FR", "FC", "BC"),
    5: ("FL", "FR", "FC", "BL", "BR"),
    6: ("FL", "FR", "FC", "LFE", "BL", "BR"),
    7: ("FL", "FR", "FC", "LFE", "BC", "SL", "SR"),
    8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}
"""Channels by their number, where a recording does not say: FFmpeg's defaults, WAVE's order."""


@dataclass(frozen=True)
class Recording:
    """A part of a recording as the networks hear it, and what its own sound needs to be played: see `soundtrack`."""

    samples: Tensor  #: (samples,) float32, mono, 16 kHz
    path: Path
    start: float  #: seconds
    gain: float  #: that brings the recording's own samples to full scale or below


def load_audio(path: str | Path, start: float = 0.0, duration: float | None = None) -> Tensor:
    """The first sound stream of a sound or video file, (samples,) float32 mono at 16 kHz.

    Stereo is averaged, more channels are mixed as ITU-R BS.775 says; where the mix loses what one channel has (speech
    on one side only, or in opposite phase), that channel alone is taken. Pieces that are damaged are left out.

    Decoded and resampled block by block, so memory is that of the result (230 MB an hour). What lies before `start` is
    decoded and dropped rather than sought, because files without an index (MP3, ADTS) only guess where a time is.

    Args:
        start: seconds from the beginning of the stream, at least 0.
        duration: seconds, above 0; None, or more than there is: up to the end.

    Raises:
        FadaError: no such file, not readable as sound, no sound stream, no samples (or none after `start`), values that
            are not finite, more than 6 hours, or `start` or `duration` out of range.
    """
    return load_recording(path, start, duration).samples


def load_recording(path: str | Path, start: float = 0.0, duration: float | None = None) -> Recording:
    """As `load_audio`, with what it takes to play the recording's own sound."""
    if not 0 <= start < np.inf:
        raise FadaError(f"start is {start:g} s; give 0 or more seconds.")
    if duration is not None and not 0 < duration < np.inf:
        raise FadaError(f"duration is {duration:g} s; give more than 0 seconds, or leave it out for all.")
    path = existing_file(path, "a sound or video file")
    heard = _hear(path, start, duration, None)
    if not len(heard.samples):
        raise FadaError(f"'{path.name}' is empty; give at least a moment of sound.")
    if heard.power < _LOST * heard.powers.max(initial=0.0):
        loudest = int(heard.powers.argmax())
        log.info("'%s' has its sound in channel %d; that one alone is heard.", path.name, loudest + 1)
        heard = _hear(path, start, duration, loudest)
    if not np.isfinite(heard.samples).all():
        raise FadaError(f"'{path.name}' has samples that are not numbers (NaN or infinite); export it again.")
    scale = full_scale(heard.peak, f"'{path.name}'")
    if scale != 1:
        heard.samples *= 1 / scale
    if (peak := heard.peak / scale) > 1:
        log.info("'%s' is %.1f times as loud as a file can be; its sound is turned down.", path.name, peak)
    return Recording(torch.from_numpy(heard.samples), path, start, 1 / (scale * max(peak, 1.0)))


def from_waveform(waveform: Tensor, sample_rate: int) -> Tensor:
    """A waveform in memory as (samples,) float32 mono at 16 kHz, on the CPU; mixed as `load_audio` does.

    Args:
        waveform: (samples,), (channels, samples) or (1, channels, samples); float, or integers of which the type's
            range is full scale.
        sample_rate: of `waveform`, Hz, 1000 to 1000000.

    Raises:
        FadaError: several recordings in one batch, no samples, samples before channels, an impossible rate, or values
            that are not finite.
    """
    planes = as_planes(waveform, sample_rate)
    weights = mono_weights(channel_names(len(planes)))
    samples = weights @ planes
    powers = np.square(planes, dtype=np.float64).sum(1) * (weights > 0)
    if np.square(samples, dtype=np.float64).sum() < _LOST * powers.max():
        samples = planes[powers.argmax()]
    samples = samples / full_scale(float(np.abs(planes).max()), "The audio")
    return torch.from_numpy(soxr.resample(samples.astype(np.float32), sample_rate, SAMPLE_RATE))


def checked_speech(audio: Tensor) -> Tensor:
    """Speech in memory, if it is (samples,) float with 1 as full scale, not necessarily below it.

    Raises:
        FadaError: another shape or number type, no samples, values that are not finite, or integers' values.
    """
    if audio.ndim != 1:
        raise FadaError(f"The audio has the shape {tuple(audio.shape)}; give mono samples, (samples,).")
    if not len(audio):
        raise FadaError("The audio is empty, which makes 0 frames; give at least one sample.")
    if not audio.is_floating_point():
        kind = str(audio.dtype).removeprefix("torch.")
        raise FadaError(f"The audio has samples of the type {kind}; give floats in -1..1, by from_waveform, say.")
    if not audio.isfinite().all():
        raise FadaError("The audio has values that are not finite (NaN); check where they come from.")
    if (peak := float(audio.abs().max())) > LOUD:
        raise FadaError(f"The audio has samples up to {peak:g}; scale them to -1..1, by from_waveform, say.")
    return audio


def as_planes(waveform: Tensor, sample_rate: int) -> np.ndarray:
    """A waveform, as for `from_waveform`, as (channels, samples) float32, checked."""
    if waveform.ndim > 3 or (waveform.ndim == 3 and len(waveform) != 1):
        raise FadaError(f"The audio has the shape {tuple(waveform.shape)}; give one recording, not a batch of them.")
    if not waveform.numel():
        raise FadaError("The audio is empty; give at least a moment of sound.")
    if not MIN_RATE <= sample_rate <= MAX_RATE:
        raise FadaError(f"The audio has {sample_rate:g} samples a second; give {MIN_RATE} to {MAX_RATE}.")
    planes = waveform.detach().cpu().reshape(-1, waveform.shape[-1])
    if len(planes) > max(16, planes.shape[-1]):
        raise FadaError(f"The audio has the shape {tuple(waveform.shape)}; give channels before samples.")
    if planes.dtype == torch.uint8:  # silence in the middle
        planes = (planes.float() - 128) / 128
    elif not planes.is_floating_point():
        planes = planes.float() / -float(torch.iinfo(planes.dtype).min)
    if not planes.isfinite().all():
        raise FadaError("The audio has samples that are not numbers (NaN or infinite); check where they come from.")
    return planes.float().numpy()


def full_scale(peak: float, name: str) -> float:
    """The value that is full scale in a recording whose loudest sample is `peak`: 1, or that of integers.

    It is logged, and so are samples that fit no integer: these are brought down to full scale.
    """
    if not peak > LOUD:
        return 1.0
    found = next((float(limit) for limit in (2**15, 2**23, 2**31) if peak <= limit), peak)
    log.warning("%s has samples up to %.6g, where 1 is full scale; %.10g is taken for it.", name, peak, found)
    return found


def mono_weights(names: Sequence[str]) -> np.ndarray:
    """Of each channel in the mix for the networks, (channels,) float32."""
    if len(names) == 1:
        return np.ones(1, np.float32)
    if len(names) == 2:  # BS.775's, 3 dB lower, so that equal channels sound as one
        return np.full(2, 0.5, np.float32)
    return np.array([0.0 if name in _BASS else _MONO.get(name, _AROUND) for name in names], np.float32)


def blocks(frames: Iterable[av.AudioFrame], name: str) -> Iterator[tuple[np.ndarray, int, tuple[str, ...]]]:
    """Decoded sound as (channels, samples) float32, with its rate and its channels' names, which may change."""
    to_float, kind = None, None
    for frame in frames:
        found = frame.sample_rate, frame.layout.name, frame.format.name
        if not MIN_RATE <= frame.sample_rate <= MAX_RATE:
            raise FadaError(f"{name} claims {frame.sample_rate} samples a second, which cannot be; export it again.")
        if found != kind:
            to_float, kind = av.AudioResampler(format="flt"), found
        for converted in to_float.resample(frame):
            names = tuple(channel.name for channel in converted.layout.channels)
            # Not as planes, of which FFmpeg keeps those beyond the eighth where PyAV does not look.
            planes = converted.to_ndarray().reshape(-1, len(names)).T
            yield planes, frame.sample_rate, names if set(names) & set(_MONO) else channel_names(len(planes))


def channel_names(channels: int) -> tuple[str, ...]:
    """Where channels are heard, by their number."""
    return _NAMES.get(channels) or ("FC",) * min(channels, 1) + ("",) * (channels - 1)


@dataclass
class _Heard:
    samples: np.ndarray  #: (samples,) float32 mono at 16 kHz
    power: float  #: of the mix, before it was resampled
    powers: np.ndarray  #: of each channel
    peak: float  #: of what the recording's own sound is made of


def _hear(path: Path, start: float, duration: float | None, channel: int | None) -> _Heard:
    """The mix, or one channel of it, from `start` on; cut where it is at 16 kHz already."""
    first = round(start * SAMPLE_RATE)
    last = None if duration is None else first + max(1, round(duration * SAMPLE_RATE))
    most = first + round(MAX_HOURS * 3600 * SAMPLE_RATE)
    parts, position, peak, power, powers = [], 0, 0.0, 0.0, np.zeros(0)
    resampler, rate = None, 0

    def keep(block: np.ndarray) -> None:
        nonlocal position
        wanted = block[max(0, first - position) : None if last is None else max(0, last - position)]
        position += len(block)
        if len(wanted):
            parts.append(wanted)
        if position > most:
            raise FadaError(
                f"'{path.name}' is longer than {MAX_HOURS:g} hours; make the video in parts (start, duration)."
            )

    name = f"'{path.name}'"
    with opened(path, name, "sound") as container:
        for planes, now, names in blocks(decoded(container, "sound", name, tell=channel is None), name):
            if now != rate:
                if resampler is not None:
                    keep(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
                resampler, rate = soxr.ResampleStream(now, SAMPLE_RATE, 1, dtype="float32"), now
            weights = mono_weights(names)
            if channel is not None and channel < len(weights):
                weights = np.eye(len(weights), dtype=np.float32)[channel]
            mix = weights @ planes
            if position + planes.shape[1] * SAMPLE_RATE / rate >= first:
                peak = max(peak, float(np.abs(planes).max(initial=0.0)), float(np.abs(front(planes, names)).max()))
                power += float(np.square(mix, dtype=np.float64).sum())
                each = np.square(planes, dtype=np.float64).sum(1) * (weights > 0)
                powers = np.pad(powers, (0, max(0, len(each) - len(powers))))
                powers[: len(each)] += each
            keep(resampler.resample_chunk(mix))
            if last is not None and position >= last:
                break
        if resampler is not None:
            keep(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    if start and position <= first:
        long = f"'{path.name}' is only {position / SAMPLE_RATE:.2f} s long"
        raise FadaError(f"start is {start:g} s, but {long}; choose an earlier start.")
    return _Heard(np.concatenate(parts) if parts else np.zeros(0, np.float32), power, powers, peak)


def front(planes: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """What plays on one or two loudspeakers: one or two channels as they are, more as BS.775 mixes them to stereo."""
    if len(planes) < 3:
        return planes
    both = np.zeros((2, planes.shape[1]), np.float32)
    for plane, name in zip(planes, names, strict=True):
        if name in ("FL", "FLC"):
            both[0] += plane
        elif name in ("FR", "FRC"):
            both[1] += plane
        elif name not in _BASS:
            sides = [0] if name.endswith("L") else [1] if name.endswith("R") else [0, 1]
            both[sides] += np.float32(_SQUARE_HALF) * plane
    return both
