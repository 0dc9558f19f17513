"""Painting styles: oil and watercolour. Brush strokes and paper are fixed for a whole clip.

Each style is a class, as in `drawing`."""

import math

import numba
import numpy as np

from .filters import blur, kuwahara, luminance, paper, part_lines, smooth_field
from .mesh import Part

FINE = (Part.EYES, Part.LIPS, Part.MOUTH, Part.TEETH, Part.TONGUE, Part.LASH, Part.BROW, Part.GLASSES)


def fine_area(parts: np.ndarray, spread: float) -> np.ndarray:
    """Area of fine detail (h, w) 0..1: eyes, brows, glasses and mouth, blurred by `spread` pixels."""
    return np.minimum(blur(np.isin(parts, FINE).astype(np.float32), spread) * 2.5, 1)


@numba.njit(cache=True, nogil=True)
def _lay(strokes, bristles, source, height, shade, reach) -> None:
    """Draw strokes (k, 7: x, y, cos, sin, half length, half width, random number 0..1) over each other.

    Written to three arrays (h, w): `source`, the pixel whose colour is used, at most `reach` pixels towards the centre
    of the stroke; `height` of the paint, with grooves from `bristles` (kinds, steps); `shade`, the random number.
    """
    h, w = height.shape
    count, steps = bristles.shape
    for k in range(len(strokes)):
        x, y, c, s, length, width, lot = strokes[k]
        rx, ry = abs(c) * length + abs(s) * width + 1, abs(s) * length + abs(c) * width + 1
        hairs = bristles[int(lot * 9973) % count]
        for py in range(max(0, int(y - ry)), min(h, int(y + ry) + 2)):
            for px in range(max(0, int(x - rx)), min(w, int(x + rx) + 2)):
                dx, dy = px - x, py - y
                a, b = (dx * c + dy * s) / length, (-dx * s + dy * c + 0.12 * dx * dx / length * (lot - 0.5)) / width
                hair = hairs[min(max(int((b * 0.5 + 0.5) * steps), 0), steps - 1)]
                ends = 1.0 - 0.35 * hair
                if abs(b) > 1 or abs(a) > ends:
                    continue
                far = math.sqrt(dx * dx + dy * dy)
                pull = min(1.0, reach[py, px] / max(far, 1e-3))
                qx, qy = int(px - dx * pull + 0.5), int(py - dy * pull + 0.5)
                source[py, px] = min(max(qy, 0), h - 1) * w + min(max(qx, 0), w - 1)
                height[py, px] = hair * (1 - b * b * b * b) + 0.5 * max(0.0, a)
                shade[py, px] = lot


def _orientation(picture: np.ndarray, spread: float, rng: np.random.Generator) -> np.ndarray:
    """Angle (h, w) along the edges of a picture; where it is flat, a smooth random angle."""
    tone = blur(luminance(picture), 1.0)
    gy, gx = np.gradient(tone)
    tensor = np.stack([gx * gx, gx * gy, gy * gy], 2).astype(np.float32)
    tensor = blur(tensor, spread)
    wander = smooth_field(len(picture), 5, rng) * 1.2
    weak = 2e-6
    xx, xy = tensor[..., 0] - tensor[..., 2] - weak * np.cos(2 * wander), 2 * tensor[..., 1] - weak * np.sin(2 * wander)
    return 0.5 * np.arctan2(xy, xx) + math.pi / 2


@numba.njit(cache=True, nogil=True, fastmath=True)
def _compose(rough, fine, area, source, light, tint) -> np.ndarray:
    """Colours (h, w, 3) at `source`: of `rough`, or of `fine` in `area` 0..1; then `tint` (3, 2: gain, offset) and
    `light`."""
    h, w, _ = rough.shape
    out = np.empty_like(rough)
    flat_rough, flat_fine, flat_area = rough.reshape(h * w, 3), fine.reshape(h * w, 3), area.reshape(h * w)
    for y in range(h):
        for x in range(w):
            q = source[y, x]
            t = flat_area[q]
            for k in range(3):
                value = flat_rough[q, k] + t * (flat_fine[q, k] - flat_rough[q, k])
                out[y, x, k] = (value * tint[k, 0] + tint[k, 1]) * light[y, x, k]
    return out


