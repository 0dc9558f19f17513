"""Command: render avatars; train autoencoder, audio projection, teacher; write a checkpoint. Start again to resume."""

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
from safetensors.torch import load_model, save_model

from ..atomic import whole_file
from ..checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from ..command import run_command
from ..config import PORTRAIT
from ..data.augment import Augmented
from ..data.avatars import AvatarSet
from ..data.batches import check_closeups
from ..data.manifest import ManifestSet
from ..data.samples import encode_clips
from ..errors import FadaError
from ..models.networks import Networks
from ..settings import SamplingSettings
from ..training import LoopConfig, train
from ..training.preview import preview_avatars
from .speech import SpeechTask, Utterances
from .teacher import TeacherTask
from .vae import Pools, VAETask

log = logging.getLogger("fada.pretrain")

POOLS = ("high", "moderate")
AUTOENCODER = "autoencoder.safetensors"
AUDIO_PROJECTION = "audioproj.safetensors"


@dataclass
class PretrainConfig:
    """Train a model of the preset `portrait` from nothing; every stage resumes where it was left."""

    out: Path
    """Folder for data, states, previews and, at the end, teacher.safetensors."""
    base: str | None = None
    """A shipped model's name or a teacher's checkpoint to train further, in place of fresh networks: its autoencoder
    stays as it is."""
    data: str = "avatars"
    """`avatars`, or a manifest (.jsonl) as `fada_core.prepare` writes it. The autoencoder sees both pools, the teacher
    the high one alone."""
    stage: Literal["data", "vae", "speech", "all"] = "all"
    """The last stage to run."""
    max_minutes: float = 0.0
    """Stop and save after this time (0: no limit); the checkpoint is written with what was learned."""
    clips: int = 640
    """Avatars of each pool to render, one short clip each."""
    clip_seconds: float = 2.4
    versions: int = 2
    """Of every clip that the teacher learns from: as it is, and changed in framing and colours."""
    workers: int = os.cpu_count() or 1
    """Processes that render."""
    vae_batch: int = 16
    """Pictures a step and process."""
    vae_crop: int = 128
    """Side in pixels of the parts of pictures that the autoencoder learns from, at all scales; 0: whole pictures."""
    vae_textures: float = 0.35
    """Share of its pictures that show no person but dead leaves, so that it works on any picture."""
    utterances: int = 1200
    """Of each pool, for the audio projection: avatars that are heard and not seen; 0: it learns with the teacher
    alone."""
    utterance_seconds: float = 4.0
    speech_batch: int = 64
    """Utterances a step and process."""
    closeup_cells: int = 8
    """Side in latent cells of the parts of pictures, around mouths, that the teacher learns from first: half of the
    picture's side costs a quarter. 0: whole pictures from the start."""
    closeup_batch: int = 48
    """Single frames a step and process."""
    picture_batch: int = 16
    """Single frames a step and process, whole pictures; 0: from close-ups to clips at once."""
    teacher_batch: int = 8
    """Clips a step and process."""
    teacher_closeups: int = 40_000
    """The first steps of the last stage, those that learn from close-ups of clips."""
    vae: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=4000, learning_rate=6e-4, max_grad_norm=1.0, weight_decay=0.0)
    )
    speech: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=4000, learning_rate=1e-3, preview_every=1000, save_every=500)
    )
    closeups: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=12_000, learning_rate=1e-3, warmup_steps=200, decay_share=0.2, ema_decay=0.999
        )
    )
    pictures: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=8000, learning_rate=8e-4, warmup_steps=200, decay_share=0.2, ema_decay=0.999
        )
    )
    teacher: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=60_000, learning_rate=8e-4, warmup_steps=200, ema_decay=0.9995)
    )
    mixed_precision: Literal["no", "bf16"] = "bf16"
    cpu: bool = False
    """Train on the processor even where there is a GPU."""
    sampling_steps: int = 6
    """Default that the checkpoint carries; more smear around open mouths (docs/RESULTS.md)."""
    ref_cfg: float = 1.0
    """Default scale that the checkpoint carries."""
    audio_cfg: float = 1.5
    """Default scale that the checkpoint carries."""


