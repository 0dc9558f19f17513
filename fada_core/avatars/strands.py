"""Hair cards: flat strips along guide strands, their texture of many strands with alpha, and hair colours."""

from dataclasses import dataclass

import numpy as np

from .color import with_alpha
from .scalp import unit

TILE = 32  # width of a column of the atlas in texels
LENGTH = 128  # texels from root to tip
TONES = (0.5, 0.66, 0.8, 0.9, 1.0, 1.05, 1.12, 1.2)  # brightness of the atlas's columns; dark ones are for inner hair

# Natural colours in linear RGB, from black to fair: our choice.
NATURAL = np.array(
    [
        (0.008, 0.007, 0.007), (0.018, 0.012, 0.009), (0.04, 0.023, 0.014), (0.085, 0.047, 0.026), (0.16, 0.092, 0.047),
        (0.28, 0.18, 0.092), (0.45, 0.33, 0.19),
    ],
    np.float32,
)  # fmt: skip
RED = np.array((0.19, 0.055, 0.018), np.float32)
WHITE = np.array((0.56, 0.55, 0.53), np.float32)


def natural_color(fairness: float, redness: float) -> np.ndarray:
    """Hair colour (3,) linear: `fairness` 0 (black) .. 1 (very fair), `redness` 0..1."""
    at = np.clip(fairness, 0, 1) * (len(NATURAL) - 1)
    color = np.array([np.interp(at, range(len(NATURAL)), NATURAL[:, c]) for c in range(3)], np.float32)
    return color + redness * (RED * (0.4 + fairness) - color)


@dataclass(frozen=True)
class Fibre:
    """Strands in the texture. `wave`: amplitude in texels; `turns`: waves over the length; `thick`: width in texels;
    `many`: strands per column; `ragged` 0..1: how much of their length the shortest ones lose."""

    wave: float = 0.8
    turns: float = 1.5
    thick: float = 2.5
    many: int = 15
    ragged: float = 0.5


STRAIGHT = Fibre()
WAVY = Fibre(wave=1.6, turns=3.0)
CURLY = Fibre(wave=4.0, turns=3.5, thick=2.6, many=14, ragged=0.6)
COILED = Fibre(wave=6.0, turns=4.0, thick=2.8, many=13, ragged=0.3)


def atlas(fibre: Fibre, color: np.ndarray, grey: float, roots: float, rng: np.random.Generator) -> np.ndarray:
    """Texture (LENGTH, 8 * TILE, 4) uint8: a column of strands for each of TONES, from root (row 0) to tip.

    `color` (3,) linear; `grey` 0..1: share of white hairs; `roots` 0..1: how much darker the roots are.
    """
    columns = len(TONES)
    v = ((np.arange(LENGTH) + 0.5) / LENGTH).astype(np.float32)[:, None]  # (LENGTH, 1)
    rgb = np.zeros((LENGTH, columns, TILE, 3), np.float32)
    rgb[:] = color * (1 - 0.5 * grey) + WHITE * 0.5 * grey
    alpha = np.zeros((LENGTH, columns, TILE), np.float32)
    rows = np.arange(LENGTH)[:, None]
    at = np.arange(columns)[None]
    shade = np.exp(rng.normal(0, 0.22, (fibre.many, columns))).astype(np.float32)
    warm = rng.normal(0, 0.06, (fibre.many, columns)).astype(np.float32)
    bleached = np.clip(grey + rng.normal(0, 0.3 * np.sqrt(grey * (1 - grey)) * 2, (fibre.many, columns)), 0, 1)
    phase = rng.random((fibre.many, columns)) * 0.7 + rng.random(columns) * 6  # neighbours have similar waves
    for i in range(fibre.many):
        place = 2 + (TILE - 4) * ((i + rng.random(columns)) / fibre.many)
        end = 1 - fibre.ragged * rng.random(columns) ** 1.5
        lean = rng.normal(0, 1.5, columns)
        wave = fibre.wave * (0.6 + 0.8 * rng.random(columns))
        x = place + lean * v + wave * np.minimum(1, 3 * v) * np.sin(2 * np.pi * fibre.turns * v + 6.28 * phase[i])
        tip = np.clip(1 - v / end, 0, 1)
        start = np.clip((v - 0.16 * rng.random(columns) ** 2) / 0.05, 0, 1)
        thick = fibre.thick * np.minimum(1, 1.6 * tip) * np.sqrt(start)
        own = color * shade[i][:, None] * (1 + warm[i][:, None] * [1, 0, -1])
        tint = own + bleached[i][:, None] * (WHITE * shade[i][:, None] ** 0.5 - own)
        first = np.floor(x - 1.5).astype(int)
        for step in range(4):
            texel = first + step
            cover = np.clip(thick / 2 + 0.5 - np.abs(texel + 0.5 - x), 0, 1) * np.minimum(1, thick)
            keep = (texel >= 0) & (texel < TILE)
            texel = texel.clip(0, TILE - 1)
            cover = np.where(keep, cover, 0).astype(np.float32)
            old = rgb[rows, at, texel]
            rgb[rows, at, texel] = old + cover[..., None] * (tint - old)
            alpha[rows, at, texel] = np.maximum(alpha[rows, at, texel], cover)
    tone = np.array(TONES, np.float32)[:, None] * (1 - roots * np.clip(1 - v / 0.4, 0, 1) ** 1.5)[:, :, None]
    rgb *= tone[..., None]
    out = with_alpha(rgb, alpha)
    return out.reshape(LENGTH, columns * TILE, 4)


def cards(
    lines: np.ndarray, outward: np.ndarray, width: np.ndarray, column: np.ndarray, roll: np.ndarray, taper: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Strips along strands: positions (n * 2 * (k + 1), 3), faces (n * 2 * k, 3), uv (..., 2) and tangents (..., 3).

    `lines` (n, k + 1, 3) from root to tip; `outward` (n, k + 1, 3): unit vectors away from the head; `width` (n,) in
    dm at the root, of which a share `taper` is lost at the tip; `column` (n,): column of the atlas; `roll` (n,):
    rotation of a card in radians.
    """
    n, rings = lines.shape[:2]
    along = np.empty_like(lines)
    along[:, 1:-1] = lines[:, 2:] - lines[:, :-2]
    along[:, 0] = lines[:, 1] - lines[:, 0]
    along[:, -1] = lines[:, -1] - lines[:, -2]
    along = unit(along)
    across = unit(np.cross(outward, along))
    lift = np.cross(along, across)
    across = across * np.cos(roll)[:, None, None] + lift * np.sin(roll)[:, None, None]
    t = np.linspace(0, 1, rings, dtype=np.float32)
    half = 0.5 * width[:, None] * (1 - taper * t**2)
    sides = np.stack([lines - across * half[..., None], lines + across * half[..., None]], 2)
    u = (column[:, None] + np.array([0.02, 0.98])) / len(TONES)
    uv = np.empty((n, rings, 2, 2), np.float32)
    uv[..., 0] = u[:, None, :]
    uv[..., 1] = (1 - t)[None, :, None]
    first = (np.arange(n)[:, None] * 2 * rings + 2 * np.arange(rings - 1)).ravel()
    faces = np.concatenate([first[:, None] + [0, 1, 2], first[:, None] + [2, 1, 3]]).astype(np.int32)
    tangent = np.repeat(along, 2, 1)
    return sides.reshape(-1, 3).astype(np.float32), faces, uv.reshape(-1, 2), tangent.reshape(-1, 3).astype(np.float32)
