"""The frozen teacher as the student's first source of truth: guided predictions for per-sample scales."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.batches import ClipBatch
from ..models.networks import ClipConditioning, Networks
from ..sampling.guidance import BRANCHES, branch_weights, combine, condition_branches
from ..sampling.schedule import NoiseSchedule


class GuidedTeacher:
    """Three branches of every sample in one pass, each sample guided by its own scales.

    Kept out of accelerate's `prepare`: it has no gradient and needs no wrapping.

    Args:
        networks: on the device, frozen.
        schedule: its noise schedule.
    """

    def __init__(self, networks: Networks, schedule: NoiseSchedule) -> None:
        self.networks, self.schedule = networks.eval().requires_grad_(False), schedule

    @torch.no_grad()
    def condition(self, batch: ClipBatch) -> ClipConditioning:
        """Conditioning of all base, then all ref, then all audio rows."""
        return condition_branches(self.networks, batch.inputs(), BRANCHES)

    @torch.no_grad()
    def predict(self, x_t: Tensor, t: Tensor, scales: Tensor, conditioning: ClipConditioning) -> tuple[Tensor, Tensor]:
        """(guided, audio branch alone): predictions (batch, frames, c, h, w) float32.

        Args:
            x_t: (batch, frames, c, h, w).
            t: timesteps, (batch,).
            scales: ref_cfg and audio_cfg of each sample, (batch, 2); at a branch's own scales, guided is that one
                prediction.
        """
        alpha, sigma = self.schedule.alpha_sigma(t)
        x_t, t, alpha, sigma = (
            value.repeat(len(BRANCHES), *(1,) * (value.ndim - 1)) for value in (x_t, t, alpha, sigma)
        )
        predictions = self.networks.predict(x_t, t, alpha, sigma, conditioning).unflatten(0, (len(BRANCHES), -1))
        return combine(predictions, torch.stack(branch_weights(*scales.unbind(1)))), predictions[-1]
