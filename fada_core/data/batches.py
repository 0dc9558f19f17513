"""Random clips of a data set as one training batch: which frames, what comes before them, which portrait."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from ..config import ModelConfig
from ..models.audio_projection import window_features
from .samples import ClipDataset, ClipSample

MOTION_AS_PORTRAIT = 0.15  #: share of clips that go on from the portrait, as a video's first clip does
MOTION_NOISE = 0.3  #: largest deviation of the noise on motion frames: at sampling they are the model's own
PORTRAIT_SHARE = 0.5  #: of the other references that are the neutral portrait; the rest are any frame of the clip


@dataclass
class ClipBatch:
    """Clips of `clip_frames` frames; one row a sample."""

    ids: list[str]
    quality: Tensor  #: (batch,) in 0..1, how far the ground truth can be trusted
    latents: Tensor  #: ground truth, (batch, frames, c, h, w)
    weights: Tensor  #: of the loss, (batch, frames, 1, h, w)
    portrait: Tensor  #: latents, (batch, c, h, w)
    motion: Tensor  #: latents of the frames before, (batch, motion_frames, c, h, w), lightly noised
    audio: Tensor  #: features around each frame, (batch, frames, window, layers, dim)

    def to(self, device: torch.device) -> ClipBatch:
        return ClipBatch(**{f.name: _moved(getattr(self, f.name), device) for f in fields(self)})

    def rows(self, order: Tensor) -> ClipBatch:
        """The samples in another order, (n,) indices."""
        return ClipBatch(**{f.name: _picked(getattr(self, f.name), order) for f in fields(self)})


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


def _picked(value: Any, order: Tensor) -> Any:
    return value[order] if isinstance(value, Tensor) else [value[i] for i in order.tolist()]


def draw_batch(data: ClipDataset, config: ModelConfig, generators: list[torch.Generator]) -> ClipBatch:
    """One random clip for each generator."""
    rows = [_draw(data[int(torch.randint(len(data), (), generator=g))], config, g) for g in generators]
    stacked = {name: torch.stack([row[name] for row in rows]) for name in rows[0] if name != "ids"}
    return ClipBatch(ids=[row["ids"] for row in rows], **stacked)


def _draw(sample: ClipSample, config: ModelConfig, generator: torch.Generator) -> dict[str, Any]:
    frames, length, before = len(sample.latents), config.clip_frames, config.motion_frames

    def draw(high: int, low: int = 0) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    start = draw(frames - length + 1, before)
    clip = slice(start, start + length)
    any_frame = sample.latents[draw(frames)]
    fresh, neutral, level = torch.rand(3, generator=generator).tolist()
    motion = sample.latents[start - before : start].float()
    portrait = (sample.portrait if neutral < PORTRAIT_SHARE else any_frame).float()
    if fresh < MOTION_AS_PORTRAIT and before:
        # A video's first clip goes on from the portrait's pose, so here the portrait is the frame before the clip.
        portrait = motion[-1]
        motion = portrait.expand_as(motion)
    noise = torch.randn(motion.shape, generator=generator)
    clean = sample.latents if sample.target_latents is None else sample.target_latents
    return {
        "ids": sample.id,
        "quality": torch.tensor(sample.quality),
        "latents": clean[clip].float(),
        "weights": sample.weights[clip].float(),
        "portrait": portrait,
        "motion": motion + MOTION_NOISE * level * noise,
        "audio": window_features(sample.audio, config.condition.audio_window)[clip],
    }
