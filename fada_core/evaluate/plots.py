"""Line plots with error bars as SVG: metrics over a guidance scale, like the paper's figures 3 and 4."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from .runs import Summary

_COLORS = ("#3d5a80", "#e07a5f", "#5a9367", "#8d6a9f")
_WIDTH, _HEIGHT = 380, 260  # of one panel
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 16, 34, 48

Curve = Mapping[float, Summary]
"""Results by value of the scale."""


def line_plots(curves: Mapping[str, Curve], metrics: Mapping[str, str], title: str, x_label: str) -> str:
    """An SVG document with a panel for each of `metrics` (name -> label), side by side, and a line for each curve.

    Bars are 95 % intervals; values that were not measured are left out.
    """
    width = _WIDTH * len(metrics)
    height = _HEIGHT + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12" fill="#333">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{width / 2}" y="18" text-anchor="middle" font-size="14">{escape(title)}</text>',
    ]
    for index, (metric, label) in enumerate(metrics.items()):
        panel = _panel(curves, metric, label, x_label)
        parts.append(f'<g transform="translate({index * _WIDTH} 24)">{panel}</g>')
    return "\n".join([*parts, "</svg>\n"])


def _panel(curves: Mapping[str, Curve], metric: str, label: str, x_label: str) -> str:
    points = {name: _points(curve, metric) for name, curve in curves.items()}
    found = [point for line in points.values() for point in line]
    if not found:
        return f'<text x="{_WIDTH / 2}" y="{_HEIGHT / 2}" text-anchor="middle">{escape(label)}: not measured</text>'
    x_ticks = _ticks(min(x for x, _, _ in found), max(x for x, _, _ in found))
    y_ticks = _ticks(min(y - e for _, y, e in found), max(y + e for _, y, e in found))
    bottom = _HEIGHT - _BOTTOM

    def at_x(x: float) -> float:
        return _LEFT + (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (_WIDTH - _LEFT - _RIGHT)

    def at_y(y: float) -> float:
        return bottom - (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (bottom - _TOP)

    parts = []
    for x in x_ticks:
        parts.append(f'<text x="{at_x(x):.1f}" y="{bottom + 16}" text-anchor="middle">{x:g}</text>')
    for y in y_ticks:
        parts.append(
            f'<path d="M{_LEFT} {at_y(y):.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>'
            f'<text x="{_LEFT - 6}" y="{at_y(y) + 4:.1f}" text-anchor="end">{y:g}</text>'
        )
    parts.append(f'<text x="{_LEFT}" y="{_TOP - 10}">{escape(label)}</text>')
    parts.append(f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{bottom + 36}" text-anchor="middle">{x_label}</text>')
    names = []
    for index, (name, line) in enumerate(points.items()):
        color = _COLORS[index % len(_COLORS)]
        path = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y, _ in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        for x, y, e in line:
            parts.append(
                f'<path d="M{at_x(x):.1f} {at_y(y - e):.1f}V{at_y(y + e):.1f}" stroke="{color}"/>'
                f'<circle cx="{at_x(x):.1f}" cy="{at_y(y):.1f}" r="3" fill="{color}"/>'
            )
        names.append(f'<tspan dx="12" fill="{color}">{escape(name)}</tspan>')
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{_TOP - 10}" text-anchor="end">{"".join(names)}</text>')
    return "".join(parts)


def _points(curve: Curve, metric: str) -> list[tuple[float, float, float]]:
    """(scale, mean, half the interval) by rising scale."""
    points = []
    for x, summary in sorted(curve.items()):
        value = summary.get(metric)
        if value is not None and math.isfinite(value["mean"]):
            points.append((x, value["mean"], value["ci95"] if math.isfinite(value["ci95"]) else 0.0))
    return points


def _ticks(low: float, high: float) -> Sequence[float]:
    """Round numbers, usually three to six, whose range includes `low` and `high`."""
    span = high - low or abs(high) or 1.0
    raw = span / 4
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw)
    first, last = math.floor(low / step), math.ceil(high / step)
    last = max(last, first + 1)
    return [round(step * k, 10) for k in range(first, last + 1)]
