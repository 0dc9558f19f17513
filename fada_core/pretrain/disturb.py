"""Random defects and changes of colour for the face finder's training pictures, (h, w, 3) uint8."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFilter

_GREY = np.array([0.299, 0.587, 0.114], np.float32)


def retouched(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture with random brightness, contrast and tint, so that they differ from the background's; or, with a
    probability of 40 %, the picture itself."""
    if rng.random() < 0.4:
        return picture
    levels = np.arange(256, dtype=np.float32)[:, None] / 255
    gain = np.exp(rng.normal(0, 0.2) + rng.normal(0, 0.07, 3))
    curve = (levels ** np.exp(rng.normal(0, 0.3)) * gain * 255).clip(0, 255).astype(np.uint8)
    return curve[picture, np.arange(3)]


def disturbed(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture with a random selection of blur, low resolution, changed colours, noise and JPEG artefacts."""
    size = picture.shape[1], picture.shape[0]
    image = Image.fromarray(picture)
    if rng.random() < 0.2:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.5)))
    if rng.random() < 0.15:
        factor = rng.uniform(1.2, 2.5)
        small = image.resize([round(side / factor) for side in size], Image.Resampling.BOX)
        image = small.resize(size, Image.Resampling.BILINEAR)
    pixels = np.asarray(image).astype(np.float32) / 255
    if rng.random() < 0.7:
        pixels = _recoloured(pixels, rng)
    if rng.random() < 0.3:
        channels = 3 if rng.random() < 0.6 else 1
        pixels = pixels + rng.normal(0, rng.uniform(0.01, 0.12), (*pixels.shape[:2], channels))
    picture = (pixels * 255).clip(0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=int(rng.integers(12, 80)))
        picture = np.asarray(Image.open(buffer))
    return picture


def _recoloured(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pixels (h, w, 3) in 0..1 with random saturation, contrast, brightness and tint; a quarter have no saturation."""
    grey = (pixels @ _GREY)[..., None]
    saturation = 0.0 if rng.random() < 0.25 else np.exp(rng.normal(0, 0.35))
    pixels = grey + saturation * (pixels - grey)
    if rng.random() < 0.15:
        pixels = pixels[..., rng.permutation(3)]
    pixels = pixels.clip(0, 1) ** np.exp(rng.normal(0, 0.3))
    gain, lift = np.exp(rng.normal(0, 0.2) + rng.normal(0, 0.08, 3)), rng.normal(0, 0.06)
    return (pixels - 0.5) * gain.astype(np.float32) + 0.5 + np.float32(lift)
