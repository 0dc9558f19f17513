"""Clips over audio of any length: each clip sees the last frames of the one before, nothing else is kept."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..models.audio_projection import window_features
from ..models.networks import Networks
from .sampler import Callback, Clip, SamplingSettings, Subject, sample_clip
from .schedule import NoiseSchedule


def clip_count(frames: int, clip_frames: int) -> int:
    """Clips that `frames` frames take."""
    return -(-frames // clip_frames)


def clip_windows(features: Tensor, start: int, frames: int, window: int) -> Tensor:
    """Audio features of one clip, (1, frames, window, layers, dim), from those of the whole audio (n, layers, dim).

    Neighbours come from the whole audio, not only from the clip; beyond its ends the first or last row is repeated.
    """
    reach = window // 2
    rows = torch.arange(start - reach, start + frames + reach, device=features.device).clamp(0, len(features) - 1)
    return window_features(features[rows], window)[None, reach : reach + frames]


@torch.no_grad()
def next_motion(networks: Networks, latents: Tensor) -> Tensor:
    """What the next clip sees of this one: its last frames' latents, (1, motion_frames, c, h, w) float32.

    By `motion_space` as they are, or through pictures as in Hallo, where the autoencoder's losses add up over the clips
    but the reference UNet only ever sees latents of real pictures.
    """
    config = networks.config
    last = latents[:, latents.shape[1] - config.motion_frames :]
    if config.motion_space == "latents" or not config.motion_frames:
        return last.clone()  # not a view: the clip itself shall be free to go
    pictures = networks.vae.decode(last[0].to(networks.dtype))
    return networks.vae.encode(pictures).float()[None]


def sample_chain(
    networks: Networks,
    schedule: NoiseSchedule,
    subject: Subject,
    features: Tensor,
    settings: SamplingSettings,
    generator: torch.Generator,
    callback: Callback | None = None,
) -> Iterator[Clip]:
    """Sample clip after clip, each when it is asked for; together they have one frame per row of `features`.

    The first clip's motion frames are the portrait (Hallo, arXiv 2406.08801). The last clip is sampled in full, over
    repeated audio rows, and cut.

    Args:
        features: audio features of the whole audio, (frames, layers, dim), at least one row.
        generator: on the CPU; one for all clips.
        callback: counts the steps of all clips together.
    """
    config = networks.config
    total, length = len(features), config.clip_frames
    clips = clip_count(total, length)
    portrait = subject.portrait
    motion = portrait[:, None].expand(1, config.motion_frames, *portrait.shape[1:])

    for clip in range(clips):
        start = clip * length
        audio = clip_windows(features, start, length, config.condition.audio_window).to(portrait.device)
        report = None
        if callback:

            def report(done: int, steps: int, expected: Tensor, before: int = clip) -> None:
                callback(before * steps + done, clips * steps, expected)

        latents, nfe = sample_clip(networks, schedule, subject, motion, audio, settings, generator, report)
        if clip + 1 < clips:
            motion = next_motion(networks, latents)
        yield Clip(latents[:, : total - start], nfe)
