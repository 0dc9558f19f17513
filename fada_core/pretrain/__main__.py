"""Command: train an autoencoder, an audio projection and a teacher, and write a checkpoint. Start again to resume."""

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
from torch import nn

from ..atomic import whole_file
from ..checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from ..command import run_command
from ..config import PORTRAIT
from ..data.augment import Augmented
from ..data.avatars import AvatarSet
from ..data.batches import check_closeups
from ..data.manifest import ManifestSet
from ..data.samples import Pool, encode_clips
from ..errors import FadaError
from ..models.networks import Networks
from ..models.vae import TinyVAE
from ..settings import SamplingSettings
from ..training import LoopConfig, train
from ..training.preview import preview_avatars
from .speech import SpeechTask, Utterances
from .teacher import TeacherTask
from .vae import Pools, VAETask

log = logging.getLogger("fada.pretrain")

POOLS: tuple[Pool, ...] = ("high", "moderate")
AUTOENCODER = "autoencoder.safetensors"
AUDIO_PROJECTION = "audioproj.safetensors"


@dataclass
class PretrainConfig:
    """Train a teacher of the preset `portrait`; each stage resumes from its newest state."""

    out: Path
    """Folder for data, states, previews and, at the end, teacher.safetensors."""
    base: str | None = None
    """Name of a shipped teacher, or a teacher's checkpoint, to train further; its autoencoder stays unchanged. Without
    it, all networks start from fresh weights."""
    data: str = "avatars"
    """`avatars`, or a manifest (.jsonl) as `fada_core.prepare` writes it. The autoencoder is trained on both pools, the
    teacher on the high pool only."""
    stage: Literal["data", "vae", "speech", "all"] = "all"
    """The last stage to run."""
    max_minutes: float = 0.0
    """Stop after this time and write the state (0: no limit). In the last stage, the teacher's training on clips,
    the checkpoint is written even so."""
    clips: int = 640
    """Avatars to render per pool, with one clip each."""
    clip_seconds: float = 2.4
    """Length of a clip."""
    versions: int = 2
    """Versions of each clip for the teacher: the clip itself, and copies with random framing and colours."""
    workers: int = os.cpu_count() or 1
    """Number of processes for rendering."""
    vae_batch: int = 16
    """Pictures per step and process."""
    vae_crop: int = 128
    """Side in pixels of the autoencoder's training crops, which are randomly scaled; 0: whole pictures."""
    vae_textures: float = 0.35
    """Share of the autoencoder's pictures that are synthetic textures, so that it generalises beyond people."""
    utterances: int = 1200
    """Utterances per pool, without pictures, to train the audio projection on; 0: it is trained only as a part of the
    teacher."""
    utterance_seconds: float = 4.0
    """Length of an utterance."""
    speech_batch: int = 64
    """Utterances per step and process."""
    closeup_cells: int = 8
    """Side in latent cells of the crops, mostly around the mouth, that the teacher is trained on first. A crop of half
    the picture's side costs a quarter of the picture. 0: whole pictures from the start."""
    closeup_batch: int = 48
    """Single frames per step and process, cropped."""
    picture_batch: int = 16
    """Single frames per step and process, whole pictures; 0: this stage is skipped."""
    teacher_batch: int = 8
    """Clips per step and process."""
    teacher_closeups: int = 40_000
    """Number of steps at the start of the last stage in which the clips are cropped to `closeup_cells`, too."""
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
    """Train on the CPU even if there is a GPU."""
    sampling_steps: int = 6
    """The checkpoint's default number of steps; with more, open mouths have smeared surroundings (docs/RESULTS.md)."""
    ref_cfg: float = 1.0
    """The checkpoint's default guidance scale of the portrait."""
    audio_cfg: float = 1.5
    """The checkpoint's default guidance scale of the speech."""


