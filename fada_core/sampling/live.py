"""Clips of speech that is still arriving: each is sampled as soon as its audio and a short look-ahead are there."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import FadaError
from ..models.audio import SAMPLE_RATE
from ..models.audio.projection import clip_windows
from ..models.inputs import Subject
from ..models.networks import Networks
from ..settings import SamplingSettings
from .chain import next_motion
from .denoise import Denoiser, sample_clip


class LiveClip(NamedTuple):
    """Frames and the sound that belongs to them."""

    latents: Tensor  #: (frames, c, h, w) float32
    samples: Tensor  #: (samples,) float32, mono, 16 kHz
    nfe: int
    seconds: float  #: spent on sampling, without waiting for the speech


class _Speech:
    """The most recent speech, as much of it as later frames depend on, and its audio features."""

    def __init__(self, networks: Networks, lookahead: float) -> None:
        self._encoder, self._fps = networks.audio_encoder, networks.config.fps
        self._back = max(1, math.ceil(self._encoder.context_seconds * self._fps))
        self._ahead = round(lookahead * SAMPLE_RATE)
        self._reach = networks.config.condition.audio_window // 2
        self._device = networks.device
        self._samples = torch.zeros(0)
        self._first = 0  # frame at which `_samples` begins
        self.ended = False

    def add(self, samples: Tensor) -> None:
        self._samples = torch.cat([self._samples, samples.float().cpu()])

    @property
    def heard(self) -> int:
        """Samples, from the beginning."""
        return self._at(self._first) + len(self._samples)

    @property
    def frames(self) -> int:
        """Frames that cover the speech so far; the last one may end later."""
        return math.ceil(self.heard * self._fps / SAMPLE_RATE)

    def needed(self, start: int, frames: int) -> int:
        """Samples, from the beginning, that the frames `start` .. `start + frames - 1` need."""
        return self._at(start + frames + self._reach) + self._ahead

    def windows(self, start: int, frames: int, window: int) -> Tensor:
        """As `clip_windows`, of the frames from `start` on."""
        end = self.frames if self.ended else start + frames + self._reach
        features = self._encoder.encode(self._samples.to(self._device), end - self._first, self._fps)
        return clip_windows(features, start - self._first, frames, window)

    def between(self, start: int, end: int) -> Tensor:
        """The samples of the frames `start` to `end` - 1."""
        offset = self._at(self._first)
        return self._samples[self._at(start) - offset : self._at(end) - offset].clone()

    def forget(self, start: int) -> None:
        """Drop the samples that no frame from `start` on depends on."""
        first = max(self._first, start - self._reach - self._back)
        self._samples = self._samples[self._at(first) - self._at(self._first) :].clone()
        self._first = first

    def _at(self, frame: int) -> int:
        return round(frame * SAMPLE_RATE / self._fps)


def sample_live(
    denoiser: Denoiser,
    subject: Subject,
    chunks: Iterable[Tensor],
    settings: SamplingSettings,
    generator: torch.Generator,
    lookahead: float,
) -> Iterator[LiveClip]:
    """Sample clip after clip of speech that arrives piece by piece, in constant memory.

    With a mel encoder and a `lookahead` of at least 0.02 s, the clips equal those of `sample_chain` for the whole
    recording. Other encoders depend on the whole recording, and come closer with more look-ahead.

    Args:
        chunks: samples, (samples,) float mono 16 kHz, of any length. An empty chunk means that no speech comes for now:
            silence as long as the next clip needs takes its place, and the face rests. The end of the chunks ends the
            video with the last sample.
        generator: on the CPU; one for all clips.
        lookahead: seconds of speech after the last frame's audio window that a clip waits for.

    Raises:
        FadaError: the model makes overlapping clips, which are not finished one by one; or a negative `lookahead`.
    """
    config = denoiser.networks.config
    if config.clip_overlap:
        raise FadaError(f"The model '{config.name}' makes all clips together, so it cannot follow speech live.")
    if not lookahead >= 0:
        raise FadaError(f"The look-ahead is {lookahead:g} s; give 0 or more.")
    return _follow(denoiser, subject, chunks, settings, generator, _Speech(denoiser.networks, lookahead))


@torch.no_grad()
def _follow(
    denoiser: Denoiser,
    subject: Subject,
    chunks: Iterable[Tensor],
    settings: SamplingSettings,
    generator: torch.Generator,
    speech: _Speech,
) -> Iterator[LiveClip]:
    config = denoiser.networks.config
    length, window = config.clip_frames, config.condition.audio_window
    portrait = subject.portrait
    motion = portrait[:, None].expand(1, config.motion_frames, *portrait.shape[1:])
    start = 0

    def clip() -> LiveClip:
        nonlocal motion, start
        began = time.perf_counter()
        audio = speech.windows(start, length, window).to(portrait.device)
        made = sample_clip(denoiser, subject, motion, audio, settings, generator)
        motion = next_motion(denoiser, made.latents)
        end = min(start + length, speech.frames) if speech.ended else start + length
        result = LiveClip(
            made.latents[0, : end - start], speech.between(start, end), made.nfe, time.perf_counter() - began
        )
        start = end
        speech.forget(start)
        return result

    for chunk in chunks:
        missing = speech.needed(start, length) - speech.heard
        speech.add(chunk if len(chunk) else torch.zeros(max(0, missing)))
        while speech.heard >= speech.needed(start, length):
            yield clip()
    speech.ended = True
    while start < speech.frames:
        yield clip()
