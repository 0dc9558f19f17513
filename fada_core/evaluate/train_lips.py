"""Command: train the lips regressor on rendered avatars, check it on held-out ones, and write its weights."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor, nn

from .. import avatars
from ..data.avatars import HELD_OUT_SEED, AvatarSet
from ..training import LoopConfig, train
from .lips import WEIGHTS, LipsRegressor, correlation

log = logging.getLogger("fada.lips")


@dataclass
class TrainLipsConfig:
    """The data set is the one that `python -m fada_core.pretrain` renders; missing clips are rendered."""

    out: Path
    """Folder for states and log."""
    data: Path
    """Folder with the rendered avatars (pretrain's OUT/data)."""
    clips: int = 640
    clip_seconds: float = 2.4
    batch: int = 32
    held_out: int = 30
    """Avatars, never seen in training, on which the regressor is checked."""
    workers: int = 1
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=320, learning_rate=2e-3, preview_every=10**9))


@dataclass
class LipsTask:
    """Squared error of openness on frames that are shifted, blurred and noised, as generated ones may be."""

    module: nn.Module
    data: AvatarSet
    batch: int

    def losses(self, module: nn.Module, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        clips = torch.randint(self.data.count, (self.batch,), generator=generator).tolist()
        rows = torch.randint(int(self.data.seconds * self.data.fps), (self.batch,), generator=generator)
        pairs = list(zip(clips, rows, strict=True))
        images = torch.cat([self.data.frames(clip, row[None]) for clip, row in pairs])
        target = torch.stack([self.data.read(clip, "openness")["openness"][row] for clip, row in pairs])
        device = next(module.parameters()).device
        output = module(_augment(images, generator).to(device)).float()
        return {"loss": F.mse_loss(output, target.to(device))}

    def preview(self, folder: Path, step: int) -> None:
        """Nothing to look at: the held-out correlation is logged at the end."""


def _augment(images: Tensor, generator: torch.Generator) -> Tensor:
    n = len(images)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    shift = (rand(n, 2) - 0.5) * 0.2
    scale = 0.9 + 0.2 * rand(n)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = scale
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    images = torch.lerp(images, blurred, rand(n, 1, 1, 1))
    images = images * (0.8 + 0.4 * rand(n, 1, 1, 1)) + 0.2 * (rand(n, 3, 1, 1) - 0.5)
    return images + 0.1 * rand(n, 1, 1, 1) * torch.randn(images.shape, generator=generator)


@torch.inference_mode()
def check(regressor: LipsRegressor, count: int, size: int) -> float:
    """Pearson's r between predicted and true openness over all frames of `count` held-out avatars."""
    clips = [avatars.sample(HELD_OUT_SEED + i, "high", 2.0, size=size) for i in range(count)]
    predicted = torch.cat([regressor(clip.frames.float() / 127.5 - 1) for clip in clips])
    return correlation(predicted, torch.cat([torch.as_tensor(clip.truth["openness"]) for clip in clips]))


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    config = tyro.cli(TrainLipsConfig, prog="python -m fada_core.evaluate.train_lips", description=__doc__)
    torch.manual_seed(config.loop.seed)
    data = AvatarSet(config.data, "high", config.clips, config.clip_seconds, 128, 25.0)
    data.render(config.workers)
    regressor = LipsRegressor()
    train(LipsTask(regressor, data, config.batch), config.loop, config.out, Accelerator(cpu=True), float("inf"))
    log.info("held-out correlation: %.4f", check(regressor, config.held_out, data.size))
    save_file(regressor.state_dict(), WEIGHTS)


if __name__ == "__main__":
    main()
