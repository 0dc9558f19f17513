"""Sound input: any file or waveform as mono float samples at 16 kHz, the input of the networks.

Channels are mixed as in ITU-R BS.775, because speech may be in any of them. Integers stored as floating-point numbers
are recognised.
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
MAX_HOURS = 6.0  #: longest sound that is read at once: 1.4 GB
LOUD = 8.0  #: times full scale; larger samples are taken for integers stored as floats
_LOST = 0.3  #: power of the mix, relative to the loudest channel, below which speech counts as cancelled
_SQUARE_HALF = 0.5**0.5
# ITU-R BS.775-3, annex 4, table 2, the row for mono. The low frequency channels are not mixed.
_MONO = {"FC": 1.0, "FL": _SQUARE_HALF, "FR": _SQUARE_HALF, "FLC": _SQUARE_HALF, "FRC": _SQUARE_HALF}
_BASS = ("LFE", "LFE2")
_AROUND = 0.5  # weight of every other channel
_NAMES = {
    3: ("FL", "FR", "LFE"),
    4: ("FL", "FR", "FC", "BC"),
    5: ("FL", "FR", "FC", "BL", "BR"),
    6: ("FL", "FR", "FC", "LFE", "BL", "BR"),
    7: ("FL", "FR", "FC", "LFE", "BC", "SL", "SR"),
    8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}
"""Channel names by number of channels, where a recording has no layout: FFmpeg's defaults, in the order of WAVE."""


@dataclass(frozen=True)
class Recording:
    """A part of a recording as input of the networks, and how to play its original sound (see `soundtrack`)."""

    samples: Tensor  #: (samples,) float32, mono, 16 kHz
    path: Path
    start: float  #: seconds
    gain: float  #: factor that brings the original samples to full scale or below


def load_audio(path: str | Path, start: float = 0.0, duration: float | None = None) -> Tensor:
    """Read the first sound stream of a sound or video file, (samples,) float32 mono at 16 kHz.

    Stereo is averaged; more channels are mixed as in ITU-R BS.775. Where channels cancel each other in the mix (speech
    in opposite phase, for example), only the loudest channel is used. Damaged pieces are left out.

    Sound is decoded and resampled block by block, so memory is that of the result (230 MB per hour). Sound before
    `start` is decoded and dropped rather than skipped by seeking, because times are inexact in files without an index
    (MP3, ADTS).

    Args:
        start: seconds from the beginning of the stream, at least 0.
        duration: seconds, above 0; None, or more than there is: up to the end.

    Raises:
        FadaError: the file is missing, cannot be read as sound, or has no sound stream; there are no samples (or none
            after `start`), values that are not finite, or more than 6 hours; `start` or `duration` is out of range.
    """
    return load_recording(path, start, duration).samples


def load_recording(path: str | Path, start: float = 0.0, duration: float | None = None) -> Recording:
    """Like `load_audio`, with the information for playing the original sound."""
    if not 0 <= start < np.inf:
        raise FadaError(f"start is {start:g} s; give 0 or more seconds.")
    if duration is not None and not 0 < duration < np.inf:
        raise FadaError(f"duration is {duration:g} s; give more than 0 seconds, or leave it out for all.")
    path = existing_file(path, "a sound or video file")
    heard = _hear(path, start, duration, None)
    if not len(heard.samples):
        raise FadaError(f"'{path.name}' is empty; give a recording with speech.")
    if heard.power < _LOST * heard.powers.max(initial=0.0):
        loudest = int(heard.powers.argmax())
        log.info("'%s' has its sound in channel %d; only that channel is used.", path.name, loudest + 1)
        heard = _hear(path, start, duration, loudest)
    if not np.isfinite(heard.samples).all():
        raise FadaError(f"'{path.name}' has samples that are not numbers (NaN or infinite); export it again.")
    scale = full_scale(heard.peak, f"'{path.name}'")
    if scale != 1:
        heard.samples *= 1 / scale
    if (peak := heard.peak / scale) > 1:
        log.info("'%s' peaks at %.1f times full scale; its volume is reduced.", path.name, peak)
    return Recording(torch.from_numpy(heard.samples), path, start, 1 / (scale * max(peak, 1.0)))


