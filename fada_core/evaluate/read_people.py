"""Command: check that mediapipe's face mesh measures the lips of rendered people correctly (see `mesh`).

python -m fada_core.evaluate.read_people --mesh face_landmark.tflite --people 50
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ..avatars import sample
from ..command import run_command
from ..data.avatars import HELD_OUT_SEED
from ..errors import FadaError
from ..face.region import find_face
from ..media.image import from_uint8
from .cases import STANDS_STILL
from .lips import correlation
from .mesh import FaceMesh, openness


@dataclass
class ReadConfig:
    """Correlate the mouth openness measured by mediapipe's face mesh on rendered people with the true one."""

    mesh: Path
    """mediapipe's face_landmark.tflite (npm package @mediapipe/face_mesh)."""
    people: int = 50
    """Number of people; those whose mouths hardly move are skipped."""
    pool: Literal["high", "moderate"] = "high"
    seconds: float = 1.6
    size: int = 256
    seed: int = HELD_OUT_SEED


def run(config: ReadConfig) -> list[float]:
    """Print mean, median and minimum of Pearson's r over people, and return all values.

    Raises:
        FadaError: `people` is below 1, or the network cannot be used.
    """
    if config.people < 1:
        raise FadaError("There is nobody to measure; raise --people.")
    mesh = FaceMesh(config.mesh)
    found: list[float] = []
    seed = config.seed
    while len(found) < config.people:
        clip = sample(seed, config.pool, config.seconds, size=config.size, framing="face")
        seed += 1
        if clip.truth["openness"].std() < STANDS_STILL:
            continue
        frames = from_uint8(clip.clean_frames)
        region = find_face(frames[:1], box=clip.truth["face_box"][0].clamp(0, config.size).tolist())
        square = frames[..., region.top : region.top + region.side, region.left : region.left + region.side]
        found.append(correlation(openness(mesh(square, region)), clip.truth["openness"]))
    figures = float(np.mean(found)), float(np.median(found)), min(found)
    sys.stdout.write("{} people: r mean {:.3f}, median {:.3f}, minimum {:.3f}\n".format(len(found), *figures))
    return found


def main() -> int:
    def work(config: ReadConfig) -> None:
        torch.set_num_threads(1)
        run(config)

    return run_command(work, ReadConfig, "evaluate.read_people", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
