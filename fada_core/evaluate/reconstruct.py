"""Command: reconstruct held-out videos with the autoencoder alone, an upper bound for generated videos.

python -m fada_core.evaluate.reconstruct --models portrait other.safetensors
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from ..command import run_command
from ..data.avatars import box_mask
from ..errors import FadaError
from ..pipeline import Pipeline, load
from .cases import POOLS, Case, avatar_sets
from .metrics import masked_psnr
from .report import markdown_by_run
from .runs import TRUTH, Summary, summarise

METRICS = ("psnr", "psnr_mouth", "lips_r", "lips_error", "flicker")


@dataclass(frozen=True)
class ReconstructConfig:
    """Encode and decode held-out videos, and measure the results."""

    models: tuple[str, ...] = ("portrait",)
    """Names of shipped models, or checkpoints, of the same size and frame rate."""
    videos: int = 12
    """Number of videos of each set."""
    seconds: float = 4.0


def reconstruct(pipe: Pipeline, frames: Tensor) -> Tensor:
    """Encode and decode frames (n, 3, size, size) in -1..1."""
    with torch.inference_mode():
        encoded = [pipe.networks.vae.encode(part.to(pipe.device, pipe.networks.dtype)) for part in frames.split(32)]
    return pipe.decode(torch.cat(encoded)).cpu()


def fidelity(frames: Tensor, case: Case) -> dict[str, float]:
    """psnr and psnr_mouth in dB, of the whole picture and, for an avatar, of the box around the mouth."""
    masks = {"psnr": torch.ones(len(frames), 1, *frames.shape[-2:])}
    if case.truth is not None:
        mouth = torch.as_tensor(case.truth.parameters["mouth_box"]).float()
        masks["psnr_mouth"] = box_mask(mouth, frames.shape[-1])
    return {name: masked_psnr(frames, case.frames, mask) for name, mask in masks.items()}


def run(config: ReconstructConfig) -> dict[str, dict[str, Summary]]:
    """Measure the models: {set: {model: {metric: {mean, ci95, n}}}}, with the ground truth as the model "truth".

    Raises:
        FadaError: a model that cannot be loaded, or models of different sizes or frame rates.
    """
    pipes = {name: load(name) for name in config.models}
    model = pipes[config.models[0]].config
    if any((p.config.size, p.config.fps) != (model.size, model.fps) for p in pipes.values()):
        raise FadaError("These models have different sizes or frame rates; compare models that share them.")
    results = {}
    for data in avatar_sets(POOLS, config.videos, config.seconds, model):
        rows: dict[str, list[dict[str, float]]] = {TRUTH: [], **{name: [] for name in pipes}}
        for case in data.cases:
            rows[TRUTH].append(case.measure(case.frames))
            for name, pipe in pipes.items():
                frames = reconstruct(pipe, case.frames)
                rows[name].append(case.measure(frames) | fidelity(frames, case))
        results[data.name] = {name: summarise(videos) for name, videos in rows.items()}
    return results


def main() -> int:
    def work(config: ReconstructConfig) -> None:
        sys.stdout.write(markdown_by_run(run(config), METRICS))

    return run_command(work, ReconstructConfig, "evaluate.reconstruct", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
