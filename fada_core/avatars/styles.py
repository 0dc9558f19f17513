"""Styles of pictures: photographs, paintings, drawings, statues, comics, 3D renderings.

`prepare` makes the random choices of a style once per clip, from its first frame; `apply` renders every frame with
them, so that nothing flickers. The materials of statues are in `statue`.
"""

from typing import Protocol

import numpy as np

from ..errors import FadaError
from .drawing import Anime, Comic, Ink, Pencil
from .filters import blur, luminance, smooth_field
from .painting import Oil, Watercolor


class Style(Protocol):
    """A style, made from the clip's first picture (s, s, 3) float32 sRGB 0..1 and its parts (s, s) uint8."""

    def __init__(self, picture: np.ndarray, parts: np.ndarray, rng: np.random.Generator): ...

    def frame(self, picture: np.ndarray, parts: np.ndarray) -> np.ndarray:
        """Render a picture (s, s, 3) float32 in this style; the caller clips the result to 0..1."""


class Monochrome:
    """Black and white photographs: random colour filter and contrast, toned prints, faded and uneven old prints."""

    def __init__(self, picture: np.ndarray, parts: np.ndarray, rng: np.random.Generator):
        size = len(picture)
        weights = rng.dirichlet([2.5, 3.5, 1.2])
        self.weights = weights.astype(np.float32)
        self.gamma = rng.uniform(0.85, 1.2)
        self.contrast = rng.uniform(0.9, 1.4)
        tone = rng.choice(3, p=[0.5, 0.35, 0.15])
        strength = rng.uniform(0.3, 1.0)
        color = np.array([(1, 1, 1), (1.06, 0.98, 0.82), (0.96, 0.99, 1.06)])[tone]
        old = rng.random() < 0.35
        self.high = ((1 + strength * (color - 1)) * (rng.uniform(0.8, 0.97) if old else 1)).astype(np.float32)
        self.low = (color * (rng.uniform(0.05, 0.16) if old else 0.0)).astype(np.float32)
        self.uneven = (1 + (0.05 if old else 0.0) * smooth_field(size, 3, rng)).astype(np.float32)

    def frame(self, picture: np.ndarray, parts: np.ndarray) -> np.ndarray:
        tone = np.clip(picture @ self.weights, 0, 1) ** self.gamma
        tone = tone + (self.contrast - 1) * (tone * tone * (3 - 2 * tone) - tone) * 1.5
        tone = (tone * self.uneven)[..., None]
        return self.low + (self.high - self.low) * tone


class Rendering:
    """Computer graphics: smooth surfaces, strong colours, bloom."""

    def __init__(self, picture: np.ndarray, parts: np.ndarray, rng: np.random.Generator):
        self.unit = len(picture) / 256
        self.bloom = rng.uniform(0.1, 0.35)
        self.saturation = rng.uniform(1.05, 1.35)
        self.smooth = rng.uniform(0.3, 0.9)

    def frame(self, picture: np.ndarray, parts: np.ndarray) -> np.ndarray:
        soft = blur(picture, 1.6 * self.unit)
        near = np.exp(-(((soft - picture) / 0.06) ** 2).sum(2, keepdims=True))  # smooth only within a surface
        out = picture + self.smooth * near * (soft - picture)
        grey = luminance(out)[..., None]
        out = grey + self.saturation * (out - grey)
        light = blur(np.maximum(grey[..., 0] - 0.55, 0), 5 * self.unit)
        return out + self.bloom * 2.5 * light[..., None] * np.array([1.0, 0.95, 0.9], np.float32)


class Stone:
    """A picture of a statue: random saturation and contrast. Statues have little colour, so the picture may be grey."""

    def __init__(self, picture: np.ndarray, parts: np.ndarray, rng: np.random.Generator):
        self.saturation = float(rng.choice([1.0, 0.5, 0.15], p=[0.5, 0.25, 0.25]))
        self.contrast = rng.uniform(1.0, 1.25)

    def frame(self, picture: np.ndarray, parts: np.ndarray) -> np.ndarray:
        grey = luminance(picture)[..., None]
        out = grey + self.saturation * (picture - grey)
        return (out - 0.5) * self.contrast + 0.5


_KINDS: dict[str, type[Style] | None] = {
    "photograph": None,
    "black and white": Monochrome,
    "oil": Oil,
    "watercolor": Watercolor,
    "pencil": Pencil,
    "ink": Ink,
    "comic": Comic,
    "anime": Anime,
    "rendering": Rendering,
    "marble": Stone,
    "stone": Stone,
    "bronze": Stone,
}
STYLES = tuple(_KINDS)
STATUES = ("marble", "stone", "bronze")
_SHARES = np.array([0.3, 0.07, 0.14, 0.06, 0.07, 0.05, 0.06, 0.08, 0.07, 0.04, 0.03, 0.03])


def sample_style(rng: np.random.Generator, pool: str) -> str:
    """One of STYLES: a photograph in the high pool, any of them in "moderate"."""
    return STYLES[0] if pool == "high" else STYLES[rng.choice(len(STYLES), p=_SHARES)]


def prepare(name: str, frame: np.ndarray, parts: np.ndarray, rng: np.random.Generator) -> Style | None:
    """A style for the clip that begins with `frame` (s, s, 3) uint8 and `parts` (s, s) uint8; None for photographs.

    Raises `FadaError` for a name that is not in STYLES.
    """
    if name not in _KINDS:
        raise FadaError(f"There is no style {name!r}; choose one of: {', '.join(STYLES)}.")
    kind = _KINDS[name]
    return None if kind is None else kind(_unit(frame), parts, rng)


def apply(style: Style | None, frames: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Render frames (n, s, s, 3) uint8 sRGB with parts (n, s, s) uint8 in a `style` from `prepare`, as uint8."""
    if style is None:
        return frames
    out = np.empty_like(frames)
    for i, (frame, part) in enumerate(zip(frames, parts, strict=True)):
        out[i] = np.clip(style.frame(_unit(frame), part) * 255 + 0.5, 0, 255).astype(np.uint8)
    return out


def _unit(frame: np.ndarray) -> np.ndarray:
    return frame.astype(np.float32) * np.float32(1 / 255)
