"""Drawn pictures: pencil, ink, comic and anime. Lines come from the borders of parts and from the darker side of tones;
paper, hatching and thresholds are fixed for a clip, so that nothing but the person moves."""

import math

import numpy as np

from .filters import blur, difference_lines, kuwahara, luminance, paper, part_lines, smooth_field, streaks
from .mesh import Part
from .painting import fine_area, line_table
from .surface import ramp


def levels(tone: np.ndarray, parts: np.ndarray) -> tuple[float, float]:
    """Black and white of the figure: its 3rd and 97th percentile, at least a quarter apart."""
    figure = tone[parts != Part.BACKGROUND]
    low, high = (float(level) for level in np.percentile(figure if figure.size else tone, (3, 97)))
    middle = (low + high) / 2
    return min(low, middle - 0.125), max(high, middle + 0.125)


class Pencil:
    """Graphite or coloured pencils on paper with a tooth: soft hatching for tone, lines for form."""

    def __init__(self, picture: np.ndarray, parts: np.ndarray, rng: np.random.Generator):
        size = len(picture)
        self.unit = size / 256
        self.low, self.high = levels(luminance(picture), parts)
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
        dark = 1 - np.clip((soft - self.low) / (self.high - self.low), 0, 1)
        place = np.where(parts == Part.BACKGROUND, self.background * self.fade, 1).astype(np.float32)
        dark = dark * place * self.strength
        # Graphite fills the tooth of the paper from its peaks: a stroke is there where the tone passes the field.
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
    """Pen and ink: black lines and solid blacks; tones by lines that swell, crossed in the shadows."""

    def __init__(self, picture: np.ndarray, parts: np.ndarray, rng: np.random.Generator):
        size = len(picture)
        self.unit = size / 256
        self.low, self.high = levels(luminance(picture), parts)
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
        soft = np.clip((blur(tone, 1.0 * self.unit) - self.low) / (self.high - self.low), 0, 1)
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


class Comic:
    """Flat bright colours in a few tones, black lines, a screen of dots in the shadows."""

    def __init__(self, picture: np.ndarray, parts: np.ndarray, rng: np.random.Generator):
        size = len(picture)
        self.unit = size / 256
        self.low, self.high = levels(luminance(picture), parts)
        self.steps = int(rng.integers(3, 5))
        self.saturation = rng.uniform(1.25, 1.7)
        self.width = rng.uniform(1.2, 1.9) * self.unit
        self.table = line_table(skin=0.8, background=1.0)
        self.dots = None
        if rng.random() < 0.6:
            y, x = np.mgrid[0:size, 0:size].astype(np.float32)
            step, angle = rng.uniform(3.6, 5.0) * self.unit, rng.uniform(0.3, 1.2)
            c, s = 2 * math.pi * math.cos(angle) / step, 2 * math.pi * math.sin(angle) / step
            self.dots = (0.5 + 0.25 * (np.cos(x * c + y * s) + np.cos(y * c - x * s))).astype(np.float32)
        self.paper = np.array([1.0, rng.uniform(0.97, 1.0), rng.uniform(0.9, 1.0)], np.float32)

    def frame(self, picture: np.ndarray, parts: np.ndarray) -> np.ndarray:
        tone = luminance(picture)
        fine = fine_area(parts, 2 * self.unit)[..., None]
        flat = kuwahara(picture, max(2, round(3 * self.unit)))
        flat = flat + 0.75 * fine * (picture - flat)
        grey = luminance(flat)
        scaled = np.clip((grey - self.low) / (self.high - self.low), 0.0, 1.0) * self.steps
        whole = np.minimum(np.floor(scaled), self.steps - 1)
        step = whole + ramp(0.42, 0.58, scaled - whole)
        target = (step + 0.3) / (self.steps + 0.3) * (self.high - self.low) + self.low
        target = target * 0.92 + 0.1
        color = flat * (target / np.maximum(grey, 0.02))[..., None]
        middle = luminance(color)[..., None]
        color = np.clip(middle + self.saturation * (color - middle), 0, 1)
        if self.dots is not None:
            shadow = ramp(0.62, 0.2, scaled / self.steps) * 0.85
            screen = np.clip((shadow - 1 + self.dots) * 4, 0, 1) * (1 - fine[..., 0])
            color = color * (1 - 0.4 * screen)[..., None]
        lines = ramp(0.15, 0.6, part_lines(parts, self.table, self.width))
        lines = np.maximum(lines, difference_lines(tone, 1.0 * self.unit, 14.0, 0.014))
        return color * self.paper * (1 - 0.95 * lines)[..., None]


class Anime:
    """Cel shading: each part in one clear colour and its shade, thin coloured lines, bright eyes."""

    def __init__(self, picture: np.ndarray, parts: np.ndarray, rng: np.random.Generator):
        size = len(picture)
        self.unit = size / 256
        tone = luminance(blur(picture, 1.5 * self.unit))
        # Border between light and shade and the light's tone, one of each for every part.
        self.border, self.lit = np.full(len(Part), 0.5, np.float32), np.full(len(Part), 0.7, np.float32)
        for part in np.unique(parts):
            values = tone[parts == part]
            low, high = np.percentile(values, (8, 85))
            self.border[part], self.lit[part] = low + (high - low) * rng.uniform(0.35, 0.5), high
        skin = int(Part.SKIN)
        for part in (Part.LIPS, Part.MOUTH, Part.TEETH, Part.TONGUE, Part.EYES):
            self.border[part] = min(self.border[part], self.border[skin])
        self.shade = np.array([0.8, 0.7, 0.78], np.float32) ** rng.uniform(0.6, 1.3)
        self.bright = rng.uniform(1.02, 1.18)
        self.saturation = rng.uniform(1.1, 1.45)
        self.width = rng.uniform(0.9, 1.3) * self.unit
        self.table = line_table(skin=0.7, background=0.85)
        self.glow = rng.uniform(0.0, 0.25)

    def frame(self, picture: np.ndarray, parts: np.ndarray) -> np.ndarray:
        flat = kuwahara(picture, max(2, round(4 * self.unit)), 1500)
        tone = luminance(flat)
        border, lit = self.border[parts], self.lit[parts]
        light = ramp(-0.02, 0.02, tone - border)[..., None]
        base = flat * (lit / np.maximum(tone, 0.03))[..., None].clip(0.3, 3.0)  # the part's colour in full light
        cel = base * (self.shade + (1 - self.shade) * light)
        figure = (parts != Part.BACKGROUND)[..., None]
        cel = np.where(figure, 0.82 * cel + 0.18 * flat, flat)
        area = fine_area(parts, 1.2 * self.unit)[..., None]
        detail = np.clip((picture - 0.5) * 1.12 + 0.53, 0, 1)
        cel = cel + 0.8 * area * (detail - cel)
        grey = luminance(cel)[..., None]
        cel = np.clip((grey + self.saturation * (cel - grey)) * self.bright, 0, 1)
        if self.glow:
            cel = 1 - (1 - cel) * (1 - self.glow * blur(luminance(cel) ** 2, 5 * self.unit))[..., None]
        lines = 0.8 * difference_lines(luminance(picture), 1.0 * self.unit, 11.0, 0.018) * figure[..., 0]
        lines = np.maximum(lines, ramp(0.2, 0.75, part_lines(parts, self.table, self.width)))[..., None]
        ink = cel * np.array([0.3, 0.17, 0.19], np.float32)
        return cel + (ink - cel) * 0.95 * lines