class Oil:
    """Oil on canvas. Strokes follow the edges of the first frame and take their colours from each frame, simplified to
    patches. Bristle marks catch the light, the canvas shows through, and varnish warms the colours."""

    def __init__(self, picture: np.ndarray, parts: np.ndarray, rng: np.random.Generator):
        size = len(picture)
        unit = size / 256
        brush = rng.uniform(0.4, 1.4)
        area = fine_area(parts, 5 * unit)
        angle = _orientation(picture, 3 * unit, rng)
        source = np.arange(size * size, dtype=np.int32).reshape(size, size)
        height, shade = np.zeros((size, size), np.float32), np.full((size, size), 0.5, np.float32)
        reach = ((0.6 + 2.6 * brush * (1 - area) ** 2) * unit).astype(np.float32)
        bristles = blur(rng.random((64, 24)).astype(np.float32), 0.7)
        edges = np.hypot(*np.gradient(blur(luminance(picture), 1.5 * unit))) > 0.02
        skin = np.isin(parts, (Part.SKIN, *FINE))
        for radius, where in ((6.0, None), (3.6, skin | edges), (1.9, (area > 0.15) | (edges & skin))):
            radius = max(1.2, radius * brush * unit)
            step = radius * 0.9
            y, x = np.meshgrid(np.arange(0, size, step), np.arange(0, size, step), indexing="ij")
            x = (x + rng.uniform(-step, step, x.shape)).clip(0, size - 1).ravel()
            y = (y + rng.uniform(-step, step, y.shape)).clip(0, size - 1).ravel()
            keep = rng.permutation(len(x))
            if where is not None:
                keep = keep[where[y[keep].astype(int), x[keep].astype(int)]]
            x, y = x[keep], y[keep]
            turn = angle[y.astype(int), x.astype(int)] + rng.normal(0, 0.18, len(x))
            half = radius * rng.uniform(1.4, 3.2, len(x))
            width = radius * rng.uniform(0.55, 0.95, len(x))
            strokes = np.stack([x, y, np.cos(turn), np.sin(turn), half, width, rng.random(len(x))], 1)
            _lay(strokes, bristles, source, height, shade, reach)
        relief = rng.uniform(0.05, 0.4)
        gy, gx = np.gradient(blur(height, 0.6))
        light = 1 + relief * np.clip(-0.6 * gx - 0.8 * gy, -0.35, 0.5) * (1 - 0.5 * area)
        weave = np.sin(np.arange(size) * (2 * math.pi / rng.uniform(2.6, 3.6)))
        cloth = np.where(weave[:, None] * weave[None] > 0, weave[:, None], weave[None]) + smooth_field(size, 60, rng)
        light *= 1 + rng.uniform(0.0, 0.025) * cloth
        lot = (shade - 0.5)[..., None] * np.array([1.0, 0.75, 0.9]) + 0.5 * (shade * 7.31 % 1 - 0.5)[..., None]
        light = light[..., None] * (1 + rng.uniform(0.02, 0.14) * lot * (1 - 0.4 * skin - 0.4 * area)[..., None])
        self.source, self.area = source, area
        self.light = np.ascontiguousarray(light, np.float32)
        self.radius, self.fine_radius = max(2, round(3.4 * brush * unit)), max(1, round(1.6 * unit))
        old = rng.beta(1.2, 1.8)  # age of the varnish, which turns whites and blues yellow
        gain = np.array([1.0 - 0.02 * old, 0.98 - 0.08 * old, 0.95 - 0.25 * old])
        self.tint = np.stack([gain, np.array([0.012, 0.008, 0.0]) - 0.01], 1).astype(np.float32)
        self.contrast = rng.uniform(0.9, 1.15)

    def frame(self, picture: np.ndarray, parts: np.ndarray) -> np.ndarray:
        rough = kuwahara(picture, self.radius)
        fine = 0.5 * picture + 0.5 * kuwahara(picture, self.fine_radius)
        out = _compose(rough, fine, self.area, self.source, self.light, self.tint)
        out = (out - 0.4) * self.contrast + 0.4
        return out - 0.35 * np.maximum(out - 0.72, 0)  # compress the highlights: paint is less bright than light


@numba.njit(cache=True, nogil=True, fastmath=True)
def _wash(rough, picture, area, source, out, tone) -> None:
    """Write the clear, light colours at `source` to `out` (h, w, 3), of `rough` or, in `area`, of the picture itself,
    and their luma before brightening to `tone` (h, w)."""
    h, w, _ = rough.shape
    flat_rough, flat_picture, flat_area = rough.reshape(h * w, 3), picture.reshape(h * w, 3), area.reshape(h * w)
    for y in range(h):
        for x in range(w):
            q = source[y, x]
            t = np.float32(0.85) * flat_area[q]
            r = flat_rough[q, 0] + t * (flat_picture[q, 0] - flat_rough[q, 0])
            g = flat_rough[q, 1] + t * (flat_picture[q, 1] - flat_rough[q, 1])
            b = flat_rough[q, 2] + t * (flat_picture[q, 2] - flat_rough[q, 2])
            grey = np.float32(0.299) * r + np.float32(0.587) * g + np.float32(0.114) * b
            tone[y, x] = grey
            for k, c in enumerate((r, g, b)):
                c = min(max(grey + np.float32(1.25) * (c - grey), np.float32(0.01)), np.float32(1))
                out[y, x, k] = c * (np.float32(1.38) - np.float32(0.38) * c)  # lifts the middle tones


