"""Command: train a new decoder for the latents of existing models, and write these with it. Start again to resume.

python -m fada_core.pretrain.decoder --models portrait-teacher portrait --out runs/decoder

Encoder and UNets are unchanged, so a smaller or better decoder needs no new training of these. It is trained on the
encoder's latents and on latents that the last model samples: errors of sampling, which encoded latents do not have,
would otherwise be decoded to bright specks.
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
from torch.utils.data import ConcatDataset, Dataset

from ..checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from ..command import run_command
from ..config import PORTRAIT, VAEConfig
from ..data.avatars import AvatarSet
from ..data.batches import check_closeups, closeups, draw_batch
from ..data.samples import MOUTH_WEIGHT as MOUTH_CELL_WEIGHT
from ..data.samples import ClipDataset, ClipSample, EncodedClips, Pool, encode_clips
from ..errors import FadaError
from ..media.image import from_uint8
from ..models.networks import Networks
from ..models.vae import TinyVAE
from ..sampling.schedule import NoiseSchedule
from ..training import LoopConfig, train
from .vae import MOUTH_WEIGHT, Pools, VAETask, autoencode, reconstruction_loss

log = logging.getLogger("fada.pretrain")
POOLS: tuple[Pool, ...] = ("high", "moderate")


@dataclass
class DecoderConfig:
    """Train a decoder in the shape of the preset `portrait` for the latents of existing models."""

    out: Path
    """Folder for states, previews and, at the end, one file per model."""
    models: tuple[str, ...] = ("portrait-teacher", "portrait")
    """Names of shipped models, or checkpoints, that share one encoder."""
    data: Path | None = None
    """Folder of rendered avatars (default: OUT/data). Trainings can share it."""
    latents: Path | None = None
    """Folder of encoded clips (default: OUT/latents). Trainings can share it."""
    clips: int = 480
    """Avatars per pool."""
    moderate_clips: int | None = None
    """Avatars of the moderate pool (default: as many as of the high pool)."""
    clip_seconds: float = 2.4
    """Length of a clip."""
    workers: int = os.cpu_count() or 1
    """Number of processes for rendering."""
    batch: int = 16
    """Pictures per step and process."""
    crop: int = 128
    """Side in pixels of the training crops, which are randomly scaled; 0: whole pictures."""
    sampled_batch: int = 2
    """Clips per step and process whose latents the last model samples; 0: train on the encoder's latents only."""
    sampled_cells: int = 8
    """Side in latent cells of the sampled crops, mostly around the mouth; 0: whole pictures."""
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=2500, learning_rate=1.2e-3, max_grad_norm=1.0, weight_decay=0.0)
    )
    mixed_precision: Literal["no", "bf16"] = "bf16"
    cpu: bool = False
    """Train on the CPU even if there is a GPU."""


def replace_decoder(networks: Networks, like: VAEConfig) -> TinyVAE:
    """Replace the decoder by one in the shape of `like`, in place; returns the autoencoder, whose encoder is frozen.

    Layers that have the same name and shape in the old decoder keep their weights; the others start from fresh ones.

    Raises:
        FadaError: the autoencoder is not the project's own.
    """
    old = networks.config.vae
    if old.kind != "tiny":
        raise FadaError(
            f"The autoencoder of '{networks.config.name}' is of the kind {old.kind}; give models whose VAE is tiny."
        )
    shape = {name: getattr(like, name) for name in ("decoder_cell", "decoder_widths", "decoder_blocks")}
    networks.config = replace(networks.config, vae=replace(old, **shape))
    fresh = TinyVAE(networks.config.vae)
    begun = fresh.state_dict()
    before = networks.vae.state_dict().items()
    fresh.load_state_dict(begun | {k: v for k, v in before if k in begun and v.shape == begun[k].shape})
    fresh.encoder.requires_grad_(False)
    networks.vae = fresh
    return fresh