def run(config: PretrainConfig) -> Path | None:
    """Run the stages up to `config.stage`; returns the checkpoint, or None if none was written.

    Raises:
        FadaError: `config.base` cannot be loaded or is no teacher, `config.closeup_cells` does not fit the preset, the
            data has no usable clip, or a training failed (see `training.train`).
    """
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

    vae = networks.vae
    if config.base is None and isinstance(vae, TinyVAE):
        pictures = Pools([pool for pool in pools if len(pool)])
        if not _autoencoder(config, vae, pictures, accelerator, deadline):
            log.info("stopped in the training of the autoencoder; start again to resume")
            return None
    if config.stage == "vae":
        return None
    if not _audio_projection(config, networks, accelerator, deadline):
        log.info("stopped in the training of the audio projection; start again to resume")
        return None
    if config.stage == "speech":
        return None

    networks.to(accelerator.device)
    clips = encode_clips(Augmented(pools[0], config.versions), networks, accelerator, config.out / "latents")
    settings = SamplingSettings(config.sampling_steps, config.ref_cfg, config.audio_cfg)

    def show(networks: Networks, folder: Path, step: int) -> None:
        preview_avatars(networks, folder, step, [settings])

    stages = [("closeups", config.closeups, config.closeup_batch, config.closeup_cells)] if config.closeup_cells else []
    stages += [("pictures", config.pictures, config.picture_batch, 0)] if config.picture_batch else []
    for name, loop, batch, cells in stages:
        singles = TeacherTask(networks, clips, batch, lambda *_: None, cells, stills=True)
        if not train(singles, loop, config.out / name, accelerator, deadline):
            log.info("stopped in the training of the teacher on %s; start again to resume", name)
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
    """The teacher `name` in the shapes of the preset. Weights that do not fit have fresh values, which is logged."""
    frozen, info = load_checkpoint(name)
    if info.role != "teacher":
        raise FadaError(f"'{name}' is a {info.role}; give a teacher as the base.")
    networks = Networks(replace(PORTRAIT, vae=frozen.config.vae))
    fresh, known = networks.state_dict(), frozen.state_dict()
    fits = {name: value for name, value in known.items() if name in fresh and value.shape == fresh[name].shape}
    left_out = sorted({name.split(".")[0] for name in fresh.keys() - fits.keys()})
    if left_out:
        log.warning("weights in %s of '%s' do not fit the preset and start anew", ", ".join(left_out), name)
    networks.load_state_dict(fresh | fits)
    return networks


def _autoencoder(
    config: PretrainConfig, vae: TinyVAE, pictures: Pools, accelerator: Accelerator, deadline: float
) -> bool:
    """Train the autoencoder, or load the finished one; returns whether it is finished.

    It is never trained again when clips are added: encoded latents and the teacher depend on its exact weights and on
    its statistics of the latents.
    """
    target = config.out / AUTOENCODER
    if not target.exists():
        task = VAETask(vae, pictures, config.vae_batch, config.vae_crop, config.vae_textures)
        if not train(task, config.vae, config.out / "vae", accelerator, deadline):
            return False
        task.set_statistics()
        vae.half().float()  # rounded as in the checkpoint, so that teacher and student have the same latents
        _save(vae, target, accelerator)
    load_model(vae, target)
    return True


def _audio_projection(config: PretrainConfig, networks: Networks, accelerator: Accelerator, deadline: float) -> bool:
    """Train the audio projection, or load the finished one; returns whether the teacher can be trained with it."""
    target, projection = config.out / AUDIO_PROJECTION, networks.audioproj
    if projection is None or not config.utterances:
        return True
    if not target.exists():
        data = Utterances(config.out / "speech" / "data", config.utterances, config.utterance_seconds, networks.config)
        with accelerator.main_process_first():
            data.make(config.workers)
        task = SpeechTask(projection, networks.config, data, config.speech_batch)
        if not train(task, config.speech, config.out / "speech", accelerator, deadline):
            return False
        _save(projection, target, accelerator)
    load_model(projection, target)
    # Gradients of a teacher that does not use the speech yet would make all audio tokens alike, because it treats them
    # as noise.
    projection.requires_grad_(False)
    return True


def _save(module: nn.Module, target: Path, accelerator: Accelerator) -> None:
    """Write the weights of a finished module on the main process; the others wait."""
    if accelerator.is_main_process:
        with whole_file(target) as partial:
            save_model(module, str(partial))
    accelerator.wait_for_everyone()


def main() -> int:
    return run_command(run, PretrainConfig, "pretrain", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
