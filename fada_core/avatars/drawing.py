"""Drawing styles: pencil, ink, comic and anime. Lines follow the borders of parts and the dark side of edges in tone.
Paper, hatching and thresholds are fixed for a clip, so that only the person moves.

Each style is a class: its constructor takes the clip's first frame, and `frame` draws one frame (h, w, 3) float32, sRGB
0..1, with its `parts` (h, w) uint8."""

import math

import numba
import numpy as np

from .filters import blur, difference_lines, kuwahara, luminance, paper, part_lines, smooth_field, streaks
from .mesh import Part
from .painting import fine_area, line_table
from .surface import ramp

FACE = (Part.SKIN, Part.LIPS, Part.EYES)


class Levels:
    """Scales tones so that the 3rd and 97th percentiles of the figure in the first frame become 0 and 1.

    A gamma brightens a dark face until its median is about `face` (0: no gamma), so that eyes and mouth stay visible.
    """

    def __init__(self, picture: np.ndarray, parts: np.ndarray, face: float = 0.0):
        tone = luminance(picture)
        figure, skin = tone[parts != Part.BACKGROUND], tone[np.isin(parts, FACE)]
        low, high = np.percentile(figure if figure.size else tone, (3, 97))
        middle = (low + high) / 2
        self.low, self.high = float(min(low, middle - 0.125)), float(max(high, middle + 0.125))
        self.gamma = 1.0
        if face and skin.size:
            now = np.clip((np.median(skin) - self.low) / (self.high - self.low), 0.02, 0.98)
            self.gamma = float(np.clip(math.log(face) / math.log(now), 0.3, 1))

    def __call__(self, tone: np.ndarray) -> np.ndarray:
        scaled = np.clip((tone - self.low) / (self.high - self.low), 0, 1)
        return scaled if self.gamma == 1 else scaled**self.gamma


class Pencil:
    """Graphite or coloured pencils on rough paper: soft hatching for tone, lines for form."""

    def __init__(self, picture: np.ndarray, parts: np.ndarray, rng: np.random.Generator):
        size = len(picture)
        self.unit = size / 256
        self.levels = Levels(picture, parts, 0.55)
        first = rng.uniform(0.5, 1.1) * rng.choice([-1, 1])
        hatch = streaks(size, first, 16 * self.unit, 0.5 * self.unit, rng)
        cross = streaks(size, first + rng.uniform(0.5, 1.2), 12 * self.unit, 0.5 * self.unit, rng)
        tooth = paper(size, 0.6 * self.unit, rng)
        smudge = rng.uniform(0.1, 0.8)
        self.hatch = ((1 - smudge) * hatch + smudge * 0.5 + 0.45 * (tooth - 0.5)).astype(np.float32)
        self.cross = (0.75 * cross + 0.5 * (tooth - 0.5)).astype(np.float32)
        self.tooth = (0.985 - 0.035 * tooth + 0.008 * smooth_field(size, 4, rng)).astype(np.float32)
        self.color = rng.uniform(0.5, 1.0) if rng.random() < 0.3 else 0.0
        self.ground = np.array([1.0, rng.uniform(0.96, 1.0), rng.uniform(0.88, 1.0)], np.float32)
        self.lead = np.array(rng.choice([(0.2, 0.2, 0.21), (0.13, 0.12, 0.12), (0.3, 0.17, 0.12)]), np.float32)
        self.background = float(rng.choice([0.0, 0.35, 0.9], p=[0.5, 0.25, 0.25]))
        self.strength = rng.uniform(0.8, 1.25)
        self.line = rng.uniform(0.55, 1.0)
        self.width = rng.uniform(1.0, 1.5) * self.unit
        self.table = line_table(skin=0.5, background=0.75)
        y, x = np.mgrid[0:size, 0:size] / (size - 1) * 2 - 1
        outside = ramp(0.75, 1.1, np.hypot(x, 0.9 * y) + 0.08 * smooth_field(size, 12, rng))
        self.fade = (1 - 0.85 * outside).astype(np.float32)

    def frame(self, picture: np.ndarray, parts: np.ndarray) -> np.ndarray:
        tone = luminance(picture)
        soft = blur(tone, 0.8 * self.unit)
        dark = 1 - self.levels(soft)
        place = np.where(parts == Part.BACKGROUND, self.background * self.fade, 1).astype(np.float32)
        dark = dark * place * self.strength
        # Graphite colours the peaks of rough paper first: a stroke appears where the tone exceeds the hatching field.
        cover = np.clip((1.2 * dark - self.hatch * 0.7) * 1.3 + 0.25, 0, 1) * np.minimum(dark * 2.2, 1)
        cover = 0.6 * cover + 0.4 * np.clip((dark - 0.35 - self.cross * 0.5) * 1.8, 0, 1) + 0.18 * dark
        edges = difference_lines(tone, 0.8 * self.unit, 9.0) * place
        edges = np.maximum(edges, part_lines(parts, self.table, self.width))
        cover = np.maximum(cover * 0.85, edges * self.line * (0.75 + 0.5 * (1 - self.hatch)))
        cover = np.minimum(cover, 0.97)[..., None]
        lead = self.lead
        if self.color:
            vivid = soft[..., None] + 1.6 * (blur(picture, 1.2 * self.unit) - soft[..., None])
            lead = self.lead + self.color * (np.clip(vivid * 0.85, 0, 1) - self.lead) * (1 - edges[..., None])
            cover = np.minimum(cover * (1 + 0.25 * self.color), 0.97)
        ground = self.tooth[..., None] * self.ground
        return ground + (lead - ground) * cover


