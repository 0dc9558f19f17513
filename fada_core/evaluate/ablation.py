"""Command: train every variant of the distillation alike, and compare them on held-out avatars.

python -m fada_core.evaluate.ablation --out runs/ablation --steps 300

Stopped, the same command goes on where it was: finished variants keep their checkpoints.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from ..distill.__main__ import parse
from ..distill.__main__ import run as distil
from ..distill.config import arguments
from ..errors import FadaError
from ..pipeline import load
from .cases import POOLS, AvatarCases, EvaluationSet, held_out_words
from .frechet import clip_features, frame_features
from .lips import load_regressor
from .report import markdown_by_run, to_json
from .runs import Run, Summary, evaluate

log = logging.getLogger("fada.ablation")

METRICS = (
    "nfe_per_clip", "seconds_per_video", "lips_r", "lips_spread", "openness_at_rest", "psnr_last_clip", "flicker",
    "frechet_frames", "frechet_clips",
)  # fmt: skip
"""Columns of the table; results.json has all."""
VARIANTS: dict[str, dict[str, Any]] = {
    "naive": {"pools": ["high"], "objective": {"mixer": "constant", "teacher_share": 1.0}},
    "constant": {"objective": {"mixer": "constant"}},
    "ratio": {"objective": {"mixer": "ratio"}},
    "grad_norm": {"objective": {"mixer": "grad_norm"}},
    "adaptive": {},
    "embedding": {"control": {"kind": "embedding"}},
    "phased": {"objective": {"strategy": "phased"}},
    "trajectory": {"objective": {"strategy": "trajectory"}},
}
"""What each differs in from the defaults of `python -m fada_core.distill`. naive is distillation as before FADA: from
the teacher alone, on the data that the teacher knows. adaptive is the defaults."""


@dataclass(frozen=True)
class AblationConfig:
    """Compare variants of the distillation, trained from one teacher for the same steps with the same seed."""

    out: Path
    """Folder for the trainings, results.json and results.md."""
    teacher: str = "tiny-teacher"
    """A shipped model's name or a teacher checkpoint."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    steps: int = 300
    """Of each training."""
    clips: int = 640
    """Avatars of each pool."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "bf16"
    cache: Path | None = None
    """Folder of rendered and encoded clips; default OUT/cache."""
    videos: int = 12
    """Of each set."""
    seconds: float = 4.0
    ref_cfg: float = 1.5
    audio_cfg: float = 2.0
    teacher_videos: bool = True
    """Also measure the teacher at 25 steps, 75 evaluations, which takes longer than all else."""


def train(config: AblationConfig, name: str) -> Path:
    """The checkpoint of a variant, trained as far as it is not yet."""
    folder = config.out / name
    settings = {
        "out": folder,
        "teacher": config.teacher,
        "cache": config.cache or config.out / "cache",
        "mixed_precision": config.mixed_precision,
        "avatars": {"clips": config.clips},
        "loop": {"steps": config.steps, "preview_every": config.steps},
    }
    log.info("%s: %s", name, VARIANTS[name] or "the defaults")
    distil(parse([*arguments(settings), *arguments(VARIANTS[name])]))
    return folder / "student.safetensors"


def compare(config: AblationConfig, students: Mapping[str, Path]) -> dict[str, dict[str, Summary]]:
    """{set: {run: {metric: {mean, ci95, n}}}} of the teacher and of every student as balanced and as fast."""
    scales = {"ref_cfg": config.ref_cfg, "audio_cfg": config.audio_cfg}
    teacher = load(config.teacher)
    runs = [Run("teacher", teacher, "teacher", 25, **scales)] if config.teacher_videos else []
    for name, path in students.items():
        pipe = load(path)
        runs += [Run(f"{name} {mode}", pipe, mode, pipe.info.steps, **scales) for mode in ("balanced", "fast")]
    model, regressor = teacher.config, load_regressor()
    words = held_out_words(config.videos, config.seconds, model.fps)
    features = {"frechet_frames": frame_features, "frechet_clips": clip_features}
    results = {}
    for name, pool in POOLS.items():
        cases = AvatarCases(words, pool, config.seconds, model.size, model.fps, model.clip_frames, regressor)
        results[name] = evaluate(EvaluationSet(name, len(words), cases, features), runs)
    return results


def run(config: AblationConfig) -> dict[str, dict[str, Summary]]:
    """Train what is missing, measure all, write results.json and results.md.

    Raises:
        FadaError: a variant that there is not.
    """
    unknown = sorted(set(config.variants) - set(VARIANTS))
    if unknown:
        raise FadaError(f"There is no variant '{unknown[0]}'; choose from {', '.join(VARIANTS)}.")
    results = compare(config, {name: train(config, name) for name in config.variants})
    (config.out / "results.json").write_text(to_json(results), encoding="utf-8")
    (config.out / "results.md").write_text(markdown_by_run(results, METRICS), encoding="utf-8")
    return results


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        run(tyro.cli(AblationConfig, prog="python -m fada_core.evaluate.ablation", description=__doc__))
    except FadaError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
