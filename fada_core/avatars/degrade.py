"""The visual defects of the moderate pool, as the paper names them for footage from the internet: darkness, blur, low
resolution, noise, compression."""

import io

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from . import filters

VISUAL = ("dark", "blur", "lowres", "noise", "compressed")  # in the order in which footage suffers them


def darken(frames: torch.Tensor, amount: float) -> torch.Tensor:
    """(n, 3, h, w) uint8 seen in `amount` (0..1) of darkness."""
    table = ((torch.arange(256) / 255) ** (1 + 0.6 * amount) * (1 - 0.4 * amount) * 255).round().to(torch.uint8)
    return table[frames.long()]


def blur(frames: torch.Tensor, sigma: float) -> torch.Tensor:
    """(n, 3, h, w) uint8 out of focus: Gaussian blur with `sigma` in pixels."""
    pictures = np.ascontiguousarray(frames.movedim(1, -1).numpy())
    blurred = [filters.blur(picture.astype(np.float32), sigma) for picture in pictures]
    return torch.from_numpy(np.stack(blurred)).round().clamp(0, 255).to(torch.uint8).movedim(-1, 1).contiguous()


def shrink(frames: torch.Tensor, factor: float) -> torch.Tensor:
    """Made `factor` (1..) times smaller and enlarged to the old size again."""
    height, width = frames.shape[-2:]
    small = (max(8, round(height / factor)), max(8, round(width / factor)))
    little = F.interpolate(frames.float(), size=small, mode="bilinear", antialias=True)
    large = F.interpolate(little, size=(height, width), mode="bicubic")
    return large.round().clamp(0, 255).to(torch.uint8)


def grain(frames: torch.Tensor, amount: float, generator: torch.Generator) -> torch.Tensor:
    """Sensor noise of deviation `amount` (0..1 of the range)."""
    noise = torch.randn(frames.shape, generator=generator) * (amount * 255)
    return (frames + noise).round().clamp(0, 255).to(torch.uint8)


def compress(frames: torch.Tensor, quality: int) -> torch.Tensor:
    """Each frame through JPEG of `quality` (1..95)."""
    result = torch.empty_like(frames)
    for index, frame in enumerate(frames):
        buffer = io.BytesIO()
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=quality)
        result[index] = torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)
    return result


def suffer(frames: torch.Tensor, name: str, strength: float, generator: torch.Generator) -> torch.Tensor:
    """The defect `name`, one of VISUAL, of `strength` 0..1 on frames (n, 3, h, w) uint8."""
    match name:
        case "dark":
            return darken(frames, strength)
        case "blur":
            return blur(frames, (0.5 + 1.2 * strength) * frames.shape[-1] / 128)
        case "lowres":
            return shrink(frames, 1.3 + 2.2 * strength)
        case "noise":
            return grain(frames, 0.01 + 0.05 * strength, generator)
        case "compressed":
            return compress(frames, round(35 - 25 * strength))
    raise ValueError(f"there is no defect '{name}'")


def degrade(frames: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, list[str]]:
    """One to three random defects on frames (n, 3, h, w) uint8; the second result says which, with their strength."""
    done = []
    count = 1 + int(torch.randint(3, (), generator=generator))
    chosen = torch.randperm(len(VISUAL), generator=generator)[:count].tolist()
    for name in (kind for index, kind in enumerate(VISUAL) if index in chosen):
        strength = float(torch.rand((), generator=generator))
        frames = suffer(frames, name, strength, generator)
        done.append(f"{name} {strength:.2f}")
    return frames, done
