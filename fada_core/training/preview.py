"""Previews during a training: videos of avatars that are not in the training data, and a contact sheet of them."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as iio
import torch
from einops import rearrange

from ..avatars.clip import sample
from ..data.avatars import HELD_OUT_SEED
from ..data.faces import clip_box, face_inputs
from ..media.image import from_uint8, to_uint8
from ..media.video import VideoWriter
from ..models.networks import Networks
from ..sampling.chain import sample_chain
from ..sampling.denoise import Denoiser, prepare_subject
from ..settings import SamplingSettings

AVATARS = 2
CLIPS = 3  #: chained clips, so that drift becomes visible


def preview_avatars(networks: Networks, folder: Path, step: int, ways: list[SamplingSettings]) -> None:
    """Write `preview-STEP.png` and `preview-STEP.mp4`.

    The picture has, for each avatar, one row of the true frames and one for each of `ways` to sample; the video shows
    the same side by side, with sound.
    """
    config = networks.config
    denoiser = Denoiser(networks)
    videos, sound = [], []
    for index in range(AVATARS):
        seconds = CLIPS * config.clip_frames / config.fps
        clip = sample(HELD_OUT_SEED + index, "high", seconds, size=config.size, fps=config.fps, framing="face")
        picture = from_uint8(clip.portrait[None]).to(networks.device)
        portrait = networks.vae.encode(picture).float()
        features = networks.audio_encoder.encode(clip.waveform.to(networks.device), len(clip.frames), config.fps)
        face_box, masks = face_inputs(
            config, *(clip_box(clip.truth[name], config.size) for name in ("face_box", "mouth_box"))
        )
        if face_box is not None:
            face_box = face_box.to(networks.device)
        subject = prepare_subject(networks, portrait, None, face_box, masks)
        videos.append(clip.frames.movedim(1, -1))
        for settings in ways:
            generator = torch.Generator().manual_seed(index)
            clips = sample_chain(denoiser, subject, features, settings, generator)
            videos.append(to_uint8(torch.cat([networks.vae.decode(part.latents[0]) for part in clips])))
        sound.append(clip.waveform)
    every_third = [frames[::3] for frames in videos]
    sheet = rearrange(every_third, "row n h w c -> (row h) (n w) c")
    iio.imwrite(folder / f"preview-{step:06d}.png", sheet.numpy())
    side_by_side = rearrange(videos, "(avatar side) n h w c -> (avatar n) h (side w) c", avatar=AVATARS).numpy()
    height, width = side_by_side.shape[1:3]
    with VideoWriter(folder / f"preview-{step:06d}.mp4", width, height, config.fps, torch.cat(sound)) as writer:
        writer.write(side_by_side)
