"""Rendered avatars as a data set on disk: one safetensors file per clip, rendered once and read in slices."""

from __future__ import annotations

import json
import math
import re
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from ..atomic import DAY, remove_leftovers, whole_file
from ..avatars import AvatarClip, sample
from ..avatars.degrade import VISUAL
from ..media.image import from_uint8
from .quality import overall
from .samples import BadClipError, Pool, RawClip, box_mask

__all__ = ["HELD_OUT_SEED", "AvatarSet", "box_mask"]

#: Seeds from here on are never rendered for training; evaluation and demos use them.
HELD_OUT_SEED = 1_000_000


@dataclass(frozen=True)
class AvatarSet:
    """`count` clips of `seconds` at `size` pixels and `fps`, with the seeds 0 .. count - 1 of a pool, under `root`.

    In the moderate pool the portraits have the same defects as the frames, as if they were taken from the same footage.
    `clean` also stores its frames without defects. Real footage has no such ground truth; training with it gives an
    upper bound of what better data could achieve.
    """

    root: Path
    pool: Pool
    count: int
    seconds: float
    size: int
    fps: float
    clean: bool = False

    def __len__(self) -> int:
        return self.count

    @property
    def folder(self) -> Path:
        clean = "-clean" if self.clean else ""
        return self.root / f"{self.pool}-{self.size}px-{self.fps:g}fps-{self.seconds:g}s{clean}"

    def path(self, index: int) -> Path:
        return self.folder / f"{index:06d}.safetensors"

    def render(self, workers: int) -> None:
        """Render the missing clips. It may be interrupted; the next call resumes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder, older=DAY)
        missing = [i for i in range(self.count) if not self.path(i).exists()]
        if not missing:
            return
        # Spawned, because torch's threads do not survive a fork; processes, because espeak-ng has global state.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
            jobs = pool.map(_render, [(self, i) for i in missing], chunksize=4)
            for _ in tqdm(jobs, total=len(missing), desc="rendering avatars", mininterval=5):
                pass

    def read(self, index: int, *names: str) -> dict[str, Tensor]:
        """Tensors of one clip, complete: frames (n, 3, s, s) uint8, portrait (3, s, s) uint8, waveform (samples,),
        mouth_box, eyes_box and face_box (n, 4) pixels x0 y0 x1 y1, openness (n,)."""
        with safe_open(self.path(index), "pt") as file:
            return {name: file.get_tensor(name) for name in names}

    def frames(self, index: int, rows: Tensor) -> Tensor:
        """Some frames, (len(rows), 3, s, s) in -1..1; the rest of the clip is not read."""
        with safe_open(self.path(index), "pt") as file:
            view = file.get_slice("frames")
            return from_uint8(torch.stack([view[int(r)] for r in rows]))

    def picture(self, index: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random frame (3, size, size) in -1..1, and the boxes of its mouth and its eyes, (2, 4) pixels."""
        row = torch.randint(int(self.seconds * self.fps), (1,), generator=generator)
        boxes = self.read(index, "mouth_box", "eyes_box")
        return self.frames(index, row)[0], torch.cat([boxes["mouth_box"][row], boxes["eyes_box"][row]])

    def scores(self, index: int) -> dict[str, float]:
        """Strengths of a clip's defects, and `offset`, the delay of its sound in frames, for `quality.overall`.

        Empty for the high pool, which has no defects.
        """
        with safe_open(self.path(index), "pt") as file:
            metadata = file.metadata() or {}
        return json.loads(metadata.get("scores", "{}"))

    def key(self, index: int) -> tuple[str, str]:
        """See `samples.ClipSource`."""
        name = f"{self.folder.name}-{index:06d}"
        if not self.path(index).exists():
            raise BadClipError(name, "it is not rendered yet")
        facts = self.path(index).stat()
        return name, f"{facts.st_size} {facts.st_mtime_ns}"

    def fetch(self, index: int) -> RawClip:
        """The whole clip, for `samples.encode_clips`."""
        names = ("frames", "portrait", "waveform", "mouth_box", "eyes_box", "face_box", "openness")
        clip = self.read(index, *names, *(["clean_frames"] if self.clean else []))
        return RawClip(
            pool=self.pool,
            quality=overall(self.scores(index)),
            portrait=clip["portrait"],
            frames=clip["frames"],
            waveform=clip["waveform"],
            fps=self.fps,
            silent=bool(clip["openness"].max() == 0),
            mouth_boxes=clip["mouth_box"],
            eyes_boxes=clip["eyes_box"],
            face_boxes=clip["face_box"],
            clean_frames=clip.get("clean_frames"),
        )


def _one_thread() -> None:
    torch.set_num_threads(1)


def _render(job: tuple[AvatarSet, int]) -> None:
    data, index = job
    clip = sample(index, data.pool, data.seconds, size=data.size, fps=data.fps, framing="face")
    tensors = {"frames": clip.frames, "portrait": clip.portrait, "waveform": clip.waveform}
    tensors |= {name: clip.truth[name].float() for name in ("mouth_box", "eyes_box", "face_box", "openness")}
    if data.clean:
        tensors["clean_frames"] = clip.clean_frames
    with whole_file(data.path(index), shared=True) as partial:
        save_file(
            {name: value.contiguous() for name, value in tensors.items()},
            partial,
            {"scores": json.dumps(_scores(clip)), "style": clip.style},
        )


def _scores(clip: AvatarClip) -> dict[str, float]:
    """A clip's defects as scores for `quality.overall`; of several background sounds only the loudest counts."""
    scores = {"offset": float(clip.av_offset)} if clip.av_offset else {}
    for defect in clip.degradations:
        if noise := re.fullmatch(r"(?:.* noise|hum|music|babble .*) (-?\d+) dB", defect):
            scores["audio_noise_db"] = min(float(noise[1]), scores.get("audio_noise_db", math.inf))
        elif visual := re.fullmatch(rf"({'|'.join(VISUAL)}) ([\d.]+)", defect):
            scores[visual[1]] = float(visual[2])
    return scores
