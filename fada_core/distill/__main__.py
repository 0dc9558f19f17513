"""Command: distil a teacher into a student with six steps whose guidance scales are inputs. Start again to resume.

python -m fada_core.distill --out runs/student      # the shipped teacher, on avatars
accelerate launch -m fada_core.distill --preset sd15 --teacher hallo.safetensors --data footage.jsonl --out runs/sd15
"""

from __future__ import annotations

import argparse
import copy
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import tyro
from accelerate import Accelerator

from ..checkpoint import CheckpointInfo, load_checkpoint, read_info, save_checkpoint
from ..command import run_command
from ..data.augment import Augmented
from ..data.avatars import AvatarSet
from ..data.batches import check_closeups
from ..data.manifest import ManifestSet
from ..data.samples import ClipDataset, EncodedClips, Pool, encode_clips
from ..data.shards import ShardClips
from ..errors import FadaError
from ..models.networks import Networks
from ..records import shown
from ..sampling.schedule import NoiseSchedule
from ..settings import SamplingSettings
from ..training import train
from ..training.loop import learning_rate, sample_generators
from ..training.preview import preview_avatars
from .config import PRESETS, DistillConfig, arguments, read_yaml
from .student import count_parameters, make_student, merge_lora, select_trainable
from .task import DistillTask
from .teacher import GuidedTeacher

log = logging.getLogger("fada.distill")
DRY_CLIPS = 2  #: clips of each pool, or of a manifest, in a dry run, which then takes less than a minute


def open_data(
    config: DistillConfig, networks: Networks, accelerator: Accelerator
) -> tuple[ClipDataset, dict[Pool, int]]:
    """The encoded clips of `config.data`, and their number by pool; in a dry run only the first few."""
    most = DRY_CLIPS if config.dry_run else None
    cache = config.cache or config.out / "cache"
    model = networks.config
    if config.data == "avatars":
        parts = []
        for pool in config.pools:
            count, seconds = config.avatars.clips, config.avatars.seconds
            if pool == "moderate" and config.avatars.moderate_clips is not None:
                count = config.avatars.moderate_clips
            avatars = AvatarSet(cache / "data", pool, min(count, most or count), seconds, model.size, model.fps)
            with accelerator.main_process_first():
                avatars.render(config.avatars.workers)
            versions = Augmented(avatars, config.avatars.versions)
            parts.append(encode_clips(versions, networks, accelerator, cache / "latents", most))
        paths, pools = [p for part in parts for p in part.paths], [p for part in parts for p in part.pools]
        clips = EncodedClips(paths, pools)
        return clips, clips.counts()
    path = Path(config.data)
    if path.suffix == ".jsonl":
        source = ManifestSet(path, model.size, model.fps, config.pools)
        clips = encode_clips(source, networks, accelerator, cache / "latents", most)
        return clips, clips.counts()
    if path.is_dir() or path.suffix == ".tar":
        shards = ShardClips(path, networks, config.pools)
        return shards, shards.counts()
    raise FadaError(f"There is no data set '{config.data}'; give avatars, a .jsonl manifest or a folder of shards.")


