"""An HTML report about a prepared data set: counts, histograms of the scores, and reasons for what was left out."""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from html import escape
from pathlib import Path

from PIL import Image

from ..errors import FadaError
from ..media.video import read_video
from .clips import Record
from .measures import Thresholds

_COLOURS = {"high": "#2a7", "moderate": "#e92", "left out": "#b9bec7"}
_BINS, _WIDTH, _HEIGHT = 24, 320, 110
_PICTURES = 8  #: number of pictures of each pool
_PICTURE_SIDE = 112
_MOST_LINES = 200
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #223; }
h1, h2 { font-weight: 600 } table { border-collapse: collapse } td, th { padding: .2rem .8rem; text-align: left }
th { border-bottom: 1px solid #bbc } td.n { text-align: right; font-variant-numeric: tabular-nums }
.plots { display: flex; flex-wrap: wrap; gap: 1.2rem } figure { margin: 0 } figcaption { font-size: 13px }
img { margin: 2px } .key span { display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 1em }
"""


def write_report(path: Path, records: Sequence[Record], thresholds: Thresholds, out: Path) -> None:
    """Write the report for `records`, whose clips are in `out`, to `path`."""
    rows = [row for record in records for row in record.rows]
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Prepared data</title><style>{_STYLE}</style>",
        "<h1>Prepared data</h1>",
        _counts(records),
        "<h2>Scores</h2><p class=key>",
        *(f'<span style="background:{colour}"></span>{name}' for name, colour in _COLOURS.items()),
        "; dashed: limit of the high pool</p><div class=plots>",
        *_histograms(records, thresholds),
        "</div>",
        *(_pictures(pool, [row for row in rows if row["pool"] == pool], out) for pool in ("high", "moderate")),
        _reasons("Why clips are in the moderate pool", [row["why_not_high"] for row in rows if row["why_not_high"]]),
        _reasons("Why clips were left out", [clip["reason"] for record in records for clip in record.dropped]),
        _table("Videos without clips", [(record.video, record.error) for record in records if record.error]),
        "</html>",
    ]
    path.write_text("\n".join(parts), encoding="utf-8")


def _counts(records: Sequence[Record]) -> str:
    rows = [row for record in records for row in record.rows]
    lines = [f"<p>{len(records)} videos, {sum(record.seconds for record in records) / 3600:.3g} hours.</p><table>"]
    lines.append("<tr><th>pool<th>split<th>clips<th>hours")
    for pool, split in sorted({(row["pool"], row["split"]) for row in rows}):
        chosen = [row for row in rows if (row["pool"], row["split"]) == (pool, split)]
        hours = sum(row["frames"] / row["fps"] for row in chosen) / 3600
        lines.append(f"<tr><td>{pool}<td>{split}<td class=n>{len(chosen)}<td class=n>{hours:.3g}")
    dropped = sum(len(record.dropped) for record in records)
    lines.append(f"<tr><td>left out<td><td class=n>{dropped}<td></table>")
    return "\n".join(lines)


def _histograms(records: Sequence[Record], thresholds: Thresholds) -> list[str]:
    by_pool: dict[str, list[dict[str, float]]] = {
        "high": [row["quality"] for record in records for row in record.rows if row["pool"] == "high"],
        "moderate": [row["quality"] for record in records for row in record.rows if row["pool"] == "moderate"],
        "left out": [clip["quality"] for record in records for clip in record.dropped],
    }
    lengths = {
        pool: [row["frames"] / row["fps"] for record in records for row in record.rows if row["pool"] == pool]
        for pool in ("high", "moderate")
    }
    names = sorted({name for clips in by_pool.values() for clip in clips for name in clip})
    limits = {field.name: getattr(thresholds, field.name) for field in fields(thresholds)}
    plots = [_histogram("length, s", lengths, None)] if any(lengths.values()) else []
    for name in names:
        values = {pool: [clip[name] for clip in clips if name in clip] for pool, clips in by_pool.items()}
        plots.append(_histogram(name, values, limits.get(name)))
    return plots


def _histogram(name: str, values: dict[str, list[float]], limit: float | None) -> str:
    """A histogram as SVG with the bars of the pools stacked."""
    everything = [value for group in values.values() for value in group]
    low, high = min(everything), max(everything)
    if limit is not None:
        low, high = min(low, limit), max(high, limit)
    span = (high - low) or 1.0
    bins = {
        pool: Counter(min(_BINS - 1, int((value - low) / span * _BINS)) for value in group)
        for pool, group in values.items()
    }
    most = max(sum(counts[i] for counts in bins.values()) for i in range(_BINS))
    width = _WIDTH / _BINS
    shapes = []
    for i in range(_BINS):
        top = float(_HEIGHT)
        for pool, counts in bins.items():
            height = counts[i] / most * (_HEIGHT - 4)
            if height:
                top -= height
                shapes.append(
                    f'<rect x="{i * width:.1f}" y="{top:.1f}" width="{width - 1:.1f}" height="{height:.1f}" '
                    f'fill="{_COLOURS[pool]}"/>'
                )
    if limit is not None:
        x = (limit - low) / span * _WIDTH
        shapes.append(f'<line x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{_HEIGHT}" stroke="#223" stroke-dasharray="4 3"/>')
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img" '
        f'aria-label="{escape(name)}">{"".join(shapes)}</svg>'
        f"<figcaption><b>{escape(name)}</b> {low:.3g} to {high:.3g}, n = {len(everything)}</figcaption></figure>"
    )


def _pictures(pool: str, rows: Sequence[dict[str, str]], out: Path) -> str:
    """First frames of some clips of a pool, embedded in the HTML."""
    if not rows:
        return ""
    shown = rows[:: -(-len(rows) // _PICTURES)]
    images = [f"<h2>{pool}: some of {len(rows)} clips</h2>"]
    for row in shown:
        try:
            frame = next(read_video(out / row["video"]))
        except FadaError:  # deleted in the meantime; the reader of the data set will report it
            continue
        buffer = io.BytesIO()
        Image.fromarray(frame).resize((_PICTURE_SIDE, _PICTURE_SIDE)).save(buffer, "JPEG", quality=80)
        data = base64.b64encode(buffer.getvalue()).decode()
        images.append(
            f'<img alt="{escape(row["id"])}" title="{escape(row["id"])}" src="data:image/jpeg;base64,{data}">'
        )
    return "\n".join(images)


def _reasons(title: str, reasons: Sequence[str]) -> str:
    """A table of reasons with their counts; reasons that differ only in the score are counted together."""
    kinds = Counter(re.sub(r"^(\w+) \S+ is (below|beyond)", r"\1 is \2", reason) for reason in reasons)
    return _table(title, [(reason, str(count)) for reason, count in kinds.most_common()])


def _table(title: str, rows: Sequence[tuple[str, str | None]]) -> str:
    if not rows:
        return ""
    lines = [f"<tr><td>{escape(left)}<td>{escape(str(right))}" for left, right in rows[:_MOST_LINES]]
    more = f"<p>and {len(rows) - _MOST_LINES} more</p>" if len(rows) > _MOST_LINES else ""
    return f"<h2>{title}</h2><table>{''.join(lines)}</table>{more}"
