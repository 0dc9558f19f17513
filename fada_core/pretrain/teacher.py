"""The teacher's training task: denoise latents, conditioned on portrait, motion frames and speech.

Reference and audio are dropped separately and together, so that one network serves all three branches of guidance. Only
the high pool is used (FADA, figure 2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.batches import ClipBatch, closeups, draw_batch
from ..data.samples import ClipDataset
from ..models.motion import MotionModule
from ..models.networks import Networks
from ..sampling.schedule import NoiseSchedule

HUBER_C = 1.5
"""Scale of the pseudo-Huber loss, our choice: about quadratic below it, linear above.

As long as the speech does not determine how far the mouth opens, a quadratic loss is smallest for the mean of all
possibilities, and a linear one for their median, which is almost no motion. Latents of open and closed mouths differ by
1 to 2.5. Larger errors come from turning heads and should not dominate the loss."""
DROP_BOTH, DROP_AUDIO, DROP_REFERENCE = 0.05, 0.10, 0.02
"""Shares of samples without reference and audio, which train the base branch, without audio, and without reference."""
NOISY_SHARE_STILLS, NOISY_SHARE_CLIPS, NOISY_FROM = 0.85, 0.5, 0.6
"""Shares of the samples, for single frames and for clips, with timesteps drawn above NOISY_FROM of the schedule.

There only the speech determines the mouth; with little noise, x_t already shows it. For the same reason the loss is on
x_0: with a loss on v, timesteps with little noise dominate. The clips, the last stage, have a smaller share, because
clean lips and teeth are learned at timesteps with little noise."""


class _Denoiser(nn.Module):
    """Conditioning and prediction in one forward pass, as accelerate needs it to wrap them."""

    def __init__(self, networks: Networks) -> None:
        super().__init__()
        self.networks = networks

    def forward(self, x_t: Tensor, t: Tensor, alpha: Tensor, sigma: Tensor, batch: ClipBatch, drops: Tensor) -> Tensor:
        conditioning = self.networks.condition(batch.inputs(*drops.unbind(1)))
        return self.networks.predict(x_t, t, alpha, sigma, conditioning)


@dataclass
class TeacherTask:
    """v-prediction on random clips; pseudo-Huber loss on x_0 with larger weights on mouth and eyes."""

    networks: Networks
    clips: ClipDataset
    batch: int
    make_preview: Callable[[Networks, Path, int], None]
    cells: int = 0  #: side of close-ups to train on, in latent cells; 0: whole pictures
    closeup_steps: float = float("inf")  #: number of steps with close-ups, at the start of the training
    stills: bool = False
    """Train on single frames without motion frames; the motion modules are not trained. A frame costs a twelfth of a
    clip, and its mouth can only be predicted from the speech, as there are no neighbouring frames."""
    ids: list[str] = field(default_factory=list)  #: of the latest batch

    def __post_init__(self) -> None:
        self.config = self.networks.config
        self.schedule = NoiseSchedule(self.config.schedule)
        for frozen in (self.networks.vae, self.networks.audio_encoder):
            frozen.requires_grad_(False)
        for module in self.networks.denoising_unet.modules():
            if isinstance(module, MotionModule):
                module.requires_grad_(not self.stills)
        self.module: nn.Module = _Denoiser(self.networks).to(memory_format=torch.channels_last)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": [p for p in self.module.parameters() if p.requires_grad]}]

    def settings(self) -> dict[str, Any]:
        part: dict[str, float] = {"closeup_cells": self.cells} if self.cells else {}
        if self.closeup_steps < float("inf"):
            part["closeup_steps"] = self.closeup_steps
        return {"clips": len(self.clips), **part}

    def describe(self) -> str:
        return "samples " + ", ".join(self.ids)

    def draw(self, generators: list[torch.Generator], cells: int = 0) -> tuple[ClipBatch, Tensor, Tensor, Tensor]:
        """Draw a batch: clips, drops (batch, 2) bool of reference and audio, noise in the latents' shape, and timesteps
        (batch,).

        Args:
            cells: side of the close-ups in latent cells; 0: whole pictures.
        """
        layout = replace(self.config, clip_frames=1, motion_frames=0) if self.stills else self.config
        batch = draw_batch(self.clips, layout, generators)
        if cells:
            batch = closeups(batch, cells, generators)
        noise = torch.stack([torch.randn(batch.latents.shape[1:], generator=g) for g in generators])
        t = torch.cat([self._timestep(g) for g in generators])
        # One uniform number decides both drops, so that the three cases exclude each other.
        kind = torch.cat([torch.rand(1, generator=g) for g in generators])
        drops = torch.stack([kind < DROP_BOTH + DROP_REFERENCE, (kind < DROP_BOTH) | (kind > 1 - DROP_AUDIO)], dim=1)
        return batch, drops, noise, t

    def _timestep(self, generator: torch.Generator) -> Tensor:
        """(1,), uniform over the schedule, or over its noisy end for a share of the samples."""
        total = self.config.schedule.train_timesteps
        share = NOISY_SHARE_STILLS if self.stills else NOISY_SHARE_CLIPS
        noisy = float(torch.rand((), generator=generator)) < share
        return torch.randint(round(NOISY_FROM * total) if noisy else 0, total, (1,), generator=generator)

    def losses(self, module: nn.Module, step: int, generators: list[torch.Generator]) -> dict[str, Tensor]:
        device = self.networks.device
        batch, drops, noise, t = self.draw(generators, self.cells if step < self.closeup_steps else 0)
        self.ids = batch.ids
        batch = batch.to(device)
        drops, noise, t = (value.to(device) for value in (drops, noise, t))
        x_t = self.schedule.add_noise(batch.latents, noise, t)
        target = self.schedule.velocity(batch.latents, noise, t)
        alpha, sigma = self.schedule.alpha_sigma(t)
        prediction = module(x_t, t, alpha, sigma, batch, drops).float()
        # sigma times the error of v is the error of x_0 (see distill/losses.py).
        error = (prediction - target) * sigma[:, None, None, None, None]
        huber = (error.square() + HUBER_C**2).sqrt() - HUBER_C
        # In rows with a portrait the network predicts a residual in units of `residual_std`, which scales its gradient.
        # The loss of the other rows has the same factor, so that these do not dominate the gradient and Adam's moments.
        share = torch.where(drops[:, 0], self.config.residual_std or 1.0, 1.0)[:, None, None, None, None]
        loss = (share * batch.weights * huber).mean() / batch.weights.mean()
        return {"loss": loss, "mse": error.detach().square().mean()}

    def preview(self, folder: Path, step: int) -> None:
        self.make_preview(self.networks, folder, step)
