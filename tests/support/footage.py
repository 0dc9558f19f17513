"""Short films, and the manifests that list them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

from fada_core.media.video import VideoWriter

SIZE, FPS, FRAMES = 64, 25.0, 12


def speech(seconds: float) -> torch.Tensor:
    """A tone that is interrupted like syllables."""
    t = torch.arange(round(seconds * 16000)) / 16000
    return 0.5 * torch.sin(2 * math.pi * 220 * t) * (torch.sin(2 * math.pi * 4 * t) > 0)


def film(path: Path, frames: int = FRAMES, fps: float = FPS, size: int = SIZE, sound: bool = True) -> None:
    """Write a video of a bright square that moves to the right, with syllables as its sound."""
    pictures = torch.zeros(frames, 3, size, size)
    for i in range(frames):
        pictures[i, :, size // 4 : size // 2, 2 * i : 2 * i + size // 4] = 1
    audio = speech(frames / fps) if sound else None
    with VideoWriter(path, size, size, fps, audio) as writer:
        writer.write(pictures * 2 - 1)


def row(id: str, **changes: Any) -> dict[str, Any]:
    given = {"id": id, "video": "a.mp4", "audio": "a.mp4", "fps": 25, "pool": "high", "split": "train", "bbox": None}
    return given | {"quality": {}} | changes


def manifest(folder: Path, *rows: dict[str, Any] | str) -> Path:
    path = folder / "clips.jsonl"
    path.write_text("".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in rows), encoding="utf-8")
    return path
