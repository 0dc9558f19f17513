"""Make-up on painted skin: foundation, blush, lipstick, eye shadow and liner."""

import colorsys
from dataclasses import dataclass

import numpy as np

from .noise import smooth_noise
from .surface import Surface, ramp, spot

Color = tuple[float, float, float]  # linear RGB


@dataclass(frozen=True)
class MakeUp:
    """Make-up of a person: strengths 0..1, 0 is none."""

    foundation: float = 0.0  # evens out the skin tone
    blush: float = 0.0
    blush_color: Color = (0.6, 0.12, 0.12)
    lipstick: float = 0.0
    lipstick_color: Color = (0.4, 0.02, 0.03)
    lip_gloss: float = 0.0
    shadow: float = 0.0
    shadow_color: Color = (0.1, 0.05, 0.04)
    liner: float = 0.0


def sample_makeup(rng: np.random.Generator, age: float, sex: float, pool: str) -> MakeUp:
    """Random make-up: none for nearly all men and all children, else from a trace to heavy (more so in "moderate")."""
    if age < 0.16 or rng.random() > (0.7 if sex < 0.5 else 0.01):
        return MakeUp()
    strength = rng.beta(1.4, 1.8) if pool == "high" else rng.beta(1.4, 1.2)
    # Reds, pinks and browns; sometimes any hue.
    hue = rng.normal(0.985, 0.025) % 1 if rng.random() < 0.94 else rng.random()
    lipstick = colorsys.hsv_to_rgb(hue, rng.uniform(0.55, 0.96), rng.uniform(0.12, 0.62))
    bold = rng.random() < 0.2
    shade = (rng.random(), 0.6, 0.3) if bold else (0.05, 0.55, rng.uniform(0.02, 0.2))
    return MakeUp(
        foundation=float(strength * rng.uniform(0.2, 0.8)),
        blush=float(rng.uniform(0, 0.5) * strength),
        lipstick=float(rng.uniform(0.2, 1) * strength**0.5) if rng.random() < 0.75 else 0.0,
        lipstick_color=lipstick,
        lip_gloss=float(rng.uniform(0, 0.5)) if rng.random() < 0.5 else 0.0,
        shadow=float(rng.uniform(0, 0.75) * strength),
        shadow_color=colorsys.hsv_to_rgb(*shade),
        liner=float(strength * rng.uniform(0, 0.9)),
    )


def apply_makeup(
    makeup: MakeUp, canvas: Surface, color: np.ndarray, lips: np.ndarray, beard: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Apply make-up to `color` (n, 3) linear; returns the colour and the change of gloss (n,).

    `lips` and `beard` (n,): 0..1, their areas.
    """
    y, z = canvas.points[:, 1], canvas.points[:, 2]
    uneven = smooth_noise(canvas.points, 30, rng, 2)
    shine = np.zeros(len(color), np.float32)
    face = ramp(0.6, 1.0, z) * ramp(6.05, 6.25, y) * (1 - lips) * (1 - canvas.mouth)
    if makeup.foundation:
        mean = (color * face[:, None]).sum(0) / face.sum()
        color = color + (mean * (0.97 + 0.04 * uneven[:, None]) - color) * (0.55 * makeup.foundation * face)[:, None]
        shine -= 0.08 * makeup.foundation * face
    if makeup.blush:
        cheeks = spot(canvas, 0.46, 6.98, 1.15, (0.18, 0.12, 0.3)) * face
        taken = 1 - np.sqrt(makeup.blush_color).astype(np.float32)
        color = color * (1 - (0.8 * makeup.blush * cheeks)[:, None] * taken)
    upper = ramp(7.2, 7.29, y)
    if makeup.shadow:
        lid = spot(canvas, 0.32, 7.34, 1.36, (0.17, 0.05, 0.2)) * upper * (1 + 0.25 * uneven)
        color = color + (np.asarray(makeup.shadow_color) - color) * np.clip(0.85 * makeup.shadow * lid, 0, 1)[:, None]
    if makeup.liner:
        rim = ramp(0.185, 0.168, np.hypot(np.hypot(canvas.side - 0.308, y - 7.284), z - 1.245))
        rim *= (0.4 + 0.6 * upper) * ramp(0.17, 0.22, canvas.side)
        color = color * (1 - (0.92 * makeup.liner * rim)[:, None])
    if makeup.lipstick:
        cover = (makeup.lipstick * ramp(0.1, 0.6, lips) * (0.95 + 0.15 * uneven)).clip(0, 0.96)[:, None]
        tint = np.asarray(makeup.lipstick_color) * (1 + 0.18 * uneven[:, None])
        color = color + (tint - color) * cover
    shine += lips * (0.55 * makeup.lip_gloss + 0.08 * makeup.lipstick)
    return color.astype(np.float32), shine * (1 - beard)
