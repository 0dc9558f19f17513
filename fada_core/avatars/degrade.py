"""Visual defects of the moderate pool, those that the paper names for internet footage: darkness, blur, low resolution,
noise, compression."""

import numpy as np
import torch
import torch.nn.functional as F

from . import filters

VISUAL = ("dark", "blur", "lowres", "noise", "compressed")  # in the order in which they occur in footage


def darken(frames: torch.Tensor, amount: float) -> torch.Tensor:
    """Darken (n, 3, h, w) uint8 by `amount` 0..1."""
    table = ((torch.arange(256) / 255) ** (1 + 0.6 * amount) * (1 - 0.4 * amount) * 255).round().to(torch.uint8)
    return table[frames.long()]


def blur(frames: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of (n, 3, h, w) uint8 with `sigma` in pixels."""
    pictures = np.ascontiguousarray(frames.movedim(1, -1).numpy())
    blurred = [filters.blur(picture.astype(np.float32), sigma) for picture in pictures]
    return torch.from_numpy(np.stack(blurred)).round().clamp(0, 255).to(torch.uint8).movedim(-1, 1).contiguous()


def shrink(frames: torch.Tensor, factor: float) -> torch.Tensor:
    """Shrink (n, 3, h, w) uint8 by `factor` (1 or more) and enlarge it back to its size."""
    height, width = frames.shape[-2:]
    small = (max(8, round(height / factor)), max(8, round(width / factor)))
    little = F.interpolate(frames.float(), size=small, mode="bilinear", antialias=True)
    large = F.interpolate(little, size=(height, width), mode="bicubic")
    return large.round().clamp(0, 255).to(torch.uint8)


def grain(frames: torch.Tensor, amount: float, generator: torch.Generator) -> torch.Tensor:
    """Add Gaussian noise of standard deviation `amount`, 0..1 of the range, to (n, 3, h, w) uint8."""
    noise = torch.randn(frames.shape, generator=generator) * (amount * 255)
    return (frames + noise).round().clamp(0, 255).to(torch.uint8)


def compress(frames: torch.Tensor, quality: int) -> torch.Tensor:
    """Compress each frame of (n, 3, h, w) uint8 as a JPEG of `quality` 1..95."""
    result = torch.empty_like(frames)
    for index, frame in enumerate(frames):
        result[index] = torch.from_numpy(filters.jpeg(frame.movedim(0, -1).numpy(), quality)).movedim(-1, 0)
    return result


def suffer(frames: torch.Tensor, name: str, strength: float, generator: torch.Generator) -> torch.Tensor:
    """Apply the defect `name`, one of VISUAL, with `strength` 0..1 to frames (n, 3, h, w) uint8."""
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
    """Apply one to three random defects to frames (n, 3, h, w) uint8; also returns their names with their strengths."""
    done = []
    count = 1 + int(torch.randint(3, (), generator=generator))
    chosen = torch.randperm(len(VISUAL), generator=generator)[:count].tolist()
    for name in (kind for index, kind in enumerate(VISUAL) if index in chosen):
        strength = float(torch.rand((), generator=generator))
        frames = suffer(frames, name, strength, generator)
        done.append(f"{name} {strength:.2f}")
    return frames, done
