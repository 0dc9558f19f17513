"""Generates the videos of a set with every run that is compared, and collects their metrics."""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..media.video import VideoWriter
from ..pipeline import Pipeline
from ..settings import SamplingOptions
from .cases import Case, EvaluationSet
from .frechet import Features, distance_over_videos

log = logging.getLogger("fada.evaluate")

Summary = dict[str, dict[str, float]]
"""{metric: {mean, ci95, n}}; NaN where nothing could be measured."""
TRUTH = "truth"  #: name of the ground truth among the runs


@dataclass(frozen=True, eq=False)
class Run(SamplingOptions):
    """A pipeline with sampling options; `name` is its name in the results."""

    name: str
    pipe: Pipeline


@dataclass
class Tally:
    """Metrics and features of a run, one entry per video."""

    rows: list[dict[str, float]] = field(default_factory=list)
    features: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, frames: Tensor, row: dict[str, float], features: Mapping[str, Features]) -> None:
        self.rows.append(row)
        for name, function in features.items():
            self.features.setdefault(name, []).append(function(frames).cpu())


def evaluate(data: EvaluationSet, runs: Sequence[Run], seed: int = 0, out: Path | None = None) -> dict[str, Summary]:
    """Summaries of all runs by name, and of the ground truth as "truth"; arguments as for `collect`."""
    return summarise_all(collect(data, runs, seed, out))


def collect(data: EvaluationSet, runs: Sequence[Run], seed: int = 0, out: Path | None = None) -> dict[str, Tally]:
    """Metrics of every video of all runs by name, and of the ground truth as "truth".

    Only one case is in memory at a time. It is rendered once for all runs, and all runs use the same start noise for
    it, so that their differences are not due to chance.

    Args:
        seed: of the first case; the following cases have the following seeds.
        out: folder for the videos: the ground truth on the left, then the runs in order.
    """
    tallies = {name: Tally() for name in (TRUTH, *(run.name for run in runs))}
    for index, case in enumerate(tqdm(data.cases, desc=data.name, total=data.count, mininterval=5)):
        tallies[TRUTH].add(case.frames, case.measure(case.frames), data.features)
        if not index:
            _warm_up(runs, case)
        videos = [case.frames]
        for run in runs:
            frames, effort = generate(run, case, seed + index)
            row = case.measure(frames) | effort
            tallies[run.name].add(frames, row, data.features)
            if case.name:
                log.info("%s, %s: %s", case.name, run.name, ", ".join(f"{k} {v:.3f}" for k, v in row.items()))
            if out is not None:
                videos.append(frames)
        if out is not None:
            _write(out / data.name / f"{index:03d}.mp4", videos, case.waveform, runs[0].pipe.config.fps)
    return tallies


def generate(run: Run, case: Case, seed: int) -> tuple[Tensor, dict[str, float]]:
    """Generate frames (n, 3, size, size) in -1..1 on the CPU; also returns the counted NFE per clip and the seconds."""
    began = time.perf_counter()
    condition = run.pipe.encode(case.portrait[None], case.waveform, region=case.region, identity=case.identity)
    clips = run.pipe.sample(condition, seed=seed, **run.sampling())
    frames = torch.cat([run.pipe.decode(latents).cpu() for latents in clips])
    seconds = time.perf_counter() - began
    return frames, {"nfe_per_clip": run.pipe.stats.nfe_per_clip, "seconds_per_video": seconds}


def _warm_up(runs: Sequence[Run], case: Case) -> None:
    """Generate a video with one step per clip in each mode, so that one-time costs are not measured with the first one.

    It is the whole video, because its last, shorter clip is compiled, too.
    """
    first = {run.mode: run for run in reversed(runs)}
    for run in first.values():
        generate(replace(run, steps=1), case, 0)


def summarise(rows: Sequence[dict[str, float]]) -> Summary:
    """Mean, half the normal 95 % interval (1.96 s / sqrt(n)) and count of every metric over videos."""
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


def summarise_all(tallies: dict[str, Tally]) -> dict[str, Summary]:
    """Summaries of the runs and of the ground truth from the tallies of `collect`."""
    return {name: _summarise(tally, tallies[TRUTH]) for name, tally in tallies.items()}


def _summarise(tally: Tally, truth: Tally) -> Summary:
    summary = summarise(tally.rows)
    if tally is not truth:  # the truth's distance to itself is 0
        for name, features in tally.features.items():
            mean, ci95 = distance_over_videos(features, truth.features[name])
            summary[name] = {"mean": mean, "ci95": ci95, "n": len(features)}
    return summary


def _write(path: Path, videos: Sequence[Tensor], waveform: Tensor, fps: float) -> None:
    side_by_side = torch.cat(list(videos), dim=3)
    height, width = side_by_side.shape[2:]
    with VideoWriter(path, width, height, fps, waveform) as writer:
        writer.write(side_by_side)
