"""Command: generate videos for held-out avatars and compare them with their renderings; a table, and JSON if asked."""

from __future__ import annotations

import json
import logging
import math
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from tqdm import tqdm

from .. import avatars
from ..data.avatars import HELD_OUT_SEED
from ..errors import FadaError
from ..media.video import VideoWriter
from ..pipeline import Pipeline, load
from .lips import load_regressor
from .metrics import Truth, measure

log = logging.getLogger("fada.evaluate")
Summary = dict[str, dict[str, float]]


@dataclass
class EvaluateConfig:
    """Measure a model on avatars, voices and texts that no training has seen."""

    model: str = "tiny"
    """A shipped model's name or a checkpoint."""
    mode: Literal["teacher", "balanced", "fast"] = "teacher"
    videos: int = 12
    seconds: float = 4.0
    steps: int | None = None
    ref_cfg: float | None = None
    audio_cfg: float | None = None
    solver: Literal["ddim", "dpm++", "unipc"] = "ddim"
    seed: int = 0
    json: Path | None = None
    """Write {set: {mode: {metric: {mean, ci95, n}}}} to this file."""
    out: Path | None = None
    """Folder for the videos, truth on the left and the model on the right."""


def held_out(seconds: float, count: int, size: int) -> list[tuple[Truth, torch.Tensor]]:
    """`count` avatars that speak (silent ones have no correlation), each with its speech (samples,)."""
    found: list[tuple[Truth, torch.Tensor]] = []
    seed = HELD_OUT_SEED
    while len(found) < count:
        clip = avatars.sample(seed, "high", seconds, size=size)
        truth = Truth(clip.portrait, clip.frames.float() / 127.5 - 1, clip.truth)
        if truth.openness.std() > 0.05:
            found.append((truth, torch.as_tensor(clip.waveform)))
        seed += 1
    return found


def summarise(rows: list[dict[str, float]]) -> Summary:
    """Mean, half width of the normal 95 % interval and count of every metric over videos."""
    names = sorted({name for row in rows for name in row})
    summary: Summary = {}
    for name in names:
        values = [row[name] for row in rows if name in row and math.isfinite(row[name])]
        spread = statistics.stdev(values) if len(values) > 1 else math.nan
        summary[name] = {
            "mean": statistics.fmean(values) if values else math.nan,
            "ci95": 1.96 * spread / math.sqrt(max(1, len(values))),
            "n": len(values),
        }
    return summary


def evaluate(pipe: Pipeline, config: EvaluateConfig) -> Summary:
    """Generate and measure; see `metrics.measure` for the names."""
    regressor = load_regressor(pipe.networks.device)
    pairs = held_out(config.seconds, config.videos, pipe.config.size)
    rows = []
    for index, (truth, waveform) in enumerate(tqdm(pairs, desc="videos", mininterval=5)):
        began = time.perf_counter()
        condition = pipe.encode(truth.portrait[None], waveform)
        parts = pipe.sample(
            condition,
            mode=config.mode,
            steps=config.steps,
            ref_cfg=config.ref_cfg,
            audio_cfg=config.audio_cfg,
            seed=config.seed + index,
            solver=config.solver,
        )
        frames = torch.cat([pipe.decode(latents) for latents in parts]).float().cpu()
        seconds = time.perf_counter() - began
        other = pairs[(index + 1) % len(pairs)][0].openness
        with torch.inference_mode():
            row = measure(frames, truth, other, regressor, pipe.config.clip_frames)
        rows.append({**row, "nfe_per_clip": pipe.stats.nfe_per_clip, "seconds_per_video": seconds})
        if config.out is not None:
            side_by_side = torch.cat([truth.frames, frames], dim=3)
            height, width = side_by_side.shape[2:]
            with VideoWriter(config.out / f"{index:03d}.mp4", width, height, pipe.config.fps, waveform) as writer:
                writer.write(side_by_side)
    return summarise(rows)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    config = tyro.cli(EvaluateConfig, prog="python -m fada_core.evaluate", description=__doc__)
    try:
        summary = evaluate(load(config.model), config)
    except FadaError as error:
        sys.exit(f"error: {error}")
    sys.stdout.write("| metric | mean | ± 95 % | n |\n|---|---:|---:|---:|\n")
    for name, value in summary.items():
        sys.stdout.write(f"| {name} | {value['mean']:.3f} | {value['ci95']:.3f} | {value['n']} |\n")
    if config.json is not None:
        config.json.write_text(json.dumps({"closed": {config.mode: summary}}, indent=1))


if __name__ == "__main__":
    main()
