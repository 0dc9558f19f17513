"""Sound in: any file or waveform as mono float samples at 16 kHz."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import BinaryIO

import av
import numpy as np
import soxr  # librosa's resampler; used directly because librosa only takes a whole recording at once
import torch
from torch import Tensor

from ..errors import FadaError

SAMPLE_RATE = 16000
_PIECE_BYTES, _PIECES = 1 << 14, 64  # of `listen`: half a second each, and how many are held for a slow listener


def load_audio(path: str | Path, start: float = 0.0, duration: float | None = None) -> Tensor:
    """The first sound stream of a sound or video file, (samples,) float32 mono (mean of the channels) at 16 kHz.

    Decoded and resampled block by block, so memory is that of the result (230 MB an hour). What lies before `start` is
    decoded and dropped rather than sought, because files without an index (MP3, ADTS) only guess where a time is.

    Args:
        start: seconds from the beginning of the stream, at least 0.
        duration: seconds, above 0; None, or more than there is: up to the end.

    Raises:
        FadaError: no such file, not readable as sound, no sound stream, no samples (or none after `start`), values that
            are not finite, or `start` or `duration` out of range.
    """
    if not start >= 0:
        raise FadaError(f"start is {start:g} s; give 0 or more seconds.")
    if duration is not None and not duration > 0:
        raise FadaError(f"duration is {duration:g} s; give more than 0 seconds, or leave it out for all.")
    path = Path(path)
    if not path.is_file():
        raise FadaError(f"There is no file '{path}'; give the path of a sound or video file.")
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise FadaError(f"'{path.name}' has no sound; give a file with speech in it.")
            samples = _decode(container, path.name, start, duration)
    except av.FFmpegError as error:
        raise FadaError(f"'{path.name}' cannot be read as sound ({error.strerror}); convert it to WAV.") from error
    return _checked(samples, f"'{path.name}'")


def listen(source: BinaryIO, patience: float) -> Iterator[Tensor]:
    """Raw speech as it arrives, 16-bit little-endian mono at 16 kHz: pieces (samples,) float32 in -1..1, until its end.

    When nothing has come for `patience` seconds, the piece is empty. A source that is faster than its listener waits.
    """
    pieces: Queue[bytes] = Queue(_PIECES)

    def read() -> None:
        while piece := source.read1(_PIECE_BYTES):
            pieces.put(piece)
        pieces.put(b"")

    Thread(target=read, daemon=True).start()  # it may wait for the source for ever
    rest = b""
    while True:
        try:
            piece = pieces.get(timeout=patience)
        except Empty:
            yield torch.zeros(0)
            continue
        if not piece:
            return
        whole = rest + piece
        rest = whole[len(whole) // 2 * 2 :]
        yield torch.from_numpy(np.frombuffer(whole, "<i2", len(whole) // 2).astype(np.float32) / 2**15)


def from_waveform(waveform: Tensor, sample_rate: int) -> Tensor:
    """A waveform in memory as (samples,) float32 mono (mean of the channels) at 16 kHz, on the CPU.

    Args:
        waveform: (samples,), (channels, samples) or (1, channels, samples), float.
        sample_rate: of `waveform`, Hz, above 0.

    Raises:
        FadaError: several recordings in one batch, no samples, or values that are not finite.
    """
    if waveform.ndim > 3 or (waveform.ndim == 3 and len(waveform) != 1):
        raise FadaError(f"The audio has the shape {tuple(waveform.shape)}; give one recording, not a batch of them.")
    if not waveform.numel():
        raise FadaError("The audio is empty; give at least a moment of sound.")
    samples = waveform.detach().float().cpu().reshape(-1, waveform.shape[-1]).mean(0).numpy()
    return _checked(soxr.resample(samples, sample_rate, SAMPLE_RATE), "The audio")


def _checked(samples: np.ndarray, name: str) -> Tensor:
    if not len(samples):
        raise FadaError(f"{name} is empty; give at least a moment of sound.")
    if not np.isfinite(samples).all():
        raise FadaError(f"{name} has samples that are not numbers (NaN or infinite); export the recording again.")
    return torch.from_numpy(samples)


def _decode(container: av.container.InputContainer, name: str, start: float, duration: float | None) -> np.ndarray:
    frames = container.decode(audio=0)
    opening = next(frames, None)
    if opening is None:
        return np.zeros(0, np.float32)
    rate = opening.sample_rate  # not the stream's: AAC with spectral band replication may announce half of it
    first = round(start * rate)
    last = None if duration is None else first + max(1, round(duration * rate))
    resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
    parts, position = [], 0
    for block in _mono_blocks(chain([opening], frames), name):
        wanted = block[max(0, first - position) : None if last is None else max(0, last - position)]
        position += len(block)
        if len(wanted):
            parts.append(resampler.resample_chunk(wanted))
        if last is not None and position >= last:
            break
    if start and position <= first:
        raise FadaError(
            f"start is {start:g} s, but '{name}' is only {position / rate:.2f} s long; choose an earlier start."
        )
    parts.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    return np.concatenate(parts)


def _mono_blocks(frames: Iterable[av.AudioFrame], name: str) -> Iterator[np.ndarray]:
    to_float, kind = av.AudioResampler(format="fltp"), None
    for frame in frames:
        found = frame.sample_rate, frame.layout.name, frame.format.name
        kind = kind or found
        if found != kind:
            raise FadaError(f"'{name}' changes its rate or channels in the middle; convert it to WAV.")
        for converted in to_float.resample(frame):
            yield converted.to_ndarray().mean(0, dtype=np.float32)