def run(config: PretrainConfig) -> Path | None:
    """All stages; returns the checkpoint, or None where `stage` ends before it."""
    started = time.monotonic()
    deadline = started + config.max_minutes * 60 if config.max_minutes else float("inf")
    accelerator = Accelerator(cpu=config.cpu, mixed_precision=config.mixed_precision)
    torch.manual_seed(config.teacher.seed)
    networks = Networks(PORTRAIT) if config.base is None else _read_base(config.base)
    model = networks.config
    check_closeups(model, config.closeup_cells)
    pools: list[AvatarSet] | list[ManifestSet]
    if config.data == "avatars":
        made = (config.clips, config.clip_seconds, model.size, model.fps)
        pools = [AvatarSet(config.out / "data", pool, *made) for pool in POOLS]
        with accelerator.main_process_first():
            only_teacher = config.base is not None or (config.out / AUTOENCODER).exists()
            for pool in pools[: 1 if only_teacher else None]:
                pool.render(config.workers)
        origin = f"{config.clips} rendered avatars of {config.clip_seconds} s"
    else:
        pools = [ManifestSet(config.data, model.size, model.fps, (pool,)) for pool in POOLS]
        origin = f"{len(pools[0])} clips of {Path(config.data).name}"
    if config.stage == "data":
        return None

    pictures = Pools([pool for pool in pools if len(pool)])
    if config.base is None and not _autoencoder(config, networks, pictures, accelerator, deadline):
        log.info("stopped in the autoencoder's stage; start again to go on")
        return None
    if config.stage == "vae":
        return None
    if not _audio_projection(config, networks, accelerator, deadline):
        log.info("stopped in the speech stage; start again to go on")
        return None
    if config.stage == "speech":
        return None

    networks.to(accelerator.device)
    clips = encode_clips(Augmented(pools[0], config.versions), networks, accelerator, config.out / "latents")
    way = SamplingSettings(config.sampling_steps, config.ref_cfg, config.audio_cfg)

    def show(networks: Networks, folder: Path, step: int) -> None:
        preview_avatars(networks, folder, step, [way])

    stages = [("closeups", config.closeups, config.closeup_batch, config.closeup_cells)] if config.closeup_cells else []
    stages += [("pictures", config.pictures, config.picture_batch, 0)] if config.picture_batch else []
    for name, loop, batch, cells in stages:
        singles = TeacherTask(networks, clips, batch, lambda *_: None, cells, stills=True)
        if not train(singles, loop, config.out / name, accelerator, deadline):
            log.info("stopped among the %s; start again to go on", name)
            return None
    task = TeacherTask(networks, clips, config.teacher_batch, show, config.closeup_cells, config.teacher_closeups)
    train(task, config.teacher, config.out / "teacher", accelerator, deadline)
    target = config.out / "teacher.safetensors"
    if accelerator.is_main_process:
        facts = {"data": origin, "seed": config.teacher.seed}
        if config.base is not None:
            facts["base"] = Path(config.base).stem
        info = CheckpointInfo("teacher", config.sampling_steps, config.ref_cfg, config.audio_cfg, training=facts)
        save_checkpoint(target, networks, info, dtype=torch.float16)
        log.info("wrote %s", target)
    return target


def _read_base(name: str) -> Networks:
    frozen, info = load_checkpoint(name)
    if info.role != "teacher":
        raise FadaError(f"'{name}' is a {info.role}; pretraining goes on from a teacher.")
    networks = Networks(replace(PORTRAIT, vae=frozen.config.vae))
    fresh, known = networks.state_dict(), frozen.state_dict()
    fits = {name: value for name, value in known.items() if name in fresh and value.shape == fresh[name].shape}
    left_out = sorted({name.split(".")[0] for name in fresh.keys() - fits.keys()})
    if left_out:
        log.warning("%s of '%s' has other shapes than the preset has now, and begins anew", ", ".join(left_out), name)
    networks.load_state_dict(fresh | fits)
    return networks


def _autoencoder(
    config: PretrainConfig, networks: Networks, pictures: Pools, accelerator: Accelerator, deadline: float
) -> bool:
    """Train the autoencoder, or take the finished one; returns whether it is finished.

    It is kept in a file of its own, as latents and teachers depend on its very numbers, the latents' statistics too,
    while the set of clips may grow.
    """
    target = config.out / AUTOENCODER
    if not target.exists():
        task = VAETask(networks.vae, pictures, config.vae_batch, config.vae_crop, config.vae_textures)
        if not train(task, config.vae, config.out / "vae", accelerator, deadline):
            return False
        task.set_statistics()
        networks.vae.half().float()  # as checkpoints hold it, so that a student finds the teacher's latents again
        if accelerator.is_main_process:
            with whole_file(target) as partial:
                save_model(networks.vae, partial)
        accelerator.wait_for_everyone()
    load_model(networks.vae, target)
    return True


def _audio_projection(config: PretrainConfig, networks: Networks, accelerator: Accelerator, deadline: float) -> bool:
    """Train the audio projection, or take the finished one; returns whether it is finished."""
    target = config.out / AUDIO_PROJECTION
    if not config.utterances:
        return True
    if not target.exists():
        data = Utterances(config.out / "speech" / "data", config.utterances, config.utterance_seconds, networks.config)
        with accelerator.main_process_first():
            data.make(config.workers)
        task = SpeechTask(networks.audioproj, networks.config, data, config.speech_batch)
        if not train(task, config.speech, config.out / "speech", accelerator, deadline):
            return False
        if accelerator.is_main_process:
            with whole_file(target) as partial:
                save_model(networks.audioproj, partial)
        accelerator.wait_for_everyone()
    load_model(networks.audioproj, target)
    # A teacher that does not use the speech yet takes it for noise, and would make all tokens alike.
    networks.audioproj.requires_grad_(False)
    return True


def main() -> int:
    return run_command(run, PretrainConfig, "pretrain", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
