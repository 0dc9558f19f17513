"""Command: train the lips regressor on rendered avatars, test it on held-out ones, and write its weights."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor, nn

from ..atomic import whole_file
from ..avatars.clip import sample
from ..avatars.performance import Pool
from ..command import run_command
from ..data.avatars import HELD_OUT_SEED, AvatarSet
from ..media.image import from_uint8
from ..training import LoopConfig, train
from .lips import WEIGHTS, LipsRegressor, correlation

log = logging.getLogger("fada.lips")
SIZE, FPS = 256, 25.0  #: of the avatars that the shipped models learn from


@dataclass
class TrainLipsConfig:
    """Train the lips regressor on the avatars of `python -m fada_core.pretrain`; missing clips are rendered."""

    out: Path
    """Folder for states, log and, at the end, lips.safetensors."""
    data: Path
    """Folder of rendered avatars (OUT/data of pretrain)."""
    clips: int = 640
    """Number of clips of each pool."""
    clip_seconds: float = 2.4
    batch: int = 32
    held_out: int = 30
    """Number of held-out avatars of each pool on which the regressor is tested."""
    workers: int = 1
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=320, learning_rate=2e-3, preview_every=10**9))


@dataclass
class LipsTask:
    """Squared error of openness on frames that are shifted, blurred and noised, as generated frames may be."""

    module: nn.Module
    sets: Sequence[AvatarSet]  #: chosen with equal probability
    batch: int

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.module.parameters())}]

    def losses(self, module: nn.Module, step: int, generators: list[torch.Generator]) -> dict[str, Tensor]:
        images, openness = zip(*map(self._draw, generators), strict=True)
        device = next(module.parameters()).device
        output = module(torch.cat(images).to(device)).float()
        return {"loss": F.mse_loss(output, torch.cat(openness).to(device))}

    def _draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A frame of a random clip (1, 3, size, size), augmented, and the openness of its mouth (1,)."""
        data = self.sets[int(torch.randint(len(self.sets), (), generator=generator))]
        clip = int(torch.randint(len(data), (), generator=generator))
        row = torch.randint(int(data.seconds * data.fps), (1,), generator=generator)
        return _augment(data.frames(clip, row), generator), data.read(clip, "openness")["openness"][row]

    def settings(self) -> dict[str, Any]:
        return {"clips": sum(map(len, self.sets))}

    def describe(self) -> str:
        return "single frames of random clips"

    def preview(self, folder: Path, step: int) -> None:
        """There is no preview: the held-out correlation is logged at the end."""


def _augment(image: Tensor, generator: torch.Generator) -> Tensor:
    """Shift, scale, blur, brighten, tint and add noise to a picture (1, 3, h, w), each by a random amount."""

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    shift = (rand(2) - 0.5) * 0.2
    theta = torch.zeros(1, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 0.9 + 0.2 * rand(1)
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, list(image.shape), align_corners=False)
    image = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
    blurred = F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    image = torch.lerp(image, blurred, rand(1))
    image = image * (0.8 + 0.4 * rand(1)) + 0.2 * (rand(3, 1, 1) - 0.5)
    return image + 0.1 * rand(1) * torch.randn(image.shape, generator=generator)


@torch.inference_mode()
def check(regressor: LipsRegressor, pool: Pool, count: int, size: int) -> float:
    """Pearson's r between predicted and true openness, over all frames without defects of `count` held-out avatars."""
    clips = [sample(HELD_OUT_SEED + i, pool, 1.0, size=size, framing="face") for i in range(count)]
    predicted = torch.cat([regressor(from_uint8(clip.clean_frames)) for clip in clips])
    return correlation(predicted, torch.cat([clip.truth["openness"] for clip in clips]))


def run(config: TrainLipsConfig) -> Path:
    """Train the regressor or resume its training, log the held-out correlation, and return the file of weights.

    Raises:
        FadaError: see `training.train`.
    """
    torch.manual_seed(config.loop.seed)
    sets = [AvatarSet(config.data, pool, config.clips, config.clip_seconds, SIZE, FPS) for pool in get_args(Pool)]
    for data in sets:
        data.render(config.workers)
    regressor = LipsRegressor()
    train(LipsTask(regressor, sets, config.batch), config.loop, config.out, Accelerator(cpu=True), float("inf"))
    for pool in get_args(Pool):
        log.info("held-out correlation, %s: %.4f", pool, check(regressor, pool, config.held_out, SIZE))
    target = config.out / WEIGHTS.name
    with whole_file(target) as partial:
        save_file(regressor.state_dict(), partial)
    log.info("wrote %s; evaluations use %s", target, WEIGHTS)
    return target


def main() -> int:
    return run_command(run, TrainLipsConfig, "evaluate.train_lips", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
