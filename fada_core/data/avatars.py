"""Rendered avatars as a data set on disk: one safetensors file a clip, made once, read by slices."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from .. import avatars

#: Seeds from here on are never rendered for training: evaluation and demos draw theirs from above.
HELD_OUT_SEED = 1_000_000


@dataclass(frozen=True)
class AvatarSet:
    """`count` clips of `seconds` at `size` pixels and `fps`, seeds 0 .. count - 1 of a pool, stored under `root`."""

    root: Path
    pool: str
    count: int
    seconds: float
    size: int
    fps: float

    @property
    def folder(self) -> Path:
        return self.root / f"{self.pool}-{self.size}px-{self.fps:g}fps-{self.seconds:g}s"

    def path(self, index: int) -> Path:
        return self.folder / f"{index:06d}.safetensors"

    def render(self, workers: int) -> None:
        """Render what is missing; interrupted and resumed at will."""
        self.folder.mkdir(parents=True, exist_ok=True)
        missing = [i for i in range(self.count) if not self.path(i).exists()]
        if not missing:
            return
        # Spawned, one thread each: espeak-ng is a process-wide singleton and torch's threads do not survive a fork.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
            jobs = pool.map(_render, [(self, i) for i in missing], chunksize=4)
            for _ in tqdm(jobs, total=len(missing), desc="rendering avatars", mininterval=5):
                pass

    def read(self, index: int, *names: str) -> dict[str, Tensor]:
        """Whole tensors of one clip: frames (n, 3, s, s) uint8, portrait (3, s, s) uint8, waveform (samples,),
        mouth_box and eyes_box (n, 4) pixels x0 y0 x1 y1, openness (n,)."""
        with safe_open(self.path(index), "pt") as file:
            return {name: file.get_tensor(name) for name in names}

    def frames(self, index: int, rows: Tensor) -> Tensor:
        """Some frames `(len(rows), 3, s, s)` in -1..1, read without the rest of the clip."""
        with safe_open(self.path(index), "pt") as file:
            view = file.get_slice("frames")
            return torch.stack([view[int(r)] for r in rows]).float() / 127.5 - 1


def box_mask(boxes: Tensor, size: int, margin: float = 2.0) -> Tensor:
    """1 inside the pixel boxes `(n, 4)` x0 y0 x1 y1 (grown by `margin`), 0 outside: `(n, 1, size, size)`."""
    axis = torch.arange(size) + 0.5
    x0, y0, x1, y1 = (boxes + torch.tensor([-margin, -margin, margin, margin])).unbind(-1)
    inside_x = (axis >= x0[:, None]) & (axis <= x1[:, None])
    inside_y = (axis >= y0[:, None]) & (axis <= y1[:, None])
    return (inside_y[:, None, :, None] & inside_x[:, None, None, :]).float()


def _one_thread() -> None:
    torch.set_num_threads(1)


def _render(job: tuple[AvatarSet, int]) -> None:
    data, index = job
    clip = avatars.sample(index, data.pool, data.seconds, size=data.size, fps=data.fps)
    truth: dict[str, Any] = clip.truth
    tensors = {
        "frames": clip.frames,
        "portrait": ((clip.portrait + 1) * 127.5).round().clamp(0, 255).to(torch.uint8),
        "waveform": torch.as_tensor(clip.waveform),
        "mouth_box": torch.as_tensor(truth["mouth_box"]).float(),
        "eyes_box": torch.as_tensor(truth["eyes_box"]).float(),
        "openness": torch.as_tensor(truth["openness"]).float(),
    }
    partial = data.path(index).with_suffix(".partial")
    save_file({name: value.contiguous() for name, value in tensors.items()}, partial)
    os.replace(partial, data.path(index))
