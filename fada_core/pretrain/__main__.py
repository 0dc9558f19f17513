"""Command: render avatars, train the autoencoder, then the teacher, write one checkpoint. Start again to resume."""

from __future__ import annotations

import logging
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator

from ..checkpoint import CheckpointInfo, save_checkpoint
from ..command import run_command
from ..config import preset
from ..data.avatars import AvatarSet
from ..data.manifest import ManifestSet
from ..data.samples import encode_clips
from ..models.networks import Networks
from ..sampling.denoise import SamplingSettings
from ..training import LoopConfig, train
from ..training.preview import preview_avatars
from .teacher import TeacherTask
from .vae import VAETask

log = logging.getLogger("fada.pretrain")


@dataclass
class PretrainConfig:
    """Train the tiny model from nothing; every stage resumes where it was left."""

    out: Path
    """Folder for data, states, previews and, at the end, teacher.safetensors."""
    data: str = "avatars"
    """`avatars`, or a manifest (.jsonl) as `fada_core.prepare` writes it, of which the high pool is taken."""
    stage: Literal["data", "vae", "all"] = "all"
    """The last stage to run."""
    max_minutes: float = 0.0
    """Stop and save after this time (0: no limit); the checkpoint is written with what was learned."""
    clips: int = 640
    """Avatars to render, one short clip each."""
    clip_seconds: float = 2.4
    workers: int = os.cpu_count() or 1
    """Processes that render."""
    vae_batch: int = 16
    teacher_batch: int = 4
    vae: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=1000, learning_rate=1.2e-3, max_grad_norm=1.0, weight_decay=0.0)
    )
    teacher: LoopConfig = field(default_factory=lambda: LoopConfig(steps=5250, learning_rate=8e-4))
    mixed_precision: Literal["no", "bf16"] = "bf16"
    cpu: bool = False
    """Train on the processor even where there is a GPU."""
    sampling_steps: int = 6
    """Default that the checkpoint carries; more did not help the shipped model (docs/RESULTS.md)."""
    ref_cfg: float = 1.0
    """Default scale that the checkpoint carries."""
    audio_cfg: float = 2.0
    """Default scale that the checkpoint carries."""


def run(config: PretrainConfig) -> Path | None:
    """All stages; returns the checkpoint, or None where `stage` ends before it."""
    started = time.monotonic()
    deadline = started + config.max_minutes * 60 if config.max_minutes else float("inf")
    accelerator = Accelerator(cpu=config.cpu, mixed_precision=config.mixed_precision)
    torch.manual_seed(config.teacher.seed)
    networks = Networks(preset("tiny"))
    model = networks.config
    data: AvatarSet | ManifestSet
    if config.data == "avatars":
        data = AvatarSet(config.out / "data", "high", config.clips, config.clip_seconds, model.size, model.fps)
        with accelerator.main_process_first():
            data.render(config.workers)
        origin = f"{config.clips} rendered avatars of {config.clip_seconds} s"
    else:
        data = ManifestSet(config.data, model.size, model.fps, ("high",))
        origin = f"{len(data)} clips of {Path(config.data).name}"
    if config.stage == "data":
        return None

    vae_task = VAETask(networks.vae, data, config.vae_batch)
    if not train(vae_task, config.vae, config.out / "vae", accelerator, deadline) or config.stage == "vae":
        log.info("stopped in the autoencoder's stage; start again to go on")
        return None
    vae_task.set_statistics()

    networks.to(accelerator.device)
    clips = encode_clips(data, networks, accelerator, config.out / "latents")
    way = SamplingSettings(config.sampling_steps, config.ref_cfg, config.audio_cfg)

    def show(networks: Networks, folder: Path, step: int) -> None:
        preview_avatars(networks, folder, step, [way])

    task = TeacherTask(networks, clips, config.teacher_batch, show)
    train(task, config.teacher, config.out / "teacher", accelerator, deadline)
    target = config.out / "teacher.safetensors"
    if accelerator.is_main_process:
        facts = {"data": origin, "seed": config.teacher.seed}
        info = CheckpointInfo("teacher", config.sampling_steps, config.ref_cfg, config.audio_cfg, training=facts)
        save_checkpoint(target, networks, info, dtype=torch.float16)
        log.info("wrote %s", target)
    return target


def main() -> int:
    return run_command(run, PretrainConfig, "pretrain", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