def build(config: DistillConfig, accelerator: Accelerator) -> tuple[DistillTask, CheckpointInfo]:
    """The task with teacher, data and student, and the metadata of the student's checkpoint."""
    _, teacher_info = read_info(config.teacher)
    if teacher_info.role != "teacher":
        raise FadaError(f"'{config.teacher}' is a {teacher_info.role}; distillation starts from a teacher.")
    frozen, _ = load_checkpoint(config.teacher, device=accelerator.device)
    check_closeups(frozen.config, config.closeup_cells if config.closeup_steps else 0)
    data, counts = open_data(config, frozen, accelerator)
    torch.manual_seed(config.loop.seed)
    student = make_student(frozen, config.control)
    select_trainable(student, config.trainable, config.lora_rank)
    student.denoising_unet.gradient_checkpointing = config.gradient_checkpointing
    if accelerator.mixed_precision != "no" and accelerator.device.type != "cpu":
        half = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float16
        for name, part in frozen.named_children():
            if name not in ("vae", "audio_encoder"):
                part.to(half)
    objective = config.objective
    # The student's default scales: the teacher's, limited to the ranges that it is trained for.
    ref_cfg = min(max(teacher_info.ref_cfg, objective.ref_cfg[0]), objective.ref_cfg[1])
    audio_cfg = min(max(teacher_info.audio_cfg, objective.audio_cfg[0]), objective.audio_cfg[1])
    previews = [
        SamplingSettings(steps=objective.steps, ref_cfg=ref_cfg, audio_cfg=audio_cfg, one_pass=one)
        for one in ((True, False) if objective.corners < 1 else (False,))
    ]

    def show(networks: Networks, folder: Path, step: int) -> None:
        preview_avatars(networks, folder, step, previews)

    teacher = GuidedTeacher(frozen, NoiseSchedule(frozen.config.schedule))
    task = DistillTask(
        student,
        teacher,
        data,
        config.batch,
        objective,
        accelerator,
        show,
        Path(config.teacher).stem,
        config.closeup_steps,
        config.closeup_cells,
    )
    parameters = count_parameters(student)
    few = " (only the first ones, for a dry run)" if config.dry_run else ""
    log.info("clips: %s%s", ", ".join(f"{count} {pool}" for pool, count in counts.items()), few)
    log.info(
        "student: %.2f M parameters, %.2f M trained, %.3f M of them new",
        *(parameters[name] / 1e6 for name in ("all", "trained", "control")),
    )
    # The student's float32 weights; gradient, two moments and EMA of the trained ones; the teacher's weights.
    held = parameters["all"] * 4 + parameters["trained"] * 16
    if accelerator.is_fsdp2:
        held /= accelerator.num_processes
    held += sum(p.numel() * p.element_size() for p in frozen.parameters())
    log.info("memory: %.2f GB for weights and optimiser, and more for activations", held / 1e9)
    marks = [round(share * (config.loop.steps - 1)) for share in (0, 0.25, 0.5, 0.75)]
    rates = [f"{learning_rate(config.loop, mark):.2g}" for mark in marks]
    log.info("schedule: %d steps, learning rate %s", config.loop.steps, " -> ".join([*rates, "0"]))
    log.info("student timesteps: %s", teacher.schedule.timesteps(objective.steps))
    facts = {
        "teacher": {"name": Path(config.teacher).stem, **teacher_info.training},
        "clips": counts,
        "steps": config.loop.steps,
        "batch": config.batch * accelerator.num_processes,
        "seed": config.loop.seed,
        "trainable": config.trainable,
        "objective": asdict(objective),
    }
    info = CheckpointInfo(
        role="student",
        steps=objective.steps,
        ref_cfg=ref_cfg,
        audio_cfg=audio_cfg,
        scale_ranges=(objective.ref_cfg, objective.audio_cfg),
        license=teacher_info.license,
        training=facts,
    )
    return task, info


def run(config: DistillConfig) -> Path | None:
    """Distil the teacher; returns the student's checkpoint, or None after a dry run."""
    deadline = time.monotonic() + config.max_minutes * 60 if config.max_minutes else float("inf")
    accelerator = Accelerator(cpu=config.cpu, mixed_precision=config.mixed_precision)
    task, info = build(config, accelerator)
    if config.dry_run:
        task.module.to(accelerator.device)
        with accelerator.autocast():
            terms = task.losses(task.module, 0, sample_generators(config.loop.seed, 0, 0, config.batch))
        accelerator.backward(terms["loss"])
        log.info("one step: %s", ", ".join(f"{name} {value.item():.4g}" for name, value in terms.items()))
        if accelerator.device.type == "cuda":
            log.info("memory at its peak: %.2f GB", torch.cuda.max_memory_allocated() / 1e9)
        return None
    train(task, config.loop, config.out, accelerator, deadline)
    target = config.out / "student.safetensors"
    if accelerator.is_main_process:
        networks = task.module.networks
        if config.trainable == "lora":
            networks = copy.deepcopy(networks)
            merge_lora(networks)
        save_checkpoint(target, networks, info, dtype=torch.float16)
        log.info("wrote %s", target)
    return target


def parse(argv: Sequence[str]) -> DistillConfig:
    """Settings from the preset, then the YAML file, then the command line."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--preset", choices=PRESETS)
    first.add_argument("--config", type=Path)
    chosen, _ = first.parse_known_args(argv)
    settings = read_yaml(chosen.config) if chosen.config else {}
    name = chosen.preset or settings.get("preset", "portrait")
    if not isinstance(name, str) or name not in PRESETS:
        raise FadaError(f"There is no preset {shown(name)}; choose one of {', '.join(PRESETS)}.")
    preset = PRESETS[name]
    return tyro.cli(
        DistillConfig,
        prog="python -m fada_core.distill",
        description=__doc__,
        args=[*arguments(preset), *arguments(settings), *argv],
    )


def main() -> int:
    return run_command(run, parse, "distill")


if __name__ == "__main__":
    sys.exit(main())
