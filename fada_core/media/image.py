"""Picture input: known formats within limits, as tensors in sRGB. Also resizing to a square and conversion to bytes."""

from __future__ import annotations

import io
import logging
import struct
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..errors import FadaError
from ..finite import FiniteCheck
from .containers import existing_file

log = logging.getLogger("fada.media")

FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "TGA", "TIFF", "WEBP",
)  # fmt: skip
"""Formats that Pillow may open: none of them starts a program, as EPS would, or names another file."""
MIN_SIDE = 16  #: smallest side in pixels
MAX_PIXELS = 100_000_000  #: reading takes 20 bytes of memory per pixel
MAX_FILE = 2**29  #: bytes
_BEYOND = 2.0  #: largest absolute value in -1..1 with the overshoot of filters; more is another range
_LONG = {b"tEXt": 2**16, b"iTXt": 2**16, b"iCCP": 2**20}
"""Largest size in bytes at which such chunks of a PNG are kept: short texts may hold the orientation."""


def load_image(path: str | Path) -> Tensor:
    """Read a picture file as (1, 3, h, w) float32 in -1..1.

    The orientation of its EXIF data is applied, its colour profile is converted to sRGB, transparent parts become
    white, and greyscale is repeated in all channels. 16 bit values are scaled to the same range; the scale of 32 bit
    and floating-point values is guessed from the largest one, which is logged. Only the first frame of an animation is
    read.

    Raises:
        FadaError: the file is missing, or not a complete picture of a known format; a side is below 16 pixels; it has
            more than 100 megapixels, or values that are not finite.
    """
    path = existing_file(path, "a picture")
    try:
        pixels = _pixels(path)
    except FadaError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit
        raise FadaError(_too_large(path)) from error
    except UnidentifiedImageError as error:
        raise FadaError(
            f"'{path.name}' is not a complete picture of a supported format; give a PNG, JPEG or WebP file."
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise FadaError(
            f"'{path.name}' is not a complete picture ({reason}); give a PNG, JPEG or WebP file."
        ) from error
    except Exception as error:  # Pillow's readers can raise anything for a deliberately broken file
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise FadaError(
            f"'{path.name}' is not a complete picture ({reason}); give a PNG, JPEG or WebP file."
        ) from error
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()
    # Converted from bytes only here, so that the fourfold memory is needed only once.
    return image.float().div_(127.5).sub_(1) if image.dtype == torch.uint8 else image.mul_(2).sub_(1)


def checked_picture(image: Tensor) -> Tensor:
    """Check that a picture is (1, 3, h, w) in -1..1, with a tolerance for the overshoot of filters, and return it.

    Raises:
        FadaError: another shape or number type, values that are not finite, or values of another range, such as 0..255.
    """
    if image.ndim != 4 or image.shape[:2] != (1, 3) or not image.numel():
        raise FadaError(f"The portrait has the shape {tuple(image.shape)}; give one RGB picture, (1, 3, h, w).")
    if not image.is_floating_point():
        kind = str(image.dtype).removeprefix("torch.")
        raise FadaError(f"The portrait has values of the type {kind}; give floats in -1..1: x / 127.5 - 1 for bytes.")
    if not image.isfinite().all():
        raise FadaError("The portrait has values that are not finite (NaN); check where they come from.")
    low, high = image.min(), image.max()
    if low < -_BEYOND or high > _BEYOND:
        raise FadaError(f"The portrait has values from {low:g} to {high:g}; scale them to -1..1.")
    return image


def _pixels(path: Path) -> np.ndarray:
    """(h, w, 3): uint8, or float32 in 0..1 where there are more than 8 bits."""
    if path.stat().st_size > MAX_FILE:
        raise FadaError(f"'{path.name}' has more than {MAX_FILE >> 20} MB; give a smaller picture.")
    Image.init()  # all readers, so that those that this Pillow was built without can be left out
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about sizes, which are checked below, and about files that fail afterwards
        with Image.open(_without_texts(path), formats=[name for name in FORMATS if name in Image.OPEN]) as file:
            width, height = file.size
            if width * height > MAX_PIXELS:
                raise FadaError(_too_large(path, f" ({width}x{height})"))
            if min(height, width) < MIN_SIDE:
                raise FadaError(
                    f"'{path.name}' has {width}x{height} pixels; give a portrait with at least {MIN_SIDE} a side."
                )
            profile, kind = file.info.get("icc_profile"), file.format
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I") or image.mode == "F":
                return np.repeat(_grey(image, kind, path.name)[..., None], 3, axis=2)
            return np.array(_over_white(_in_srgb(image, profile, path.name)))


def _too_large(path: Path, size: str = "") -> str:
    return f"'{path.name}' has more than {MAX_PIXELS // 10**6} megapixels{size}; make it smaller."


def _without_texts(path: Path) -> Path | io.BytesIO:
    """The file, or a PNG without its long texts: ComfyUI may write megabytes of text, which Pillow refuses."""
    with path.open("rb") as file:
        if file.read(8) != b"\x89PNG\r\n\x1a\n":
            return path
        kept = io.BytesIO()
        kept.write(b"\x89PNG\r\n\x1a\n")
        while len(header := file.read(8)) == 8:
            size, name = struct.unpack(">I4s", header)
            if name == b"zTXt" or size > _LONG.get(name, MAX_FILE):
                file.seek(size + 4, 1)
                continue
            content = file.read(size + 4)
            if name != b"iTXt" or content.partition(b"\0")[2][:1] == b"\0":  # not compressed
                kept.write(header + content)
    kept.seek(0)
    return kept


def _grey(image: Image.Image, kind: str | None, name: str) -> np.ndarray:
    """A picture of more than 8 bits, which Pillow would clip, as (h, w) float32 in 0..1."""
    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise FadaError(f"'{name}' has values that are not numbers (NaN or infinite); save it again.")
    peak = float(values.max())
    if image.mode.startswith("I;16") or kind in ("PNG", "PPM"):  # 16 bits, though Pillow's mode has 32
        white = 65535.0
    else:
        scales = (1.0, 255.0, 65535.0, 2.0**31 - 1) if image.mode == "F" else (255.0, 65535.0, 2.0**31 - 1)
        white = next((scale for scale in scales if peak <= scale), peak)
        if white != 1:
            log.info("'%s' has values up to %.6g; %.10g is used as white.", name, peak, white)
    return np.clip(values.astype(np.float32) / np.float32(white), 0, 1)


def _in_srgb(image: Image.Image, profile: bytes | None, name: str) -> Image.Image:
    """Convert a picture to RGB or RGBA in sRGB; without a usable profile it is assumed to be sRGB."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode not in ("RGB", "CMYK", "L", "LAB"):
        image = image.convert("RGB")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "sRGB" in ImageCms.getProfileDescription(source):
                profile = None
            else:
                alpha = image.getchannel("A") if image.mode == "RGBA" else None
                to_srgb = ImageCms.buildTransform(
                    source,
                    ImageCms.createProfile("sRGB"),
                    "RGB" if alpha else image.mode,
                    "RGB",
                    ImageCms.Intent.RELATIVE_COLORIMETRIC,
                    ImageCms.Flags.BLACKPOINTCOMPENSATION,
                )
                image = to_srgb.apply(image.convert("RGB") if alpha else image)
                if alpha:
                    image.putalpha(alpha)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
            log.warning("The colour profile of '%s' cannot be used (%s); sRGB is assumed.", name, error)
    return image if image.mode == "RGBA" else image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def to_square(images: Tensor, size: int) -> Tensor:
    """The centre square of images (n, 3, h, w), resized to (n, 3, size, size) with antialiased bicubic filtering.

    Values are clamped to -1..1; a square that has the size already is not copied.
    """
    height, width = images.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = images[..., top : top + side, left : left + side]
    if side == size:
        return square
    return F.interpolate(square.float(), (size, size), mode="bicubic", antialias=True).clamp(-1, 1).to(images.dtype)


def to_bytes(images: Tensor) -> Tensor:
    """Convert (n, 3, h, w) in -1..1 to uint8 (n, h, w, 3), rounded and clamped, on the same device."""
    scaled = (images.detach().float() + 1) * 127.5
    return scaled.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def from_uint8(pictures: Tensor) -> Tensor:
    """Convert uint8 pictures of any shape to float32 in -1..1."""
    return pictures.float() / 127.5 - 1


def from_frame(frame: np.ndarray) -> Tensor:
    """Convert a frame (h, w, 3) uint8 to (1, 3, h, w) float32 in -1..1."""
    return from_uint8(torch.from_numpy(frame).permute(2, 0, 1)[None])


def to_uint8(images: Tensor) -> Tensor:
    """Convert as `to_bytes`, with the result on the CPU.

    Raises:
        FadaError: values that are not finite.
    """
    check = FiniteCheck(images, "The pictures", images.dtype)
    pixels = to_bytes(images).cpu()
    check.answer()  # after the copy, to avoid a second synchronisation
    return pixels
