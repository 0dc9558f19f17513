"""Command: compare teacher, balanced and fast on held-out avatars, portraits or real footage; table, JSON and plots.

python -m fada_core.evaluate --teacher teacher.safetensors --model student.safetensors --json results.json
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..checkpoint import read_info, shipped_models
from ..command import run_command
from ..errors import FadaError
from ..pipeline import Pipeline, load
from ..settings import MODES, Compute, Mode, SamplingSettings, Solver
from .cases import SILENCE, EvaluationSet, avatar_sets
from .footage import FootageConfig, footage_set
from .portraits import PortraitsConfig, portrait_sets
from .report import markdown, to_json
from .runs import Run, Summary, evaluate
from .sweep import sweep

TEACHER_STEPS = SamplingSettings().steps  #: the paper's 25
QUICK_VIDEOS, QUICK_SECONDS = 3, 1.44


@dataclass(frozen=True)
class EvaluateConfig:
    """Measure models on portraits, voices and texts that were in no training."""

    model: str = "portrait"
    """Name of a shipped model, or a checkpoint: a student, for the modes balanced and fast, or a teacher."""
    teacher: str | None = None
    """Checkpoint of the teacher, where --model is a student (default: for a shipped student NAME, NAME-teacher)."""
    modes: tuple[Mode, ...] = ()
    """Modes to compare (default: all modes of the checkpoints)."""
    sets: tuple[Literal["closed", "open"], ...] = ("closed", "open")
    """closed: avatars like those that the teacher has seen; open: styles of the moderate pool, without its defects."""
    videos: int = 12
    """Number of videos of each set."""
    seconds: float = 4.0
    """Length of each video; avatars are silent for the last half second."""
    quick: bool = False
    """Only 3 videos of 1.44 s for each set: a few minutes on two CPU cores, with wide intervals."""
    steps: tuple[int, ...] = ()
    """Denoising steps per clip: one number for all modes or one for each (default: 25 for teacher, as in the paper; for
    balanced and fast those of the checkpoint)."""
    ref_cfg: float | None = None
    """Guidance towards the portrait, in all modes (default: that of --model; the paper has 2.0)."""
    audio_cfg: float | None = None
    """Guidance towards the speech, in all modes (default: that of --model; the paper has 6.5)."""
    solver: Solver = "ddim"
    compute: Compute = "eager"
    """How the networks run: compiling takes minutes before the first video, and saves a tenth of the time of each."""
    seed: int = 0
    """Seed of the start noise, the same for all modes."""
    json: Path | None = None
    """Write {set: {mode: {metric: {mean, ci95, n}}}} to this file; the mode "truth" has the values of the ground
    truth."""
    table: Path | None = None
    """Write the markdown table to this file instead of stdout."""
    out: Path | None = None
    """Folder for the videos: the ground truth on the left, then the modes in order."""
    sweep: Path | None = None
    """Evaluate a range of guidance scales instead, for the modes teacher and fast. This is the folder for sweep.json
    and for plots over the audio scale (at ref_cfg) and the ref scale (at audio_cfg), like the paper's figures 3 and 4.
    """
    pictures: Annotated[PortraitsConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=PortraitsConfig)
    footage: Annotated[FootageConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=FootageConfig)


def load_pipelines(config: EvaluateConfig) -> dict[Mode, Pipeline]:
    """The pipeline of each mode, in the order of `config.modes`.

    Raises:
        FadaError: a mode without a checkpoint, a checkpoint of the wrong role, or checkpoints of different sizes, frame
            rates or clip lengths.
    """
    teacher, shipped = config.teacher, f"{config.model}-teacher"
    if teacher is None and shipped in shipped_models():
        teacher = shipped
    by_role: dict[str, str] = {}
    for name in (config.model, teacher):
        if name is not None:
            role = read_info(name)[1].role
            if name == teacher and role != "teacher":
                raise FadaError(f"--teacher is '{name}', which is a {role}; give a teacher's checkpoint.")
            if role in by_role:
                raise FadaError(f"'{by_role[role]}' and '{name}' are both teachers; give --model a student.")
            by_role[role] = name
    modes = config.modes or tuple(mode for mode, role in MODES.items() if role in by_role)
    for mode in modes:
        if MODES[mode] not in by_role:
            option = "--teacher" if MODES[mode] == "teacher" else "--model"
            raise FadaError(f"Mode '{mode}' needs a {MODES[mode]} checkpoint; give one with {option}.")
    needed = {MODES[mode] for mode in modes}
    pipes = {role: load(name) for role, name in by_role.items() if role in needed}
    facts = {(p.config.size, p.config.fps, p.config.clip_frames) for p in pipes.values()}
    if len(facts) > 1:
        raise FadaError(
            "Teacher and student differ in picture size, frame rate or clip length; compare them in two runs."
        )
    return {mode: pipes[MODES[mode]] for mode in modes}


def plan(config: EvaluateConfig, pipes: dict[Mode, Pipeline]) -> list[Run]:
    """One run for each mode. Raises `FadaError` where the number of `--steps` does not fit."""
    if len(config.steps) not in (0, 1, len(pipes)):
        raise FadaError(f"--steps has {len(config.steps)} numbers for {len(pipes)} modes; give one, or one for each.")
    steps = config.steps * len(pipes) if len(config.steps) == 1 else config.steps
    usual = [TEACHER_STEPS if mode == "teacher" else pipe.info.steps for mode, pipe in pipes.items()]
    _, usual_scales = read_info(config.model)
    ref_cfg = usual_scales.ref_cfg if config.ref_cfg is None else config.ref_cfg
    audio_cfg = usual_scales.audio_cfg if config.audio_cfg is None else config.audio_cfg
    return [
        Run(
            mode,
            pipe,
            mode=mode,
            steps=count,
            ref_cfg=ref_cfg,
            audio_cfg=audio_cfg,
            solver=config.solver,
            compute=config.compute,
        )
        for (mode, pipe), count in zip(pipes.items(), steps or usual, strict=True)
    ]


def build_sets(config: EvaluateConfig, pipe: Pipeline) -> Iterator[EvaluationSet]:
    """The sets that `config` selects, with the size, frame rate and clip length of `pipe`."""
    model, device = pipe.config, pipe.networks.device
    if config.pictures.portraits is not None or config.pictures.peers is not None:
        found = config.pictures, config.seconds, model.size, model.fps, model.clip_frames
        yield from portrait_sets(*found, config.footage.face_model)
        return
    if config.footage.manifest is not None:
        for name in config.sets:
            videos, seconds = config.videos, config.seconds
            yield footage_set(name, config.footage, videos, seconds, model.size, model.fps, device)
        return
    yield from avatar_sets(config.sets, config.videos, config.seconds, model)


def run(config: EvaluateConfig) -> dict[str, dict[str, Summary]]:
    """Run the command, write its files, and return {set: {mode: {metric: {mean, ci95, n}}}}.

    Raises:
        FadaError: no videos or too short ones, and what the functions above raise.
    """
    if config.quick:
        config = replace(config, videos=QUICK_VIDEOS, seconds=QUICK_SECONDS)
    if config.videos < 1 or config.seconds < 2 * SILENCE:
        raise FadaError(f"There is nothing to measure; give at least 1 video of {2 * SILENCE:g} seconds.")
    pipes = load_pipelines(config)
    runs = plan(config, pipes)
    sets = build_sets(config, next(iter(pipes.values())))
    if config.sweep is not None:
        return sweep(sets, runs, config.seed, config.sweep)
    results = {data.name: evaluate(data, runs, config.seed, config.out) for data in sets}
    table = markdown(results)
    if config.table is None:
        sys.stdout.write(table)
    for path, text in ((config.table, table), (config.json, to_json(results))):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return results


def main() -> int:
    return run_command(run, EvaluateConfig, "evaluate", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
