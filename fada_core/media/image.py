"""Pictures in and out of tensors: read a portrait, cut it to the model's square, make bytes of frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import FadaError

MIN_SIDE = 16  #: pixels; below this a face is a few dots


def load_image(path: str | Path) -> Tensor:
    """A picture file as (1, 3, h, w) float32 in -1..1.

    Turned upright as its EXIF data says; transparent parts show white; greyscale is repeated in all channels; 16 bits a
    channel are scaled to the same range. Of an animation, the first frame.

    Raises:
        FadaError: no such file, not a whole picture, or a side below 16 pixels.
    """
    path = Path(path)
    if not path.is_file():
        raise FadaError(f"There is no file '{path}'; give the path of a picture.")
    try:
        with Image.open(path) as image:
            pixels = _rgb(ImageOps.exif_transpose(image))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # PIL's errors for files that are no picture
        raise FadaError(f"'{path.name}' is not a whole picture ({error}); give a PNG, JPEG or WebP file.") from error
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise FadaError(f"'{path.name}' has {width}x{height} pixels; give a portrait with at least {MIN_SIDE} a side.")
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous() * 2 - 1


def _rgb(image: Image.Image) -> np.ndarray:
    """(h, w, 3) float32 in 0..1."""
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits; PIL would clip them to 8
        grey = np.asarray(image, np.float32) / (65535 if image.mode != "F" else 1)
        return np.repeat(grey.clip(0, 1)[..., None], 3, axis=2)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.asarray(image.convert("RGB"), np.float32) / 255


def to_square(images: Tensor, size: int) -> Tensor:
    """The centre square of images (n, 3, h, w), resized to (n, 3, size, size) with antialiased bicubic filtering.

    The cut takes equally much from both sides; values stay in -1..1.
    """
    height, width = images.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = images[..., top : top + side, left : left + side]
    if side == size:
        return square
    return F.interpolate(square.float(), (size, size), mode="bicubic", antialias=True).clamp(-1, 1).to(images.dtype)


def to_bytes(images: Tensor) -> Tensor:
    """(n, 3, h, w) in -1..1, rounded and clamped to bytes (n, h, w, 3), where they are."""
    scaled = (images.detach().float() + 1) * 127.5
    return scaled.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def to_uint8(images: Tensor) -> Tensor:
    """As `to_bytes`, on the CPU."""
    return to_bytes(images).cpu()
