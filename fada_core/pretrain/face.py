"""Command: render people, train the face finder on them, write its weights. Start again to resume.

The first network is trained on windows with up to three faces, the second on single faces and on crops without a face.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..atomic import whole_file
from ..command import run_command
from ..errors import FadaError
from ..face.finder import (
    CROP,
    INNER_LIPS,
    STRIDES,
    WEIGHTS,
    WINDOW,
    FinderNetworks,
    WindowNetwork,
    candidates,
    five_points,
    squares,
)
from ..training import LoopConfig, train
from .nonfaces import collection
from .stills import StillSet
from .windows import Window, Windows, box

log = logging.getLogger("fada.pretrain")

SPLIT = 36.0, 46.0
"""Range of a box's mean side in pixels in which fine and coarse cells both have to detect the face. Smaller faces are
left to the fine cells, larger ones to the coarse cells."""
CORE, AROUND = 0.16, 0.4
"""Distances from a box's centre, in units of its sides: cells closer than CORE are positive, other cells closer than
AROUND are ignored, and the rest are negative."""
FOCUS = 2.0  #: exponent of the focal loss (Lin et al. 2017)
BOX_WEIGHT, POINTS_WEIGHT, LANDMARKS_WEIGHT, LIPS_WEIGHT = 1.0, 2.0, 12.0, 2.0
HARD = 0.5  #: share of false positives of the first network among the second network's negative examples
_PRECISE = 400  #: pictures on which the statistics of the batch norms are measured at the end


@dataclass
class FaceConfig:
    """Train the face finder from fresh weights."""

    out: Path
    """Folder for data, states, previews and, at the end, finder.safetensors."""
    people: int = 700
    """People to render, with four stills each."""
    nonfaces: int = 500
    """Pictures without a face to generate."""
    empty: int = 1500
    """Windows without a face in which the first network's false positives are collected for the second one."""
    workers: int = os.cpu_count() or 1
    """Number of processes for rendering."""
    batch: int = 24
    """Windows or crops per step and process."""
    max_minutes: float = 0.0
    """Stop after this time and write the state (0: no limit)."""
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=3000, learning_rate=3e-3, weight_decay=0.02, max_grad_norm=5.0, decay_share=0.5, save_every=100
        )
    )
    cpu: bool = False
    """Train on the CPU even if there is a GPU."""


