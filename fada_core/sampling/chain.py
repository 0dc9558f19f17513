"""Clips over audio of any length, in constant memory, each continuing from the last frames of the one before."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..models.audio.projection import clip_windows
from ..models.inputs import Subject
from ..settings import SamplingSettings
from .denoise import Callback, Clip, Denoiser, sample_clip, start_noise
from .windows import sample_windows


def clip_count(frames: int, clip_frames: int) -> int:
    """Clips that `frames` frames take."""
    return -(-frames // clip_frames)


@torch.no_grad()
def next_motion(denoiser: Denoiser, latents: Tensor) -> Tensor:
    """The next clip's motion frames: the last latents of this one, (1, motion_frames, c, h, w) float32.

    The config's `motion_space` hands them on as they are, or decoded and encoded again, as Hallo does: losses of the
    autoencoder then add up over the clips, but the reference UNet only ever sees latents of real pictures.
    """
    networks, config = denoiser.networks, denoiser.networks.config
    last = latents[:, latents.shape[1] - config.motion_frames :]
    if config.motion_space == "latents" or not config.motion_frames:
        return last.clone()  # a view would keep the whole clip in memory
    pictures = denoiser.decode(last[0].to(networks.dtype))
    return networks.vae.encode(pictures).float()[None]


def sample_chain(
    denoiser: Denoiser,
    subject: Subject,
    features: Tensor,
    settings: SamplingSettings,
    generator: torch.Generator,
    callback: Callback | None = None,
    after: Tensor | None = None,
) -> Iterator[Clip]:
    """Sample clip after clip, each when it is asked for; together they have one frame per row of `features`.

    A model with `clip_overlap` samples by `sample_windows`. Otherwise the first clip's motion frames are the portrait
    (Hallo, arXiv 2406.08801), and the last clip is sampled at full length, over repeated audio rows, and cut.

    Args:
        features: audio features of the whole audio, (frames, layers, dim), at least one row.
        generator: on the CPU; one for all clips.
        callback: counts the steps of all clips together.
        after: the first clips, (1, frames, c, h, w), from an earlier call with the same arguments; the others follow,
            exactly as they would have then.
    """
    config = denoiser.networks.config
    if config.clip_overlap:
        yield from sample_windows(denoiser, subject, features, settings, generator, callback, after)
        return
    total, length = len(features), config.clip_frames
    clips = clip_count(total, length)
    portrait = subject.portrait
    motion = portrait[:, None].expand(1, config.motion_frames, *portrait.shape[1:])
    first = 0
    if after is not None:
        first = after.shape[1] // length
        motion = next_motion(denoiser, after.to(portrait.device))

    for clip in range(clips):
        if clip < first:
            start_noise(portrait, length, generator)  # this clip's, so that the next one gets its own
            continue
        start = clip * length
        audio = clip_windows(features, start, length, config.condition.audio_window).to(portrait.device)
        report = None
        if callback:

            def report(done: int, steps: int, expected: Tensor, before: int = clip) -> None:
                callback(before * steps + done, clips * steps, expected)

        made = sample_clip(denoiser, subject, motion, audio, settings, generator, report)
        if clip + 1 < clips:
            motion = next_motion(denoiser, made.latents)
        yield made._replace(latents=made.latents[:, : total - start])