class Ink:
    """Pen and ink: black lines and solid blacks; hatching of varying width for tone, cross-hatched in the shadows."""

    def __init__(self, picture: np.ndarray, parts: np.ndarray, rng: np.random.Generator):
        size = len(picture)
        self.unit = size / 256
        self.levels = Levels(picture, parts, 0.62)
        y, x = np.mgrid[0:size, 0:size].astype(np.float32)
        spacing, turn = rng.uniform(3.2, 4.6) * self.unit, rng.uniform(0.4, 1.2) * rng.choice([-1, 1])
        self.screens = []
        for angle in (turn, turn + rng.uniform(0.9, 1.5)):
            wobble = 0.5 * smooth_field(size, 10, rng) + 0.12 * smooth_field(size, 60, rng)
            phase = (x * math.cos(angle) + y * math.sin(angle)) / spacing + wobble
            self.screens.append(np.abs(phase % 1 - 0.5).astype(np.float32) * 2)  # 0 on a line, 1 between
        self.sharp = spacing / 2
        self.hatching = rng.random() < 0.75
        self.background = float(rng.choice([0.0, 0.6], p=[0.65, 0.35]))
        self.paper = np.array([1.0, rng.uniform(0.95, 1.0), rng.uniform(0.84, 1.0)], np.float32)
        inks = (0.05, 0.05, 0.06), (0.05, 0.05, 0.06), (0.2, 0.11, 0.06), (0.06, 0.08, 0.2)
        self.ink = np.array(rng.choice(inks), np.float32)
        self.black = rng.uniform(0.1, 0.2)
        self.tooth = (1 - 0.03 * paper(size, 0.7 * self.unit, rng)).astype(np.float32)
        self.width = rng.uniform(1.0, 1.6) * self.unit
        self.table = line_table(skin=0.75, background=0.95)

    def frame(self, picture: np.ndarray, parts: np.ndarray) -> np.ndarray:
        tone = luminance(picture)
        soft = self.levels(blur(tone, 1.0 * self.unit))
        place = np.where(parts == Part.BACKGROUND, self.background, 1).astype(np.float32)
        cover = ramp(self.black + 0.06, self.black - 0.06, soft) * place
        if self.hatching:
            for screen, start in zip(self.screens, (0.62, 0.36), strict=True):
                width = np.clip((start - soft) * 1.5, 0, 0.85) * place
                cover = np.maximum(cover, np.clip((width - screen) * self.sharp + 0.5, 0, 1) * (width > 0.02))
        cover = np.maximum(cover, difference_lines(tone, 0.9 * self.unit, 16.0, 0.014) * place)
        cover = np.maximum(cover, ramp(0.2, 0.7, part_lines(parts, self.table, self.width)))
        ground = self.tooth[..., None] * self.paper
        return ground + (self.ink - ground) * cover[..., None]