def wanted(window: Window, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """The first network's targets for the cells of `stride` pixels.

    Returns the box and points (14, h, w) float32, as the channels of `finder.WindowNetwork` without its logits, and the
    roles (h, w) int8: 1 for positive cells, 0 for negative ones, -1 for those that the loss ignores.
    """
    cells = WINDOW // stride
    y, x = (np.mgrid[:cells, :cells] + 0.5) * stride
    out, role = np.zeros((14, cells, cells), np.float32), np.zeros((cells, cells), np.int8)
    for points, (x0, y0, x1, y1), counts in zip(window.points, box(window.points), window.counts, strict=True):
        far = np.maximum(np.abs(x - (x0 + x1) / 2) / (x1 - x0), np.abs(y - (y0 + y1) / 2) / (y1 - y0))
        role[(far < AROUND) & (role == 0)] = -1
        side = np.sqrt((x1 - x0) * (y1 - y0))
        if not counts or (side > SPLIT[1] if stride == STRIDES[0] else side < SPLIT[0]):
            continue
        here = (far < CORE) | ((far == far.min()) & (far < 0.5))
        role[here] = 1
        reach = np.stack([x - x0, y - y0, x1 - x, y1 - y])[:, here].clip(1)
        out[:4, here] = np.log(reach / (4 * stride))
        relative = five_points(points)[..., None] - np.stack([x, y])[:, here]
        out[4:, here] = relative.reshape(10, -1) / (4 * stride)
    return out, role


def _rngs(generators: list[torch.Generator]) -> list[np.random.Generator]:
    return [np.random.default_rng(int(torch.randint(2**62, (), generator=each))) for each in generators]


@dataclass
class FinderTask:
    """The common part of both networks' training tasks."""

    module: nn.Module
    data: Windows
    batch: int

    def parameter_groups(self) -> list[dict[str, Any]]:
        decayed = [p for p in self.module.parameters() if p.ndim > 1]
        return [{"params": decayed}, {"params": [p for p in self.module.parameters() if p.ndim < 2], "weight_decay": 0}]

    def settings(self) -> dict[str, Any]:
        return {"clips": len(self.data.stills), "nonfaces": len(self.data.others)}

    def describe(self) -> str:
        return "random stills"

    def pictures(self, rngs: list[np.random.Generator]) -> Tensor:
        """Training pictures (n, 3, s, s) in -1..1, one per random generator, without their targets."""
        raise NotImplementedError

    @torch.no_grad()
    def measure_statistics(self) -> None:
        """Measure the batch norms' statistics again, as those of the training do not belong to the averaged weights."""
        layers = [layer for layer in self.module.modules() if isinstance(layer, nn.BatchNorm2d)]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # all batches have the same weight
        self.module.train()
        device = next(self.module.parameters()).device
        for at in range(0, _PRECISE, self.batch):
            self.module(self.pictures([np.random.default_rng([at + n, 23]) for n in range(self.batch)]).to(device))
        self.module.eval()


class WindowTask(FinderTask):
    """The first network's task: focal loss for the logits, smooth L1 loss for boxes and points."""

    def pictures(self, rngs: list[np.random.Generator]) -> Tensor:
        return as_input([self.data.window(rng).picture for rng in rngs])

    def losses(self, module: nn.Module, step: int, generators: list[torch.Generator]) -> dict[str, Tensor]:
        windows = [self.data.window(rng) for rng in _rngs(generators)]
        maps = module(as_input([window.picture for window in windows]).to(next(self.module.parameters()).device))
        sums, count = torch.zeros(3, device=maps[0].device), 0
        for stride, out in zip(STRIDES, maps, strict=True):
            targets, roles = zip(*(wanted(window, stride) for window in windows), strict=True)
            target, role = (torch.from_numpy(np.stack(each)).to(out.device) for each in (targets, roles))
            out, face = out.float(), (role == 1).float()
            count += int(face.sum())
            each = F.binary_cross_entropy_with_logits(out[:, 0], face, reduction="none")
            each = each * (face - out[:, 0].sigmoid()).abs() ** FOCUS * (role >= 0)
            error = F.smooth_l1_loss(out[:, 1:], target, reduction="none", beta=0.05) * face[:, None]
            sums = sums + torch.stack([each.sum(), error[:, :4].sum() / 4, error[:, 4:].sum() / 10])
        where, boxes, points = sums / max(count, 1)
        loss = where + BOX_WEIGHT * boxes + POINTS_WEIGHT * points
        return {"loss": loss, "where": where, "box": boxes, "points": points}

    def preview(self, folder: Path, step: int) -> None:
        """Write `preview-STEP.png`: the same windows at every step, brighter where a face is more probable."""
        pictures = self.pictures([np.random.default_rng(n) for n in range(24)])
        maps = self.module(pictures.to(next(self.module.parameters()).device))
        sure = [F.interpolate(out[:, :1].float().sigmoid().cpu(), (WINDOW, WINDOW)) for out in maps]
        shown = (pictures + 1) / 2 * (0.3 + 0.7 * torch.maximum(*sure))
        tiles = (shown * 255).byte().movedim(1, -1).numpy()
        write_sheet(folder / f"preview-{step:06d}.png", list(tiles))


@dataclass
class CropTask(FinderTask):
    """The second network's task: smooth L1 loss for landmarks, cross entropy for the logits."""

    hard: np.ndarray = field(default_factory=lambda: np.empty((0, CROP, CROP, 3), np.uint8))
    """False positives of the first network (n, 96, 96, 3) uint8, from `mistaken`."""

    def pictures(self, rngs: list[np.random.Generator]) -> Tensor:
        return as_input([self._crop(rng)[0] for rng in rngs])

    def _crop(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, bool]:
        """As `Windows.crop`, with false positives of the first network among the negative examples."""
        picture, points, shown = self.data.crop(rng)
        if not shown and len(self.hard) and rng.random() < HARD:
            picture = self.hard[rng.integers(len(self.hard))][:, :: rng.choice([-1, 1])]
        return picture, points, shown

    def losses(self, module: nn.Module, step: int, generators: list[torch.Generator]) -> dict[str, Tensor]:
        crops, points, shown = zip(*map(self._crop, _rngs(generators)), strict=True)
        device = next(self.module.parameters()).device
        landmarks, logits = module(as_input(crops).to(device))
        truth = torch.from_numpy(np.stack(points) / CROP - 0.5).to(device)
        faces = torch.tensor(shown, device=device).float()
        error = F.smooth_l1_loss(landmarks, truth, reduction="none", beta=0.02).mean(-1)
        weight = torch.ones_like(error)
        weight[:, INNER_LIPS] = LIPS_WEIGHT
        places = (faces[:, None] * weight * error).sum() / (faces.sum().clamp(min=1) * weight[0].sum())
        face = F.binary_cross_entropy_with_logits(logits.float(), faces)
        with torch.no_grad():
            distance = (landmarks - truth).norm(dim=-1).mean(-1)
            pixels = CROP * (faces * distance).sum() / faces.sum().clamp(min=1)
            mistaken = ((logits > 0) != (faces > 0)).float().mean()
        loss = LANDMARKS_WEIGHT * places + face
        return {"loss": loss, "landmarks": places, "face": face, "pixels": pixels, "mistaken": mistaken}

    def preview(self, folder: Path, step: int) -> None:
        """Write `preview-STEP.png`: the same crops at every step, with true (green) and predicted (red) landmarks."""
        crops, points, shown = zip(*(self.data.crop(np.random.default_rng(n)) for n in range(24)), strict=True)
        landmarks, logits = self.module(as_input(crops).to(next(self.module.parameters()).device))
        tiles = []
        for n, crop in enumerate(crops):
            tile = Image.fromarray(crop).resize((2 * CROP, 2 * CROP))
            pen = ImageDraw.Draw(tile)
            for where, color in ((points[n] * shown[n], "lime"), ((landmarks[n].cpu().numpy() + 0.5) * CROP, "red")):
                pen.point([tuple(2 * place) for place in where], color)
            pen.text((2, 2), f"{float(logits[n].sigmoid()):.2f}", "yellow")
            tiles.append(np.asarray(tile))
        write_sheet(folder / f"preview-{step:06d}.png", tiles)


@torch.inference_mode()
def mistaken(network: WindowNetwork, data: Windows, count: int) -> np.ndarray:
    """Crops (n, 96, 96, 3) uint8 of the network's false positives in `count` windows without a face."""
    network.eval()
    crops = [torch.empty(0, 3, CROP, CROP)]
    for n in range(count):
        picture = as_input([data.empty(np.random.default_rng([n, 24]))])
        points, _ = candidates(network, picture)
        if len(points):
            crops.append(squares(picture, points)[0])
    return ((torch.cat(crops) + 1) * 127.5).byte().movedim(1, -1).contiguous().numpy()


def write_sheet(path: Path, tiles: list[np.ndarray]) -> None:
    """Write a picture of tiles (s, s, 3) uint8, eight per row; their number is a multiple of eight."""
    iio.imwrite(path, np.concatenate([np.concatenate(tiles[at : at + 8], 1) for at in range(0, len(tiles), 8)]))


def as_input(pictures: Any) -> Tensor:
    """Pictures (s, s, 3) uint8 -> (n, 3, s, s) in -1..1."""
    batch = torch.from_numpy(np.stack(pictures)).movedim(-1, 1).float() / 127.5 - 1
    return batch.contiguous(memory_format=torch.channels_last)


def run(config: FaceConfig) -> Path:
    """Render and train, resuming an earlier run; returns the file with the weights.

    Raises:
        FadaError: a training failed (see `training.train`), or was stopped before its end.
    """
    started = time.monotonic()
    deadline = started + config.max_minutes * 60 if config.max_minutes else float("inf")
    accelerator = Accelerator(cpu=config.cpu)
    torch.manual_seed(config.loop.seed)
    stills = StillSet(config.out / "data", config.people)
    with accelerator.main_process_first():
        stills.render(config.workers)
        others = collection(config.out / "data", config.nonfaces, stills.size)
    networks, windows = FinderNetworks(), Windows(stills, others)
    first, second = config.out / "window.safetensors", config.out / "crop.safetensors"
    if not first.exists():
        window_task = WindowTask(networks.window.to(memory_format=torch.channels_last), windows, config.batch)
        _train(window_task, config, first, accelerator, deadline)
    networks.window.load_state_dict(load_file(first))
    if not second.exists():
        crop_task = CropTask(networks.crop.to(memory_format=torch.channels_last), windows, config.batch)
        crop_task.hard = mistaken(networks.window.cpu(), windows, config.empty)
        _train(crop_task, config, second, accelerator, deadline)
    networks.crop.load_state_dict(load_file(second))
    target = config.out / WEIGHTS.name
    if accelerator.is_main_process:
        save(networks, target)
        log.info("wrote %s; the finder uses %s", target, WEIGHTS)
    return target


def _train(
    task: WindowTask | CropTask, config: FaceConfig, target: Path, accelerator: Accelerator, deadline: float
) -> None:
    """Train one network, resuming an earlier run, and write its weights to `target`."""
    if not train(task, config.loop, config.out / target.stem, accelerator, deadline):
        raise FadaError("The training was stopped; start again to resume.")
    if accelerator.is_main_process:
        task.measure_statistics()
        save(task.module, target)
    accelerator.wait_for_everyone()


def save(networks: nn.Module, target: Path) -> None:
    """Write the weights, in half precision except for the integer counters of the batch norms."""
    state = {k: v.half() if v.is_floating_point() else v for k, v in networks.cpu().state_dict().items()}
    with whole_file(target) as partial:
        save_file({name: value.contiguous() for name, value in state.items()}, partial)


def main() -> int:
    return run_command(run, FaceConfig, "pretrain.face", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
