"""Command: train another decoder for the latents that models have already, and put it into them.

python -m fada_core.pretrain.decoder --models portrait-teacher portrait --out runs/decoder

Encoder and UNets stay as they are, so a decoder can be made smaller, or better, without training these again. It learns
from the encoder's latents and from those that the last model samples: their errors, which no encoder makes, would
otherwise show as bright specks. Start again to resume.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import ConcatDataset

from ..checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from ..command import run_command
from ..config import PORTRAIT, VAEConfig
from ..data.avatars import AvatarSet
from ..data.batches import check_closeups, closeups, draw_batch
from ..data.samples import MOUTH_WEIGHT as MOUTH_CELL_WEIGHT
from ..data.samples import ClipDataset, ClipSample, EncodedClips, encode_clips
from ..errors import FadaError
from ..media.image import from_uint8
from ..models.networks import Networks
from ..models.vae import TinyVAE
from ..sampling.schedule import NoiseSchedule
from ..training import LoopConfig, train
from .vae import MOUTH_WEIGHT, Pools, Reconstruction, VAETask, reconstruction_loss

log = logging.getLogger("fada.pretrain")
POOLS = ("high", "moderate")


@dataclass
class DecoderConfig:
    """Train a decoder of the preset `portrait` for the latents of existing models."""

    out: Path
    """Folder for states, previews and, at the end, a file for each model."""
    models: tuple[str, ...] = ("portrait-teacher", "portrait")
    """Shipped models' names or checkpoints that share one autoencoder."""
    data: Path | None = None
    """Folder of rendered avatars, as other trainings leave it; default OUT/data."""
    latents: Path | None = None
    """Folder of encoded clips, as other trainings leave it; default OUT/latents."""
    clips: int = 480
    """Avatars of each pool."""
    moderate_clips: int | None = None
    """Avatars of the moderate pool (default: the same)."""
    clip_seconds: float = 2.4
    workers: int = os.cpu_count() or 1
    """Processes that render."""
    batch: int = 16
    """Pictures a step and process."""
    crop: int = 128
    """Side in pixels of their parts that are learned from; 0: whole pictures."""
    sampled_batch: int = 2
    """Clips a step and process whose latents the last model samples; 0: the decoder sees the encoder's alone."""
    sampled_cells: int = 8
    """Side in latent cells of what is sampled, around mouths; 0: whole pictures."""
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=2500, learning_rate=1.2e-3, max_grad_norm=1.0, weight_decay=0.0)
    )
    mixed_precision: Literal["no", "bf16"] = "bf16"
    cpu: bool = False
    """Train on the processor even where there is a GPU."""


def with_decoder(networks: Networks, like: VAEConfig) -> Networks:
    """The same networks with another decoder, of the shape that `like` describes; its encoder is frozen.

    Layers that the old decoder has under the same name and in the same shape begin as they were, the others fresh.

    Raises:
        FadaError: the autoencoder is not the project's own.
    """
    old = networks.config.vae
    if old.kind != "tiny":
        raise FadaError(
            f"The autoencoder of '{networks.config.name}' is of the kind {old.kind}; give models with one of our own."
        )
    shape = {name: getattr(like, name) for name in ("decoder_cell", "decoder_widths", "decoder_blocks")}
    networks.config = replace(networks.config, vae=replace(old, **shape))
    fresh = TinyVAE(networks.config.vae)
    begun = fresh.state_dict()
    before = networks.vae.state_dict().items()
    fresh.load_state_dict(begun | {k: v for k, v in before if k in begun and v.shape == begun[k].shape})
    fresh.encoder.requires_grad_(False)
    networks.vae = fresh
    return networks


@dataclass(frozen=True)
class _WithPictures:
    """Clips whose latents have their pictures as further channels, so that whatever is cut is cut from both."""

    clips: EncodedClips
    source: AvatarSet  #: all of its clips are in `clips`: rendered alike, they fit the model or none does
    cell: int

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> ClipSample:
        sample, pictures = self.clips[index], self.source.read(index, "frames", "portrait")

        def join(latents: Tensor, pixels: Tensor) -> Tensor:
            return torch.cat([latents, F.pixel_unshuffle(from_uint8(pixels), self.cell).half()], -3)

        return replace(
            sample,
            latents=join(sample.latents, pictures["frames"]),
            portrait=join(sample.portrait, pictures["portrait"]),
        )


