"""What the teacher can do by now, on avatars that it does not learn from: a contact sheet and a short clip."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as iio
import torch

from .. import avatars
from ..data.avatars import HELD_OUT_SEED
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
    rows, sheet_rows, sound = [], [], []
    for index in range(AVATARS):
        seconds = CLIPS * config.clip_frames / config.fps
        clip = avatars.sample(HELD_OUT_SEED + index, "high", seconds, size=config.size, fps=config.fps)
        truth = clip.frames
        portrait = networks.vae.encode(clip.portrait[None].to(networks.device)).float()
        features = networks.audio_encoder.encode(clip.waveform.to(networks.device), len(truth), config.fps)
        generator = torch.Generator().manual_seed(index)
        subject = prepare_subject(networks, portrait)
        clips = sample_chain(networks, schedule, subject, features, SETTINGS, generator)
        made = [networks.vae.decode(part.latents[0]) for part in clips]
        generated = ((torch.cat(made).float().cpu() + 1) * 127.5).round().clamp(0, 255).byte()
        both = torch.stack([truth, generated])
        sheet_rows.append(torch.cat([torch.cat(list(frames[::3]), dim=2) for frames in both], dim=1))
        rows.append(torch.cat([truth, generated], dim=3))
        sound.append(clip.waveform)
    iio.imwrite(folder / f"preview-{step:06d}.png", torch.cat(sheet_rows, dim=1).permute(1, 2, 0).numpy())
    video = torch.cat(rows).permute(0, 2, 3, 1).numpy()
    height, width = video.shape[1:3]
    path = folder / f"preview-{step:06d}.mp4"
    with VideoWriter(path, width=width, height=height, fps=config.fps, audio=torch.cat(sound)) as writer:
        writer.write(video)
