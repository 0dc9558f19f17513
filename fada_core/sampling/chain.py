"""Chains clips over audio of any length, in constant memory; each continues from the last frames of the one before."""

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
    """Number of clips for `frames` frames."""
    return -(-frames // clip_frames)


@torch.no_grad()
def next_motion(denoiser: Denoiser, latents: Tensor) -> Tensor:
    """The next clip's motion frames, from the last latents of this one: (1, motion_frames, c, h, w) float32.

    By the config's `motion_space` these are the latents themselves, or the latents decoded and encoded again as in
    Hallo: the autoencoder's errors then accumulate over the clips, but the reference UNet only sees encoded pictures.

    Args:
        latents: of this clip, (1, frames, c, h, w).
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
    """Sample clip after clip, lazily; together they have one frame per row of `features`.

    For models with `clip_overlap` this is `sample_windows`. Otherwise the first clip's motion frames are the portrait
    (Hallo, arXiv 2406.08801), and the last clip is sampled at full length, with the last audio row repeated, and cut.

    Args:
        features: audio features of the whole recording, (frames, layers, dim), at least one row.
        generator: on the CPU; one for all clips.
        callback: gets the steps counted over all clips.
        after: the first clips, (1, frames, c, h, w), from an earlier call with the same arguments; sampling continues
            with the next clip, with the same result as an uninterrupted call.

    Raises:
        FadaError: as `sample_clip`.
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
            start_noise(portrait, length, generator)  # advances the generator past this clip
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
