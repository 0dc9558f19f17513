"""Pictures in: known formats only, within limits, in sRGB, as tensors; tensors to the model's square and to bytes."""

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
"""What Pillow may open: none of them starts a program (EPS would) or names another file."""
MIN_SIDE = 16  #: pixels; below this a face is a few dots
MAX_PIXELS = 100_000_000  #: a picture takes 20 bytes of memory for each while it is read
MAX_FILE = 2**29  #: bytes
_BEYOND = 2.0  #: up to which values are what filters overshoot by, and not those of another range
_LONG = {b"tEXt": 2**16, b"iTXt": 2**16, b"iCCP": 2**20}
"""Bytes up to which such parts of a PNG are kept: texts may say how the picture is turned."""


def load_image(path: str | Path) -> Tensor:
    """A picture file as (1, 3, h, w) float32 in -1..1.

    Turned upright as its EXIF data says; colours are converted from its profile to sRGB; transparent parts show white;
    greyscale is repeated in all channels; 16 bits a channel are scaled to the same range, 32 bits and floating point as
    their largest value suggests, which is logged. Of an animation, the first frame.

    Raises:
        FadaError: no such file, not a whole picture of a known format, a side below 16 pixels, more than 100
            megapixels, or values that are no numbers.
    """
    path = existing_file(path, "a picture")
    try:
        pixels = _pixels(path)
    except FadaError:
        raise
    except Image.DecompressionBombError as error:  # twice Pillow's own limit, which lies below ours
        raise FadaError(_too_large(path)) from error
    except UnidentifiedImageError as error:
        raise FadaError(
            f"'{path.name}' is not a whole picture of a format that is read here; give a PNG, JPEG or WebP file."
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise FadaError(f"'{path.name}' is not a whole picture ({reason}); give a PNG, JPEG or WebP file.") from error
    except Exception as error:  # Pillow's readers raise whatever they stumble over in a file that is broken on purpose
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise FadaError(f"'{path.name}' is not a whole picture ({reason}); give a PNG, JPEG or WebP file.") from error
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()
    # Bytes until here: four times the memory only once.
    return image.float().div_(127.5).sub_(1) if image.dtype == torch.uint8 else image.mul_(2).sub_(1)


def checked_picture(image: Tensor) -> Tensor:
    """A picture in memory, if it is (1, 3, h, w) in -1..1; what filters overshoot by is let be.

    Raises:
        FadaError: another shape or number type, values that are not finite, or such of another range (0..255, say).
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
        warnings.simplefilter("ignore")  # of sizes, whose limit is ours below, or just before an error
        with Image.open(_without_texts(path), formats=[name for name in FORMATS if name in Image.OPEN]) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise FadaError(_too_large(path, f" ({width}x{height})"))
            if min(height, width) < MIN_SIDE:
                raise FadaError(
                    f"'{path.name}' has {width}x{height} pixels; give a portrait with at least {MIN_SIDE} a side."
                )
            profile, kind = image.info.get("icc_profile"), image.format
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I") or image.mode == "F":
                return np.repeat(_grey(image, kind, path.name)[..., None], 3, axis=2)
            return np.array(_over_white(_in_srgb(image, profile, path.name)))


def _too_large(path: Path, size: str = "") -> str:
    return f"'{path.name}' has more than {MAX_PIXELS // 10**6} megapixels{size}; make it smaller."


def _without_texts(path: Path) -> Path | io.BytesIO:
    """The file, or a PNG without its long texts: ComfyUI writes megabytes of them, at which Pillow gives up."""
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
    """(h, w) float32 in 0..1 from more than 8 bits, which Pillow would clip to 8."""
    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise FadaError(f"'{name}' has values that are no numbers (NaN or infinite); save it again.")
    peak = float(values.max())
    if image.mode.startswith("I;16") or kind in ("PNG", "PPM"):  # 32 bits only because Pillow knows no other place
        white = 65535.0
    else:
        scales = (1.0, 255.0, 65535.0, 2.0**31 - 1) if image.mode == "F" else (255.0, 65535.0, 2.0**31 - 1)
        white = next((scale for scale in scales if peak <= scale), peak)
        if white != 1:
            log.info("'%s' has values up to %.6g; %.10g is taken for white.", name, peak, white)
    return np.clip(values.astype(np.float32) / np.float32(white), 0, 1)


def _in_srgb(image: Image.Image, profile: bytes | None, name: str) -> Image.Image:
    """The picture as RGB or RGBA, its colours as they look on a screen."""
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
                image = ImageCms.profileToProfile(
                    image.convert("RGB") if alpha else image,
                    source,
                    ImageCms.createProfile("sRGB"),
                    renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                    outputMode="RGB",
                    flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
                )
                if alpha:
                    image.putalpha(alpha)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
            log.warning("The colour profile of '%s' cannot be used (%s); its colours are taken for sRGB.", name, error)
    return image if image.mode == "RGBA" else image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


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
    """As `to_bytes`, on the CPU.

    Raises:
        FadaError: values that are not finite.
    """
    check = FiniteCheck(images, "The pictures", images.dtype)
    pixels = to_bytes(images).cpu()
    check.answer()  # now that they have arrived
    return pixels
