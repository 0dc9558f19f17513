"""Second stage: the teacher learns to denoise clips of latents, given portrait, motion frames and speech.

Reference and audio are dropped apart and together, so that one network serves all three branches of the guidance. Only
the high pool is used (FADA, figure 2). Latents and audio features are computed once and kept in memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from ..data.avatars import AvatarSet, box_mask
from ..models.audio_projection import window_features
from ..models.networks import Networks
from ..sampling.schedule import NoiseSchedule

MOUTH_WEIGHT = 8.0  #: added to the loss of latent cells under the mouth (they are few, and hold the speech)
EYES_WEIGHT = 2.0
DROP_BOTH, DROP_AUDIO, DROP_REFERENCE = 0.08, 0.10, 0.04  #: shares of samples; the first trains the base branch
MOTION_AS_PORTRAIT = 0.15  #: share of clips that start from the portrait, as a video's first clip does
MOTION_NOISE = 0.3  #: largest deviation of the noise on motion frames: at sampling they are the model's own
PORTRAIT_SHARE = 0.5  #: of the other references that are the neutral portrait; the rest are any frame of the clip


@dataclass
class LatentClips:
    """All clips of an avatar set as the teacher sees them.

    portraits (n, c, h, w), latents (n, frames, c, h, w) float16; audio (n, frames, layers, dim) float32;
    weights (n, frames, 1, h, w) of the loss.
    """

    portraits: Tensor
    latents: Tensor
    audio: Tensor
    weights: Tensor

    @classmethod
    def prepare(cls, data: AvatarSet, networks: Networks, accelerator: Accelerator, cache: Path) -> LatentClips:
        """Encode the whole set, or read what an earlier run encoded with the same autoencoder."""
        if cache.exists():
            return cls(**load_file(cache))
        device, grid = networks.device, data.size // networks.config.vae.downscale
        parts: dict[str, list[Tensor]] = {"portraits": [], "latents": [], "audio": [], "weights": []}
        with torch.inference_mode(), accelerator.autocast():
            for index in tqdm(range(data.count), desc="encoding clips", mininterval=5):
                clip = data.read(index, "frames", "portrait", "waveform", "mouth_box", "eyes_box")
                images = torch.cat([clip["portrait"][None], clip["frames"]]).float() / 127.5 - 1
                latents = networks.vae.encode(images.to(device, memory_format=torch.channels_last)).cpu().half()
                mouth, eyes = (
                    F.adaptive_avg_pool2d(box_mask(clip[name], data.size), grid) for name in ("mouth_box", "eyes_box")
                )
                parts["portraits"].append(latents[0])
                parts["latents"].append(latents[1:])
                parts["audio"].append(networks.audio_encoder.encode(clip["waveform"], len(clip["frames"]), data.fps))
                parts["weights"].append((1 + MOUTH_WEIGHT * mouth + EYES_WEIGHT * eyes).half())
        tensors = {name: torch.stack(values).cpu().contiguous() for name, values in parts.items()}
        partial = cache.with_suffix(".partial")
        save_file(tensors, partial)
        os.replace(partial, cache)
        return cls(**tensors)


class _Denoiser(nn.Module):
    """Conditions and one prediction in one forward, so that it can be wrapped for several processes."""

    def __init__(self, networks: Networks) -> None:
        super().__init__()
        self.networks = networks

    def forward(self, x_t: Tensor, t: Tensor, alpha: Tensor, sigma: Tensor, clip: dict[str, Tensor]) -> Tensor:
        conditioning = self.networks.condition(
            clip["portrait"],
            clip["motion"],
            clip["audio"],
            drop_reference=clip["drop_reference"],
            drop_audio=clip["drop_audio"],
        )
        return self.networks.predict(x_t, t, alpha, sigma, clip["portrait"], conditioning)


@dataclass
class TeacherTask:
    """v-prediction on random clips, weighted towards mouth and eyes."""

    networks: Networks
    clips: LatentClips
    batch: int
    make_preview: Callable[[Networks, Path, int], None]

    def __post_init__(self) -> None:
        self.config = self.networks.config
        self.schedule = NoiseSchedule(self.config.schedule)
        for frozen in (self.networks.vae, self.networks.audio_encoder):
            frozen.requires_grad_(False)
        self.module = _Denoiser(self.networks).to(memory_format=torch.channels_last)
        window = self.config.condition.audio_window
        self.audio = torch.stack([window_features(rows, window) for rows in self.clips.audio])

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """One batch: latents, loss weights and everything the networks are conditioned on."""
        count, frames = self.clips.latents.shape[:2]
        length, before = self.config.clip_frames, self.config.motion_frames

        def rand(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator)

        clip = torch.randint(count, (self.batch,), generator=generator)
        start = torch.randint(before, frames - length + 1, (self.batch,), generator=generator)
        rows = start[:, None] + torch.arange(length)
        any_frame = self.clips.latents[clip, torch.randint(frames, (self.batch,), generator=generator)]
        neutral = rand(self.batch) < PORTRAIT_SHARE
        portrait = torch.where(neutral[:, None, None, None], self.clips.portraits[clip], any_frame).float()
        motion = self.clips.latents[clip[:, None], start[:, None] - before + torch.arange(before)].float()
        fresh = rand(self.batch) < MOTION_AS_PORTRAIT
        # A video's first clip goes on from the portrait's pose, so here the portrait is the frame before the clip.
        portrait = torch.where(fresh[:, None, None, None], motion[:, -1], portrait)
        motion = torch.where(fresh[:, None, None, None, None], portrait[:, None], motion)
        noise = torch.randn(motion.shape, generator=generator) * MOTION_NOISE * rand(self.batch, 1, 1, 1, 1)
        kind = rand(self.batch)
        # The networks take rows without reference first.
        kind = kind.sort().values
        no_reference = kind < DROP_BOTH + DROP_REFERENCE
        no_audio = (kind < DROP_BOTH) | (kind > 1 - DROP_AUDIO)
        return {
            "latents": self.clips.latents[clip[:, None], rows].float(),
            "weights": self.clips.weights[clip[:, None], rows].float(),
            "portrait": portrait,
            "motion": motion + noise,
            "audio": self.audio[clip[:, None], rows],
            "drop_reference": no_reference,
            "drop_audio": no_audio,
        }

    def losses(self, module: nn.Module, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        device = self.networks.device
        batch = self.draw(generator)
        t = torch.randint(self.config.schedule.train_timesteps, (self.batch,), generator=generator)
        noise = torch.randn(batch["latents"].shape, generator=generator)
        x_t = self.schedule.add_noise(batch["latents"], noise, t).to(device)
        target = self.schedule.velocity(batch["latents"], noise, t).to(device)
        alpha, sigma = (value.to(device) for value in self.schedule.alpha_sigma(t))
        batch = {name: value.to(device) for name, value in batch.items()}
        prediction = module(x_t, t.to(device), alpha, sigma, batch).float()
        per_sample = (batch["weights"] * (prediction - target).square()).flatten(1).mean(1)
        loss = per_sample.mean() / batch["weights"].mean()
        return {"loss": loss, "mse": (prediction.detach() - target).square().mean()}

    def preview(self, folder: Path, step: int) -> None:
        self.make_preview(self.networks, folder, step)