class Sampled:
    """Latents that a model samples from noised ones, as it does at the end of its way from noise to pictures."""

    def __init__(self, networks: Networks, info: CheckpointInfo, clips: ClipDataset, cells: int) -> None:
        self.networks = networks.eval().requires_grad_(False)
        self.info, self.clips, self.cells = info, clips, cells
        self.schedule = NoiseSchedule(networks.config.schedule)

    @torch.no_grad()
    def draw(self, generators: list[torch.Generator]) -> tuple[Tensor, Tensor, Tensor]:
        """One clip for each generator: latents (n * frames, c, h, w), true pictures (n * frames, 3, H, W), weights."""
        config, device = self.networks.config, self.networks.device
        batch = draw_batch(self.clips, config, generators)
        batch = closeups(batch, self.cells, generators) if self.cells else batch
        known = config.unet.in_channels
        latents, pixels = batch.latents[:, :, :known].to(device), batch.latents[:, :, known:].to(device)
        batch = replace(batch, portrait=batch.portrait[:, :known], motion=batch.motion[:, :, :known]).to(device)
        scales = None
        if self.info.role == "student":
            scales = torch.tensor([[self.info.ref_cfg, self.info.audio_cfg]], device=device).expand(len(latents), -1)
        conditioning = self.networks.condition(batch.inputs(scales=scales))

        times = self.schedule.timesteps(self.info.steps)
        # Not from pure noise: mouths would open otherwise than in the true pictures.
        first = int(torch.randint(min(1, len(times) - 1), len(times), (), generator=generators[0]))
        noise = torch.stack([torch.randn(latents.shape[1:], generator=g) for g in generators])
        x = self.schedule.add_noise(latents, noise.to(device), times[first])
        for time_ in times[first:]:
            t = torch.full((len(x),), time_, device=device)
            prediction = self.networks.predict(x, t, *self.schedule.alpha_sigma(t), conditioning)
            x = self.schedule.ddim_step(prediction, x, time_, self.schedule.previous(time_, self.info.steps))
        pictures = F.pixel_shuffle(pixels.flatten(0, 1), config.vae.downscale)
        weights = 1 + (batch.weights.flatten(0, 1) - 1) * ((MOUTH_WEIGHT - 1) / MOUTH_CELL_WEIGHT)
        return x.flatten(0, 1), pictures, F.interpolate(weights, pictures.shape[-2:])


class _Both(Reconstruction):
    """The module that accelerate wraps: pictures by way of the encoder, and pictures of given latents."""

    def forward(self, images: Tensor, noise: Tensor, latents: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        return super().forward(images, noise)[0], None if latents is None else self.vae.decode(latents)


class DecoderTask:
    """The reconstruction loss of `pictures`, plus that of sampled latents."""

    def __init__(self, pictures: VAETask, sampled: Sampled | None, clips: int) -> None:
        self.pictures, self.sampled, self.clips = pictures, sampled, clips
        self.module: nn.Module = _Both(pictures.vae).to(memory_format=torch.channels_last)
        self.batch = max(pictures.batch, clips)
        self.parameter_groups, self.describe, self.preview = (
            pictures.parameter_groups,
            pictures.describe,
            pictures.preview,
        )

    def settings(self) -> dict[str, Any]:
        return {**self.pictures.settings(), "sampled": self.clips}

    def losses(self, module: nn.Module, step: int, generators: list[torch.Generator]) -> dict[str, Tensor]:
        images, masks, noise = self.pictures.draw(generators[: self.pictures.batch])
        latents = None
        if self.sampled is not None:
            latents, truth, weight = self.sampled.draw(generators[: self.clips])
        output, decoded = module(images, noise, latents)
        terms = self.pictures.terms(output.float(), images, masks)
        if decoded is None:
            return terms
        sampled = reconstruction_loss(decoded.float(), truth, weight)
        return {**terms, "loss": terms["loss"] + sampled, "sampled": sampled}


def run(config: DecoderConfig) -> list[Path]:
    """Train as far as it is not yet; returns the written checkpoints, one a model.

    Raises:
        FadaError: the models have different encoders, or the training was stopped by a signal.
    """
    accelerator = Accelerator(cpu=config.cpu, mixed_precision=config.mixed_precision)
    torch.manual_seed(config.loop.seed)
    loaded = [load_checkpoint(name) for name in config.models]
    models = [(with_decoder(networks, PORTRAIT.vae), info) for networks, info in loaded]
    vae = models[0][0].vae
    for name, (networks, _) in zip(config.models, models, strict=True):
        first, other = vae.encoder.state_dict(), networks.vae.encoder.state_dict()
        if any(not torch.equal(value, other[key]) for key, value in first.items()):
            raise FadaError(f"'{name}' has another encoder than '{config.models[0]}'; give models that share theirs.")
    model = models[0][0].config
    counts = (config.clips, config.clips if config.moderate_clips is None else config.moderate_clips)
    sets = [
        AvatarSet(config.data or config.out / "data", pool, count, config.clip_seconds, model.size, model.fps)
        for pool, count in zip(POOLS, counts, strict=True)
    ]
    with accelerator.main_process_first():
        for pool in sets:
            pool.render(config.workers)
    sampled = None
    if config.sampled_batch:
        networks, info = models[-1]
        check_closeups(model, config.sampled_cells)
        networks.to(accelerator.device)
        cache = config.latents or config.out / "latents"
        encoded = [_WithPictures(encode_clips(s, networks, accelerator, cache), s, model.vae.downscale) for s in sets]
        sampled = Sampled(networks, info, ConcatDataset(encoded), config.sampled_cells)
        vae.requires_grad_(True).encoder.requires_grad_(False)
    pictures = VAETask(vae, Pools(sets), config.batch, config.crop)
    task = DecoderTask(pictures, sampled, config.sampled_batch)
    started = time.monotonic()
    if not train(task, config.loop, config.out / "decoder", accelerator, float("inf")):
        raise FadaError("The training was stopped; start again to go on.")
    log.info("%d steps, %.0f minutes", config.loop.steps, (time.monotonic() - started) / 60)
    written = []
    for name, (networks, info) in zip(config.models, models, strict=True):
        networks.vae = vae.cpu()
        target = config.out / f"{Path(name).stem}.safetensors"
        if accelerator.is_main_process:
            save_checkpoint(target, networks, info, dtype=torch.float16)
            log.info("wrote %s", target)
        written.append(target)
    return written


def main() -> int:
    return run_command(run, DecoderConfig, "pretrain.decoder", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
