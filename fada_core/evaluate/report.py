"""Results as JSON and as Markdown tables."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from .runs import Summary

_ORDER = (
    "nfe_per_clip", "seconds_per_video", "lips_r", "lips_r_other_audio", "lips_offset", "lips_error", "lips_spread",
    "lips_reach", "openness_at_rest", "mouth_sharpness", "psnr_first_clip", "psnr_last_clip", "flicker",
    "frechet_frames", "frechet_clips", "fid", "fvd", "sync_c", "sync_d", "sync_offset",
)  # fmt: skip


def to_json(results: Mapping[str, Any]) -> str:
    """Nested results as JSON; NaN (such as an interval over one video) becomes null."""
    return json.dumps(_without_nan(results), indent=1) + "\n"


def from_json(text: str) -> Any:
    """Results from the JSON of `to_json`; null becomes NaN."""
    return _with_nan(json.loads(text))


def _with_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_nan(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_with_nan(entry) for entry in value]
    return math.nan if value is None else value


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nan(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def markdown(results: Mapping[str, Mapping[str, Summary]]) -> str:
    """A table for each set with a row per metric and a column per mode: mean ± half the 95 % interval.

    `n` is given where fewer videos were measured than the set has.
    """
    tables = []
    for name, modes in results.items():
        metrics = sorted({metric for summary in modes.values() for metric in summary}, key=_ORDER.index)
        videos = _videos(modes)
        rows = {m: [_cell(summary.get(m), videos) for summary in modes.values()] for m in metrics}
        tables.append(_table(f"{name}, {videos:g} videos", list(modes), rows))
    return "\n".join(tables)


def markdown_by_run(results: Mapping[str, Mapping[str, Summary]], metrics: Sequence[str]) -> str:
    """A table for each set with a row per run and a column for each of `metrics`, for many runs."""
    tables = []
    for name, runs in results.items():
        videos = _videos(runs)
        rows = {run: [_cell(summary.get(m), videos) for m in metrics] for run, summary in runs.items()}
        tables.append(_table(f"{name}, {videos:g} videos", metrics, rows))
    return "\n".join(tables)


def _videos(runs: Mapping[str, Summary]) -> float:
    return max(value["n"] for summary in runs.values() for value in summary.values())


def _table(corner: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    lines = [
        f"| {corner} | {' | '.join(columns)} |",
        f"|---|{'---:|' * len(columns)}",
        *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()),
    ]
    return "\n".join(lines) + "\n"


def _cell(value: dict[str, float] | None, videos: float) -> str:
    if value is None or not value["n"]:
        return ""
    mean, ci95 = value["mean"], value["ci95"]
    places = 3 if abs(mean) >= 0.1 else 4
    text = f"{mean:.{places}f}"
    if not ci95 > 0 and mean == round(mean):  # a count
        text = f"{mean:g}"
    elif math.isfinite(ci95):
        text += f" ± {ci95:.{places}f}"
    return text if value["n"] == videos else f"{text} (n {value['n']:g})"