def from_waveform(waveform: Tensor, sample_rate: int) -> Tensor:
    """Convert a waveform to (samples,) float32 mono at 16 kHz, on the CPU, mixed as in `load_audio`.

    Args:
        waveform: (samples,), (channels, samples) or (1, channels, samples); floats with 1 as full scale, or integers
            with the range of their type as full scale.
        sample_rate: of `waveform` in Hz, 1000 to 1000000.

    Raises:
        FadaError: a batch of several recordings, no samples, samples before channels, a rate out of range, or values
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
    """Check that speech is (samples,) float with 1 as full scale, which it may exceed, and return it.

    Raises:
        FadaError: another shape or number type, no samples, values that are not finite, or values in the range of
            integers.
    """
    if audio.ndim != 1:
        raise FadaError(f"The audio has the shape {tuple(audio.shape)}; give mono samples, (samples,).")
    if not len(audio):
        raise FadaError("The audio is empty, which makes 0 frames; give at least one sample.")
    if not audio.is_floating_point():
        kind = str(audio.dtype).removeprefix("torch.")
        raise FadaError(f"The audio has samples of the type {kind}; give floats in -1..1, as from from_waveform.")
    if not audio.isfinite().all():
        raise FadaError("The audio has values that are not finite (NaN); check where they come from.")
    if (peak := float(audio.abs().max())) > LOUD:
        raise FadaError(f"The audio has samples up to {peak:g}; scale them to -1..1, for example with from_waveform.")
    return audio


def as_planes(waveform: Tensor, sample_rate: int) -> np.ndarray:
    """Check a waveform as for `from_waveform` and convert it to (channels, samples) float32."""
    if waveform.ndim > 3 or (waveform.ndim == 3 and len(waveform) != 1):
        raise FadaError(f"The audio has the shape {tuple(waveform.shape)}; give one recording, not a batch of them.")
    if not waveform.numel():
        raise FadaError("The audio is empty; give at least one sample.")
    if not MIN_RATE <= sample_rate <= MAX_RATE:
        raise FadaError(f"The audio has {sample_rate:g} samples per second; give {MIN_RATE} to {MAX_RATE}.")
    planes = waveform.detach().cpu().reshape(-1, waveform.shape[-1])
    if len(planes) > max(16, planes.shape[-1]):
        raise FadaError(f"The audio has the shape {tuple(waveform.shape)}; give channels before samples.")
    if planes.dtype == torch.uint8:  # unsigned, so silence is 128
        planes = (planes.float() - 128) / 128
    elif not planes.is_floating_point():
        planes = planes.float() / -float(torch.iinfo(planes.dtype).min)
    if not planes.isfinite().all():
        raise FadaError("The audio has samples that are not numbers (NaN or infinite); check where they come from.")
    return planes.float().numpy()


def full_scale(peak: float, name: str) -> float:
    """The value of full scale in a recording whose largest sample is `peak`.

    It is 1, or that of 16, 24 or 32 bit integers where `peak` exceeds LOUD, or `peak` itself where it exceeds these,
    too. Any other value than 1 is logged.
    """
    if not peak > LOUD:
        return 1.0
    found = next((float(limit) for limit in (2**15, 2**23, 2**31) if peak <= limit), peak)
    log.warning("%s has samples up to %.6g instead of 1; %.10g is used as full scale.", name, peak, found)
    return found


def mono_weights(names: Sequence[str]) -> np.ndarray:
    """Weights of the channels in the mix for the networks, (channels,) float32."""
    if len(names) == 1:
        return np.ones(1, np.float32)
    if len(names) == 2:  # 3 dB less than in BS.775, so that two equal channels are as loud as one
        return np.full(2, 0.5, np.float32)
    return np.array([0.0 if name in _BASS else _MONO.get(name, _AROUND) for name in names], np.float32)


def blocks(frames: Iterable[av.AudioFrame], name: str) -> Iterator[tuple[np.ndarray, int, tuple[str, ...]]]:
    """Decoded sound as (channels, samples) float32, with rate and channel names, which may change between blocks."""
    to_float, kind = av.AudioResampler(format="flt"), None
    for frame in frames:
        found = frame.sample_rate, frame.layout.name, frame.format.name
        if not MIN_RATE <= frame.sample_rate <= MAX_RATE:
            raise FadaError(f"{name} claims {frame.sample_rate} samples per second, which cannot be; export it again.")
        if found != kind:
            to_float, kind = av.AudioResampler(format="flt"), found
        for converted in to_float.resample(frame):
            names = tuple(channel.name for channel in converted.layout.channels)
            # Interleaved, because PyAV does not see planes beyond the eighth.
            planes = converted.to_ndarray().reshape(-1, len(names)).T
            yield planes, frame.sample_rate, names if set(names) & set(_MONO) else channel_names(len(planes))


def channel_names(channels: int) -> tuple[str, ...]:
    """Default channel names by the number of channels."""
    return _NAMES.get(channels) or ("FC",) * min(channels, 1) + ("",) * (channels - 1)


class Resampler:
    """Resamples a mix that arrives in pieces to 16 kHz; their rate may change."""

    def __init__(self) -> None:
        self._stream: soxr.ResampleStream | None = None
        self._rate = 0

    def __call__(self, piece: np.ndarray, rate: int) -> np.ndarray:
        """The samples that are ready after a piece (samples,) float32 at `rate`."""
        left = np.zeros(0, np.float32)
        if self._stream is None or rate != self._rate:
            left = self.finish()
            self._stream, self._rate = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32"), rate
        return np.concatenate([left, self._stream.resample_chunk(piece)])

    def finish(self) -> np.ndarray:
        """The last samples."""
        nothing = np.zeros(0, np.float32)
        return nothing if self._stream is None else self._stream.resample_chunk(nothing, last=True)


@dataclass
class _Heard:
    samples: np.ndarray  #: (samples,) float32 mono at 16 kHz
    power: float  #: of the mix, before resampling
    powers: np.ndarray  #: of each channel
    peak: float  #: largest absolute value of all channels and of their stereo mix


def _hear(path: Path, start: float, duration: float | None, channel: int | None) -> _Heard:
    """Read the mix, or one channel, from `start` on; the cut is made at 16 kHz."""
    first = round(start * SAMPLE_RATE)
    last = None if duration is None else first + max(1, round(duration * SAMPLE_RATE))
    most = first + round(MAX_HOURS * 3600 * SAMPLE_RATE)
    parts: list[np.ndarray] = []
    position, peak, power, powers = 0, 0.0, 0.0, np.zeros(0)
    resample = Resampler()

    def keep(block: np.ndarray) -> None:
        nonlocal position
        wanted = block[max(0, first - position) : None if last is None else max(0, last - position)]
        position += len(block)
        if len(wanted):
            parts.append(wanted)
        if position > most:
            raise FadaError(
                f"'{path.name}' is longer than {MAX_HOURS:g} hours; make the video in parts with start and duration."
            )

    name = f"'{path.name}'"
    with opened(path, name, "sound") as container:
        for planes, rate, names in blocks(decoded(container, "sound", name, tell=channel is None), name):
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
            keep(resample(mix, rate))
            if last is not None and position >= last:
                break
        keep(resample.finish())
    if start and position <= first:
        long = f"'{path.name}' is only {position / SAMPLE_RATE:.2f} s long"
        raise FadaError(f"start is {start:g} s, but {long}; choose an earlier start.")
    return _Heard(np.concatenate(parts) if parts else np.zeros(0, np.float32), power, powers, peak)


def front(planes: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Mono or stereo for playing: one or two channels as they are, more channels mixed to stereo as in BS.775."""
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
