"""Command: train variants of the distillation under equal conditions, and compare them on held-out avatars.

python -m fada_core.evaluate.ablation --out runs/ablation --steps 300

The same command resumes an interrupted ablation: finished trainings and measurements are kept.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypedDict

from ..command import run_command
from ..distill.__main__ import parse
from ..distill.__main__ import run as distil
from ..distill.config import arguments
from ..errors import FadaError
from ..pipeline import load
from ..settings import Mode
from ..training.state import saved_states
from .cases import avatar_sets
from .report import from_json, markdown_by_run, to_json
from .runs import Run, Summary, collect, summarise, summarise_all

log = logging.getLogger("fada.ablation")

METRICS = (
    "nfe_per_clip", "seconds_per_video", "lips_r", "lips_error", "lips_spread", "openness_at_rest", "psnr_last_clip",
    "flicker", "frechet_frames", "frechet_clips",
)  # fmt: skip
"""Columns of the table; results.json has all metrics."""
PAIRED = ("lips_r", "lips_error", "lips_spread", "openness_at_rest", "psnr_last_clip", "flicker")
"""Columns of the table of differences to the baseline."""
BASELINE = "naive"
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
"""Differences of each variant from the defaults of `python -m fada_core.distill`. naive is distillation without FADA's
ideas: from the teacher alone, on the teacher's own data. adaptive is the defaults."""


class Found(TypedDict):
    """Measurements of one run."""

    summary: Summary
    videos: list[dict[str, float]]  #: metrics of each video


@dataclass(frozen=True)
class AblationConfig:
    """Compare variants of the distillation, trained from the same teacher for the same steps with the same seed."""

    out: Path
    """Folder for the trainings, results.json and results.md."""
    teacher: str = "portrait-teacher"
    """Name of a shipped model, or a teacher checkpoint."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    steps: int = 300
    """Steps of each training."""
    clips: int = 640
    """Number of training clips of each pool."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "bf16"
    cache: Path | None = None
    """Folder of rendered and encoded clips; default OUT/cache."""
    balanced: tuple[str, ...] = ("naive", "constant", "adaptive")
    """Variants that are also measured in the mode balanced."""
    sets: tuple[Literal["closed", "open"], ...] = ("closed", "open")
    videos: int = 12
    """Number of videos of each set."""
    seconds: float = 4.0
    ref_cfg: float = 1.5
    audio_cfg: float = 2.0
    teacher_videos: bool = True
    """Also measure the teacher at 25 steps (75 NFE), which takes longer than all else."""


def train(config: AblationConfig, name: str) -> Path:
    """Train a variant, or resume its training, and return its checkpoint.

    Raises:
        FadaError: the training was stopped by a signal, which leaves a checkpoint of the steps so far.
    """
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
    reached = saved_states(folder)[-1][0]
    if reached < config.steps:
        raise FadaError(f"'{name}' was stopped at step {reached} of {config.steps}; start again to resume.")
    return folder / "student.safetensors"


def measure(config: AblationConfig, name: str, runs: Sequence[Run]) -> dict[str, dict[str, Found]]:
    """Measure runs and the ground truth, {set: {run: Found}}; kept as OUT/NAME/found.json for the same settings."""
    kept = config.out / name / "found.json"
    settings = {
        "videos": config.videos,
        "seconds": config.seconds,
        "scales": [config.ref_cfg, config.audio_cfg],
        "runs": [run.name for run in runs],
        "sets": list(config.sets),
    }
    if kept.exists():
        found = from_json(kept.read_text(encoding="utf-8"))
        if found.pop("settings") == settings:
            return found
    found = {}
    for data in avatar_sets(config.sets, config.videos, config.seconds, runs[0].pipe.config):
        tallies = collect(data, runs)
        summaries = summarise_all(tallies)
        found[data.name] = {run: {"summary": summaries[run], "videos": tallies[run].rows} for run in tallies}
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(to_json(found | {"settings": settings}), encoding="utf-8")
    return found


def plan(config: AblationConfig, name: str, path: str | Path) -> list[Run]:
    """The runs that measure the checkpoint of a variant or of the teacher."""
    run = Run("teacher", load(path), mode="teacher", steps=25, ref_cfg=config.ref_cfg, audio_cfg=config.audio_cfg)
    if name == "teacher":
        return [run]
    modes: tuple[Mode, ...] = ("balanced", "fast") if name in config.balanced else ("fast",)
    return [replace(run, name=f"{name} {mode}", mode=mode, steps=run.pipe.info.steps) for mode in modes]


def paired(videos: Sequence[Mapping[str, float]], others: Sequence[Mapping[str, float]]) -> Summary:
    """Mean and 95 % interval of the differences between videos of the same portrait, words and start noise."""
    pairs = zip(videos, others, strict=True)
    return summarise([{name: row[name] - other[name] for name in row.keys() & other.keys()} for row, other in pairs])


def run(config: AblationConfig) -> dict[str, dict[str, Summary]]:
    """Train and measure what is missing; write results.json and results.md.

    Returns:
        {set: {run: {metric: {mean, ci95, n}}}}

    Raises:
        FadaError: an unknown variant, or a training that was stopped.
    """
    unknown = sorted(set(config.variants) - set(VARIANTS))
    if unknown:
        raise FadaError(f"There is no variant '{unknown[0]}'; choose from {', '.join(VARIANTS)}.")
    found: dict[str, dict[str, Found]] = {}
    for name in (*(["teacher"] if config.teacher_videos else []), *config.variants):
        path = config.teacher if name == "teacher" else train(config, name)
        for data, runs in measure(config, name, plan(config, name, path)).items():
            found.setdefault(data, {}).update(runs)
    results = {data: {run: entry["summary"] for run, entry in runs.items()} for data, runs in found.items()}
    tables = [markdown_by_run(results, METRICS)]
    for data, runs in found.items():
        others = {}
        for run, entry in runs.items():
            base = f"{BASELINE} {run.split()[-1]}"
            if base in runs and base != run:
                others[run] = paired(entry["videos"], runs[base]["videos"])
        if others:
            tables.append(markdown_by_run({f"{data}, difference to {BASELINE} in the same mode": others}, PAIRED))
    (config.out / "results.json").write_text(to_json(results), encoding="utf-8")
    (config.out / "results.md").write_text("\n".join(tables), encoding="utf-8")
    return results


def main() -> int:
    return run_command(run, AblationConfig, "evaluate.ablation", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