@numba.njit(cache=True, nogil=True, fastmath=True)
def _posterise(flat, picture, fine, levels, steps, saturation, dots, paper, out) -> None:
    """Reduce colours (h, w, 3) to `steps` tones between `levels` (low, high), with `dots` (h, w) 0..1 in shadows."""
    h, w, _ = flat.shape
    low, span = levels[0], levels[1] - levels[0]
    for y in range(h):
        for x in range(w):
            t = np.float32(0.75) * fine[y, x]
            r = flat[y, x, 0] + t * (picture[y, x, 0] - flat[y, x, 0])
            g = flat[y, x, 1] + t * (picture[y, x, 1] - flat[y, x, 1])
            b = flat[y, x, 2] + t * (picture[y, x, 2] - flat[y, x, 2])
            grey = np.float32(0.299) * r + np.float32(0.587) * g + np.float32(0.114) * b
            scaled = min(max((grey - low) / span, np.float32(0)), np.float32(1)) * steps
            whole = min(math.floor(scaled), steps - 1)
            s = min(max((scaled - whole - np.float32(0.42)) / np.float32(0.16), np.float32(0)), np.float32(1))
            step = whole + s * s * (3 - 2 * s)
            target = (step + np.float32(0.3)) / (steps + np.float32(0.3)) * span + low
            target = target * np.float32(0.92) + np.float32(0.1)
            shadow = min(max((np.float32(0.62) - scaled / steps) / np.float32(0.42), np.float32(0)), np.float32(1))
            shadow = shadow * shadow * (3 - 2 * shadow) * np.float32(0.85)
            dot = min(max((shadow - 1 + dots[y, x]) * 4, np.float32(0)), np.float32(1)) * (1 - fine[y, x])
            gain = target / max(grey, np.float32(0.02))
            cover = 1 - np.float32(0.4) * dot
            out[y, x, 0] = (target + saturation * (r * gain - target)) * cover * paper[0]
            out[y, x, 1] = (target + saturation * (g * gain - target)) * cover * paper[1]
            out[y, x, 2] = (target + saturation * (b * gain - target)) * cover * paper[2]


@numba.njit(cache=True, nogil=True, fastmath=True)
def _cel(flat, picture, fine, parts, border, lit, shade, color, out) -> None:
    """Give each part its colour in full light, times `shade` (3,) where it is darker than its `border`.

    The `fine` area (h, w) 0..1 keeps the picture.
    """
    h, w, _ = flat.shape
    one, none = np.float32(1), np.float32(0)
    for y in range(h):
        for x in range(w):
            part = parts[y, x]
            r, g, b = flat[y, x, 0], flat[y, x, 1], flat[y, x, 2]
            if part > 0:
                grey = np.float32(0.299) * r + np.float32(0.587) * g + np.float32(0.114) * b
                light = min(max((grey - border[part]) * 25 + np.float32(0.5), none), one)
                gain = lit[part] / max(grey, np.float32(0.03))
                gain = min(max(gain, np.float32(0.3)), np.float32(3)) * np.float32(0.82)
                keep = np.float32(0.18)
                r = r * (gain * (shade[0] + (1 - shade[0]) * light) + keep)
                g = g * (gain * (shade[1] + (1 - shade[1]) * light) + keep)
                b = b * (gain * (shade[2] + (1 - shade[2]) * light) + keep)
            t = np.float32(0.8) * fine[y, x]
            r += t * (picture[y, x, 0] * np.float32(1.12) - np.float32(0.03) - r)
            g += t * (picture[y, x, 1] * np.float32(1.12) - np.float32(0.03) - g)
            b += t * (picture[y, x, 2] * np.float32(1.12) - np.float32(0.03) - b)
            grey = np.float32(0.299) * r + np.float32(0.587) * g + np.float32(0.114) * b
            out[y, x, 0] = min(max((grey + color[0] * (r - grey)) * color[1], none), one)
            out[y, x, 1] = min(max((grey + color[0] * (g - grey)) * color[1], none), one)
            out[y, x, 2] = min(max((grey + color[0] * (b - grey)) * color[1], none), one)


