"""Metrics over each guidance scale at a fixed value of the other, as in the paper's figures 3 and 4."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ..checkpoint import CheckpointInfo
from ..errors import FadaError
from .cases import EvaluationSet
from .plots import line_plots
from .report import to_json
from .runs import TRUTH, Run, Summary, evaluate

POINTS = 5  #: of each curve, evenly over the range of the scale
COMPARED = ("teacher", "fast")  #: the modes that the paper compares
PAPER = CheckpointInfo("teacher")  #: ref_cfg 1 to 3, audio_cfg 1 to 10
METRICS = {
    "lips_r": "lips correlation",
    "frechet_clips": "Fréchet distance of clips",
    "sync_d": "Sync-D",
    "fvd": "FVD",
}
"""Metrics to plot, where they were measured; the paper shows FVD and Sync-D."""

Curves = dict[str, dict[float, Summary]]
"""{mode: {scale: {metric: {mean, ci95, n}}}}."""


def sweep(sets: Iterable[EvaluationSet], runs: Sequence[Run], seed: int, folder: Path) -> dict[str, dict[str, Summary]]:
    """Evaluate all scales; write sweep.json, and an SVG for each set and scale, to `folder`.

    Args:
        runs: one for each mode, with the values at which a scale is held while the other varies. The scales vary over
            the range for which the student of fast was distilled; without it, over the range in the paper's figures.

    Returns:
        {set: {run: {metric: {mean, ci95, n}}}}; runs are named "mode ref_cfg audio_cfg".

    Raises:
        FadaError: no run has one of the modes to compare.
    """
    points: dict[str, Run] = {}  # by name; curves share the run at which they cross
    curves: dict[str, dict[str, dict[float, str]]] = {"audio_cfg": {}, "ref_cfg": {}}
    compared = [run for run in runs if run.mode in COMPARED]
    ranges = next((run.pipe.info for run in compared if run.mode == "fast"), PAPER).scale_ranges
    for run in compared:
        for scale, (low, high) in zip(("ref_cfg", "audio_cfg"), ranges, strict=True):
            for index in range(POINTS):
                value = low + (high - low) * index / (POINTS - 1)
                point = replace(run, ref_cfg=value) if scale == "ref_cfg" else replace(run, audio_cfg=value)
                point = replace(point, name=f"{run.mode} {point.ref_cfg:g} {point.audio_cfg:g}")
                points[point.name] = point
                curves[scale].setdefault(run.name, {})[value] = point.name
    if not compared:
        raise FadaError("The sweep compares the modes teacher and fast; give at least one of them with --modes.")
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Summary]] = {}
    plotted: dict[str, dict[str, Summary | Curves]] = {}
    for data in sets:
        found = results[data.name] = evaluate(data, list(points.values()), seed)
        measured = {name for summary in found.values() for name in summary}
        metrics = {name: label for name, label in METRICS.items() if name in measured}
        plotted[data.name] = {"truth": found[TRUTH]}
        for scale, of_modes in curves.items():
            other = "ref_cfg" if scale == "audio_cfg" else "audio_cfg"
            held = getattr(runs[0], other)
            lines: Curves = {m: {value: found[name] for value, name in line.items()} for m, line in of_modes.items()}
            title = f"{data.name} set, {data.count} videos, {other} {held:g}"
            svg = line_plots(lines, metrics, title, scale)
            (folder / f"{data.name}-{scale}.svg").write_text(svg, encoding="utf-8")
            plotted[data.name][scale] = lines
    (folder / "sweep.json").write_text(to_json(plotted), encoding="utf-8")
    return results
