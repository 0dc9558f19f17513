"""Effects of a camera on a picture: exposure, white balance, tone curve, lens, sensor noise, JPEG.

`sample_camera_look` draws the camera of a clip, and `develop` applies it to the frames. Only the grain changes between
frames. (`light.sample_camera` places the camera.)
"""

from dataclasses import dataclass

import numba
import numpy as np

from .color import decoded, encoded
from .filters import blur, jpeg, luminance

TILE = 96  # pixels by which the tile of grain exceeds a frame: range of its random shift in each frame


@dataclass(frozen=True)
class CameraLook:
    """Settings of a camera.

    Lengths are in 256ths of the picture's side. `grain` and `color_grain`: standard deviations, 0..1 of the range, in
    middle grey.
    """

    exposure: float = 0.0  # stops
    balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    contrast: float = 1.0
    black: float = 0.0  # haze: value of black, 0..1
    saturation: float = 1.0
    vignette: float = 0.0  # darkening of the corners, 0..1
    softness: float = 0.0  # blur of the lens (standard deviation)
    color_blur: float = 0.0  # blur of the colours only, as from cheap lenses and chroma subsampling
    sharpening: float = 0.0  # strength of sharpening in the camera
    grain: float = 0.0
    color_grain: float = 0.0
    grain_size: float = 0.5
    jpeg: int = 0  # quality 1..95; 0: none


def sample_camera_look(rng: np.random.Generator, pool: str) -> CameraLook:
    """A random camera: well adjusted in the high pool, from a studio's to an old phone's in the moderate one."""
    wide = 1.0 if pool == "moderate" else 0.55
    warm, tint = rng.normal(0, 0.07 * wide), rng.normal(0, 0.025 * wide)
    old = rng.random() < 0.3 * wide
    grain = rng.gamma(1.4, 0.006) * wide
    return CameraLook(
        exposure=float(np.clip(rng.normal(-0.02, 0.3 * wide), -1, 0.7)),
        balance=(float(np.exp(warm)), float(np.exp(tint)), float(np.exp(-warm))),
        contrast=float(np.clip(rng.normal(1.04, 0.12), 0.75, 1.4)),
        black=float(rng.uniform(0, 0.08 * wide)) if rng.random() < 0.35 else 0.0,
        saturation=float(np.clip(rng.normal(1.0, 0.16 * wide), 0.5, 1.5)),
        vignette=float(rng.beta(1.2, 4) * 0.8),
        softness=float(rng.gamma(1.5, 0.22 * wide)),
        color_blur=float(rng.uniform(0.4, 1.8)) if rng.random() < 0.5 * wide else 0.0,
        sharpening=float(rng.uniform(0.2, 0.8)) if rng.random() < 0.35 else 0.0,
        grain=float(grain),
        color_grain=float(grain * rng.uniform(0.1, 0.9)),
        grain_size=float(rng.uniform(0.3, 1.0 if old else 0.6)),
        jpeg=int(rng.integers(55 if old else 78, 96)) if rng.random() < 0.55 else 0,
    )


def _curve(look: CameraLook) -> np.ndarray:
    """Table (3, 256) float32 from uint8 sRGB to sRGB 0..1: exposure, white balance, contrast and haze."""
    value = np.arange(256) / 255
    gain = np.array(look.balance)[:, None] * 2.0**look.exposure
    light = decoded(value)[None] * gain
    over = np.maximum(gain, 1)  # highlights are compressed by a shoulder that ends at white, instead of clipped
    light = np.where(light > 0.6, 0.6 + (light - 0.6) * 0.4 / (over - 0.6), light)
    shown = encoded(light)
    shown = shown + (look.contrast - 1) * 1.6 * (shown * shown * (3 - 2 * shown) - shown)
    return np.clip(look.black + (1 - look.black) * shown, 0, 1).astype(np.float32)


@numba.njit(cache=True, nogil=True, fastmath=True)
def _expose(frame, curve, saturation, out):
    h, w, _ = frame.shape
    for y in range(h):
        for x in range(w):
            r, g, b = curve[0, frame[y, x, 0]], curve[1, frame[y, x, 1]], curve[2, frame[y, x, 2]]
            grey = np.float32(0.299) * r + np.float32(0.587) * g + np.float32(0.114) * b
            out[y, x, 0] = grey + saturation * (r - grey)
            out[y, x, 1] = grey + saturation * (g - grey)
            out[y, x, 2] = grey + saturation * (b - grey)


@numba.njit(cache=True, nogil=True, fastmath=True)
def _finish(picture, vignette, tile, y0, x0, grain, color_grain, out):
    """Vignette and grain (strongest in the middle tones), then uint8."""
    h, w, _ = picture.shape
    for y in range(h):
        for x in range(w):
            v = vignette[y, x]
            shared = tile[y0 + y, x0 + x, 0] * grain
            for c in range(3):
                value = picture[y, x, c] * v
                amount = np.float32(0.5) + np.float32(2.0) * max(value, np.float32(0)) * (1 - min(value, np.float32(1)))
                value += (shared + tile[y0 + y, x0 + x, 1 + c] * color_grain) * amount
                out[y, x, c] = np.uint8(min(max(value * 255 + np.float32(0.5), np.float32(0)), np.float32(255)))


def develop(look: CameraLook, frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Frames (n, h, w, 3) uint8 sRGB -> the same as taken by this camera, uint8."""
    _, h, w, _ = frames.shape
    unit = h / 256
    curve = _curve(look)
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    radius = ((x / (w - 1) - 0.5) ** 2 + (y / (h - 1) - 0.5) ** 2) * 2  # squared, 1 in the corners
    vignette = (1 - look.vignette * radius).astype(np.float32)
    tile = rng.standard_normal((h + TILE, w + TILE, 4)).astype(np.float32)
    tile = blur(tile, look.grain_size * unit)
    tile /= tile.std()
    picture, out = np.empty((h, w, 3), np.float32), np.empty_like(frames)
    for i, frame in enumerate(frames):
        _expose(frame, curve, np.float32(look.saturation), picture)
        taken = blur(picture, look.softness * unit)
        if look.color_blur:
            grey = luminance(taken)[..., None]
            taken = grey + blur(taken - grey, look.color_blur * unit)
        if look.sharpening:
            taken = taken + look.sharpening * (taken - blur(taken, 0.9 * unit))
        y0, x0 = rng.integers(0, TILE, 2)
        _finish(taken, vignette, tile, y0, x0, np.float32(look.grain), np.float32(look.color_grain), out[i])
        if look.jpeg:
            out[i] = jpeg(out[i], look.jpeg)
    return out
