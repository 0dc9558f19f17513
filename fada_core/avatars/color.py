"""Conversion between sRGB, in which pictures are stored, and linear light, in which painting and shading compute."""

import numpy as np

_GRID = np.linspace(0, 1, 4096)
_CURVE = np.where(_GRID <= 0.0031308, 12.92 * _GRID, 1.055 * _GRID ** (1 / 2.4) - 0.055)
_ENCODE = np.round(255 * _CURVE).astype(np.uint8)


def to_linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB 0..1 of any shape -> linear float32 (IEC 61966-2-1)."""
    c = np.asarray(srgb, np.float32)
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4).astype(np.float32)


def to_srgb8(linear: np.ndarray) -> np.ndarray:
    """Linear of any shape, clipped to 0..1 -> uint8 sRGB (IEC 61966-2-1)."""
    return _ENCODE[(np.clip(linear, 0, 1) * 4095 + 0.5).astype(np.int32)]
