"""Samples clips while speech arrives: each as soon as its audio and a short look-ahead are available."""

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
    """Latents and the audio of the same time span."""

    latents: Tensor  #: (frames, c, h, w) float32
    samples: Tensor  #: (samples,) float32, mono, 16 kHz
    nfe: int
    seconds: float  #: spent sampling, without waiting for speech


class _Speech:
    """Buffer of the most recent speech, as far as later frames depend on it, and its audio features."""

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
        """Number of samples received since the beginning."""
        return self._at(self._first) + len(self._samples)

    @property
    def frames(self) -> int:
        """Number of frames that cover the speech so far; the last one may extend beyond it."""
        return math.ceil(self.heard * self._fps / SAMPLE_RATE)

    def needed(self, start: int, frames: int) -> int:
        """Number of samples since the beginning that the frames `start` .. `start + frames - 1` depend on."""
        return self._at(start + frames + self._reach) + self._ahead

    def windows(self, start: int, frames: int, window: int) -> Tensor:
        """`clip_windows` of the frames `start` .. `start + frames - 1`."""
        end = self.frames if self.ended else start + frames + self._reach
        features = self._encoder.encode(self._samples.to(self._device), end - self._first, self._fps)
        return clip_windows(features, start - self._first, frames, window)

    def between(self, start: int, end: int) -> Tensor:
        """The samples of the frames `start` .. `end - 1`."""
        offset = self._at(self._first)
        return self._samples[self._at(start) - offset : self._at(end) - offset].clone()

    def forget(self, start: int) -> None:
        """Drop samples on which no frame from `start` on depends."""
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
    """Sample clip after clip while speech arrives, in constant memory.

    With a mel encoder and a `lookahead` of at least 0.02 s, the clips equal those of `sample_chain` for the whole
    recording. Features of other encoders depend on the whole recording; more look-ahead brings them closer.

    Args:
        chunks: pieces of audio of any length, (samples,) float, mono, 16 kHz. An empty chunk means that no speech is
            available at the moment: it is replaced by as much silence as the next clip needs, and the face is at rest.
            The video ends with the last sample of the last chunk.
        generator: on the CPU; one for all clips.
        lookahead: seconds of speech to wait for after the audio window of a clip's last frame.

    Raises:
        FadaError: the model denoises all its clips together, or `lookahead` is negative.
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
