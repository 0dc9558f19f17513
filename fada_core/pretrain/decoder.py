"""Command: train another decoder for the latents that models have already, and put it into them.

python -m fada_core.pretrain.decoder --models portrait-teacher portrait --out runs/decoder

Encoder and UNets stay as they are, so a decoder can be made smaller, or better, without training these again. Start
again to resume.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator

from ..checkpoint import load_checkpoint, save_checkpoint
from ..command import run_command
from ..config import PORTRAIT, VAEConfig
from ..data.avatars import AvatarSet
from ..errors import FadaError
from ..models.networks import Networks
from ..models.vae import TinyVAE
from ..training import LoopConfig, train
from .vae import Pools, VAETask

log = logging.getLogger("fada.pretrain")


@dataclass
class DecoderConfig:
    """Train a decoder of the preset `portrait` for the latents of existing models."""

    out: Path
    """Folder for states, previews and, at the end, a file for each model."""
    models: tuple[str, ...] = ("portrait-teacher", "portrait")
    """Shipped models' names or checkpoints that share one autoencoder."""
    data: Path | None = None
    """Folder of rendered avatars, as other trainings leave it; default OUT/data."""
    clips: int = 480
    """Avatars of each pool."""
    clip_seconds: float = 2.4
    workers: int = os.cpu_count() or 1
    """Processes that render."""
    batch: int = 16
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
    made = (config.clips, config.clip_seconds, model.size, model.fps)
    sets = [AvatarSet(config.data or config.out / "data", pool, *made) for pool in ("high", "moderate")]
    with accelerator.main_process_first():
        for pool in sets:
            pool.render(config.workers)
    task = VAETask(vae, Pools(sets), config.batch)
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