@numba.njit(cache=True, nogil=True, fastmath=True)
def _glaze(wash, tone, soft, parts, density, white, tooth, background, out) -> None:
    """Darken the wash by `density`, more at the edges, where `tone` differs from `soft`, and add the white paper."""
    h, w, _ = wash.shape
    for y in range(h):
        for x in range(w):
            amount = density[y, x] + min(np.float32(5) * abs(soft[y, x] - tone[y, x]), np.float32(0.9))
            bare = np.float32(0)
            if parts[y, x] == 0:
                amount *= background
                bare = np.float32(0.85) * (1 - background)
            for k in range(3):
                c = wash[y, x, k]
                c -= (c - c * c) * (amount - 1)  # Bousseau et al. 2006, equation 1
                c += (1 - c) * bare
                c += (np.float32(0.98) - c) * white[y, x]
                out[y, x, k] = c * tooth[y, x] * (np.float32(1) - np.float32(0.0175) * k)


class Watercolor:
    """Watercolour on white paper: patches with darker edges, granulation, blooms, and often a border of bare paper."""

    def __init__(self, picture: np.ndarray, parts: np.ndarray, rng: np.random.Generator):
        size = len(picture)
        self.unit = size / 256
        tooth = paper(size, 0.8 * self.unit, rng)
        flow = smooth_field(size, 7, rng) + 0.6 * smooth_field(size, 22, rng)
        self.density = (rng.uniform(0.75, 1.1) * (1 + 0.16 * flow + 0.22 * (tooth - 0.5))).astype(np.float32)
        self.tooth = (1 - 0.06 * tooth).astype(np.float32)
        y, x = np.mgrid[0:size, 0:size] / (size - 1) * 2 - 1
        edge = np.maximum(np.abs(x), np.abs(y)) + 0.06 * smooth_field(size, 9, rng) + 0.02 * smooth_field(size, 40, rng)
        border = rng.uniform(0.75, 1.25)
        self.white = np.clip((edge - border) * 9, 0, 1).astype(np.float32)
        self.background = float(rng.choice([0.0, 0.5, 1.0]))
        self.lines = rng.uniform(0.0, 0.6) if rng.random() < 0.5 else 0.0
        # Shifts of a pixel or two make borders irregular, as on rough paper.
        shift = np.stack([smooth_field(size, 40, rng), smooth_field(size, 40, rng)]) * (0.6 * self.unit)
        rows, columns = np.mgrid[0:size, 0:size]
        rows, columns = (np.round(p).astype(int).clip(0, size - 1) for p in (rows + shift[0], columns + shift[1]))
        self.source = rows * size + columns
        self.table = line_table(skin=0.6, background=0.8)

    def frame(self, picture: np.ndarray, parts: np.ndarray) -> np.ndarray:
        rough = kuwahara(picture, max(2, round(4 * self.unit)))
        area = fine_area(parts, 3 * self.unit)
        wash, tone = np.empty_like(rough), np.empty_like(area)
        _wash(rough, picture, area, self.source, wash, tone)
        soft = blur(tone, 2.2 * self.unit)
        if self.lines:
            soft = soft + 0.12 * self.lines * part_lines(parts, self.table, 1.2 * self.unit)
        _glaze(wash, tone, soft, parts, self.density, self.white, self.tooth, np.float32(self.background), wash)
        return wash


def line_table(skin: float, background: float) -> np.ndarray:
    """Strength of the line between two parts, (18, 18) float32.

    `background`: outlines of the figure; `skin`: lines within it. Lines are strong around the eyes and where the lips
    open, and weak along hair and between teeth and tongue.
    """
    n = len(Part)
    table = np.full((n, n), skin, np.float32)
    table[0, :] = table[:, 0] = background
    inner = [Part.MOUTH, Part.TEETH, Part.TONGUE]
    table[np.ix_(inner, inner)] = 0.25
    soft = [Part.HAIR, Part.BROW, Part.LASH, Part.BEARD]
    table[soft, :] *= 0.25
    table[:, soft] *= 0.25
    for a, b, strength in (
        (Part.LIPS, Part.SKIN, 0.45 * skin),
        (Part.LIPS, Part.MOUTH, 1.0),
        (Part.LIPS, Part.TEETH, 0.8),
        (Part.LIPS, Part.TONGUE, 0.7),
        (Part.EYES, Part.SKIN, 0.9),
        (Part.EYES, Part.LASH, 0.6),
        (Part.HAIR, Part.SKIN, 0.4 * skin),
        (Part.HAIR, Part.BACKGROUND, 0.7 * background),
    ):
        table[a, b] = table[b, a] = strength
    np.fill_diagonal(table, 0)
    return table
