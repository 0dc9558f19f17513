"""What the teacher can do by now, on avatars that it does not learn from: a contact sheet and a short clip."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as iio
import torch
from einops import rearrange

from .. import avatars
from ..data.avatars import HELD_OUT_SEED
from ..media.image import to_uint8
from ..media.video import VideoWriter
from ..models.networks import Networks
from ..sampling.chain import sample_chain
from ..sampling.sampler import SamplingSettings, prepare_subject
from ..sampling.schedule import NoiseSchedule

AVATARS = 2
CLIPS = 3  #: chained, so that drift shows
SETTINGS = SamplingSettings(steps=10, ref_cfg=1.0, audio_cfg=2.0)


def preview_teacher(networks: Networks, folder: Path, step: int) -> None:
    """Write `preview-STEP.png` (pairs of rows: truth above, generated below) and `preview-STEP.mp4` (side by side)."""
    config = networks.config
    schedule = NoiseSchedule(config.schedule)
    videos, sound = [], []
    for index in range(AVATARS):
        seconds = CLIPS * config.clip_frames / config.fps
        clip = avatars.sample(HELD_OUT_SEED + index, "high", seconds, size=config.size, fps=config.fps)
        portrait = networks.vae.encode(clip.portrait[None].to(networks.device)).float()
        features = networks.audio_encoder.encode(clip.waveform.to(networks.device), len(clip.frames), config.fps)
        generator = torch.Generator().manual_seed(index)
        subject = prepare_subject(networks, portrait)
        clips = sample_chain(networks, schedule, subject, features, SETTINGS, generator)
        made = [networks.vae.decode(part.latents[0]) for part in clips]
        videos += [clip.frames.movedim(1, -1), to_uint8(torch.cat(made))]
        sound.append(clip.waveform)
    every_third = [frames[::3] for frames in videos]
    sheet = rearrange(every_third, "row n h w c -> (row h) (n w) c")
    iio.imwrite(folder / f"preview-{step:06d}.png", sheet.numpy())
    side_by_side = rearrange(videos, "(avatar side) n h w c -> (avatar n) h (side w) c", side=2).numpy()
    height, width = side_by_side.shape[1:3]
    with VideoWriter(folder / f"preview-{step:06d}.mp4", width, height, config.fps, torch.cat(sound)) as writer:
        writer.write(side_by_side)