@dataclass(frozen=True)
class _WithPictures(Dataset[ClipSample]):
    """Clips whose latents have the pixels as further channels, so that latents and pictures are cropped alike."""

    clips: EncodedClips
    source: AvatarSet  #: the same clips: as all have the same settings, encoding leaves out none of them
    cell: int  #: side of a latent cell in pixels

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
    """Latents that a model samples, starting from the noised latents of a clip at a random step of the schedule."""

    def __init__(self, networks: Networks, info: CheckpointInfo, clips: ClipDataset, cells: int) -> None:
        self.networks = networks.eval().requires_grad_(False)
        self.info, self.clips, self.cells = info, clips, cells
        self.schedule = NoiseSchedule(networks.config.schedule)

    @torch.no_grad()
    def draw(self, generators: list[torch.Generator]) -> tuple[Tensor, Tensor, Tensor]:
        """Draw one clip per generator: sampled latents (n * frames, c, h, w), true pictures (n * frames, 3, H, W) in
        -1..1, and weights (n * frames, 1, H, W) for `reconstruction_loss`."""
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
        # Not from pure noise, from which the mouths would differ from those in the true pictures.
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


class _Both(nn.Module):
    """Reconstructions of pictures, and pictures of given latents, in one forward pass, which accelerate wraps."""

    def __init__(self, vae: TinyVAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, images: Tensor, noise: Tensor, latents: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        return autoencode(self.vae, images, noise)[0], None if latents is None else self.vae.decode(latents)


class DecoderTask:
    """The losses of `pictures` without KL, plus the reconstruction loss of `clips` sampled clips."""

    def __init__(self, pictures: VAETask, sampled: Sampled | None, clips: int) -> None:
        self.pictures, self.sampled, self.clips = pictures, sampled, clips
        self.module: nn.Module = _Both(pictures.vae).to(memory_format=torch.channels_last)
        self.batch = max(pictures.batch, clips)
        self.parameter_groups, self.describe = pictures.parameter_groups, pictures.describe
        self.preview = pictures.preview

    def settings(self) -> dict[str, Any]:
        return {**self.pictures.settings(), "sampled": self.clips}

    def losses(self, module: nn.Module, step: int, generators: list[torch.Generator]) -> dict[str, Tensor]:
        images, masks, noise = self.pictures.draw(generators[: self.pictures.batch])
        if self.sampled is None:
            output, _ = module(images, noise)
            return self.pictures.terms(output.float(), images, masks)
        latents, truth, weight = self.sampled.draw(generators[: self.clips])
        output, decoded = module(images, noise, latents)
        terms = self.pictures.terms(output.float(), images, masks)
        sampled = reconstruction_loss(decoded.float(), truth, weight)
        return {**terms, "loss": terms["loss"] + sampled, "sampled": sampled}


def run(config: DecoderConfig) -> list[Path]:
    """Train the decoder, resuming an earlier run; returns the written checkpoints, one per model.

    Raises:
        FadaError: a model cannot be loaded or has no autoencoder of the kind tiny, the models have different encoders,
            `config.sampled_cells` does not fit them, or the training failed (see `training.train`) or was stopped by a
            signal.
    """
    accelerator = Accelerator(cpu=config.cpu, mixed_precision=config.mixed_precision)
    torch.manual_seed(config.loop.seed)
    loaded = [load_checkpoint(name) for name in config.models]
    vaes = [replace_decoder(networks, PORTRAIT.vae) for networks, _ in loaded]
    vae = vaes[0]
    for name, each in zip(config.models, vaes, strict=True):
        first, other = vae.encoder.state_dict(), each.encoder.state_dict()
        if any(not torch.equal(value, other[key]) for key, value in first.items()):
            raise FadaError(f"'{name}' has another encoder than '{config.models[0]}'; give models that share one.")
    model = loaded[0][0].config
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
        networks, info = loaded[-1]
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
        raise FadaError("The training was stopped; start again to resume.")
    log.info("%d steps, %.0f minutes", config.loop.steps, (time.monotonic() - started) / 60)
    written = []
    for name, (networks, info) in zip(config.models, loaded, strict=True):
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