class Comic:
    """Flat bright colours in a few tones, black lines, often with halftone dots in the shadows."""

    def __init__(self, picture: np.ndarray, parts: np.ndarray, rng: np.random.Generator):
        size = len(picture)
        self.unit = size / 256
        self.levels = Levels(picture, parts)
        self.steps = int(rng.integers(3, 5))
        self.saturation = rng.uniform(1.1, 1.5)
        self.width = rng.uniform(1.2, 1.9) * self.unit
        self.table = line_table(skin=0.8, background=1.0)
        self.dots = np.zeros((size, size), np.float32)
        if rng.random() < 0.6:
            y, x = np.mgrid[0:size, 0:size].astype(np.float32)
            step, angle = rng.uniform(3.6, 5.0) * self.unit, rng.uniform(0.3, 1.2)
            c, s = 2 * math.pi * math.cos(angle) / step, 2 * math.pi * math.sin(angle) / step
            self.dots = (0.5 + 0.25 * (np.cos(x * c + y * s) + np.cos(y * c - x * s))).astype(np.float32)
        self.paper = np.array([1.0, rng.uniform(0.97, 1.0), rng.uniform(0.9, 1.0)], np.float32)

    def frame(self, picture: np.ndarray, parts: np.ndarray) -> np.ndarray:
        tone = luminance(picture)
        fine = fine_area(parts, 2 * self.unit)
        flat = kuwahara(picture, max(2, round(3 * self.unit)))
        levels = np.float32(self.levels.low), np.float32(self.levels.high)
        color = np.empty_like(flat)
        _posterise(flat, picture, fine, levels, self.steps, np.float32(self.saturation), self.dots, self.paper, color)
        lines = ramp(0.15, 0.6, part_lines(parts, self.table, self.width))
        lines = np.maximum(lines, difference_lines(tone, 1.0 * self.unit, 14.0, 0.014))
        return color * (1 - 0.95 * lines)[..., None]


class Anime:
    """Cel shading: each part in a clear colour and a darker shade of it, with thin coloured lines."""

    def __init__(self, picture: np.ndarray, parts: np.ndarray, rng: np.random.Generator):
        size = len(picture)
        self.unit = size / 256
        tone = luminance(blur(picture, 1.5 * self.unit))
        # For each part: the tone at the border between light and shade, and the tone of full light.
        self.border, self.lit = np.full(len(Part), 0.5, np.float32), np.full(len(Part), 0.7, np.float32)
        for part in np.unique(parts):
            values = tone[parts == part]
            low, high = np.percentile(values, (8, 85))
            self.border[part], self.lit[part] = low + (high - low) * rng.uniform(0.35, 0.5), high
        skin = int(Part.SKIN)
        for part in (Part.LIPS, Part.MOUTH, Part.TEETH, Part.TONGUE, Part.EYES):
            self.border[part] = min(self.border[part], self.border[skin])
        self.shade = np.array([0.8, 0.7, 0.78], np.float32) ** rng.uniform(0.6, 1.3)
        self.color = np.array([rng.uniform(1.0, 1.3), rng.uniform(1.02, 1.18)], np.float32)  # saturation, brightness
        self.width = rng.uniform(0.9, 1.3) * self.unit
        self.table = line_table(skin=0.7, background=0.85)
        self.glow = rng.uniform(0.0, 0.25)

    def frame(self, picture: np.ndarray, parts: np.ndarray) -> np.ndarray:
        flat = kuwahara(picture, max(2, round(4 * self.unit)), 1500)
        area = fine_area(parts, 1.2 * self.unit)
        cel = np.empty_like(flat)
        _cel(flat, picture, area, parts, self.border, self.lit, self.shade, self.color, cel)
        if self.glow:
            cel = 1 - (1 - cel) * (1 - self.glow * blur(luminance(cel) ** 2, 5 * self.unit))[..., None]
        lines = 0.8 * difference_lines(luminance(picture), 1.0 * self.unit, 11.0, 0.018) * (parts != Part.BACKGROUND)
        lines = np.maximum(lines, ramp(0.2, 0.75, part_lines(parts, self.table, self.width)))[..., None]
        ink = cel * np.array([0.3, 0.17, 0.19], np.float32)
        return cel + (ink - cel) * 0.95 * lines
