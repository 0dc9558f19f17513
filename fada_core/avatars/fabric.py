"""Tileable textures of cloth: plain weave, jersey and knit, with stripes, checks, dots or melange."""

import numpy as np

from .color import encode

SIZE = 128
PATTERNS = ("plain", "stripes", "checks", "dots", "melange")


def weave(kind: str, pattern: str, colors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Texture (SIZE, SIZE, 3) uint8. `kind`: woven, jersey, knit; `pattern`: of PATTERNS; `colors` (2, 3) linear."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    base = np.broadcast_to(colors[0], (SIZE, SIZE, 3)).astype(np.float32)
    soft = np.zeros((SIZE, SIZE))
    if pattern == "stripes":
        many = int(rng.integers(5, 12))
        soft = np.clip(3 * np.sin(2 * np.pi * many * y) + rng.uniform(-1.5, 1), 0, 1)
    elif pattern == "checks":
        many = int(rng.integers(4, 8))
        soft = 0.5 * (np.sin(2 * np.pi * many * y) > 0.2) + 0.5 * (np.sin(2 * np.pi * many * x) > 0.2)
    elif pattern == "dots":
        many = int(rng.integers(7, 12))
        soft = np.clip(4 * (np.cos(2 * np.pi * many * x) + np.cos(2 * np.pi * many * y)) - 4.5, 0, 1)
    elif pattern == "melange":
        soft = rng.random((SIZE, SIZE)) ** 2
    picture = base + soft[..., None] * (colors[1] - base)
    if kind == "knit":
        many = 20
        v = np.abs(((x * many) % 1) - 0.5) * 2
        relief = 0.72 + 0.28 * np.abs(np.sin(np.pi * (y * 26 + 0.5 * v))) * (1 - 0.5 * v**3)
    elif kind == "jersey":
        relief = 0.94 + 0.06 * rng.random((SIZE, SIZE))
    else:
        relief = 0.93 + 0.04 * np.sin(2 * np.pi * 64 * x) + 0.05 * rng.random((SIZE, SIZE))
    return encode(picture * relief[..., None])
