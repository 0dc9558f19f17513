"""Conversion between sRGB, in which pictures are stored, and linear light, in which painting and shading compute."""

import numpy as np


def decoded(srgb: np.ndarray) -> np.ndarray:
    """sRGB 0..1 of any shape -> linear light (IEC 61966-2-1), of the same precision."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def encoded(linear: np.ndarray) -> np.ndarray:
    """Linear light 0..1 of any shape -> sRGB (IEC 61966-2-1), of the same precision."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def to_linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB 0..1 of any shape -> linear float32."""
    return decoded(np.asarray(srgb, np.float32)).astype(np.float32)


def encode(linear: np.ndarray) -> np.ndarray:
    """Linear of any shape, clipped to 0..1 -> uint8 sRGB."""
    return np.rint(255 * encoded(np.clip(linear, 0, 1))).astype(np.uint8)


def with_alpha(linear: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Linear colours (..., 3) and alpha (...) 0..1 -> a texture (..., 4) uint8 sRGB."""
    return np.concatenate([encode(linear), np.rint(255 * alpha[..., None]).astype(np.uint8)], -1)


_TABLE = encode(np.linspace(0, 1, 4096))


def to_srgb8(linear: np.ndarray) -> np.ndarray:
    """The same by a table, for large pictures: values may differ from those of `encode` by 1."""
    return _TABLE[(np.clip(linear, 0, 1) * 4095 + 0.5).astype(np.int32)]
