"""The frozen teacher: guided predictions with different scales for each sample."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.batches import ClipBatch
from ..models.networks import ClipConditioning, Networks
from ..sampling.guidance import BRANCHES, branch_weights, combine, condition_branches
from ..sampling.schedule import NoiseSchedule


class GuidedTeacher:
    """Computes the three branches of all samples in one pass, and guides each sample by its own scales.

    It is not passed to accelerate's `prepare`, because it has no gradient.

    Args:
        networks: the teacher's networks, on the device; they are frozen.
        schedule: its noise schedule.
    """

    def __init__(self, networks: Networks, schedule: NoiseSchedule) -> None:
        self.networks, self.schedule = networks.eval().requires_grad_(False), schedule

    @torch.no_grad()
    def condition(self, batch: ClipBatch) -> ClipConditioning:
        """Conditioning of all branches: all base rows, then all ref rows, then all audio rows."""
        return condition_branches(self.networks, batch.inputs(), BRANCHES)

    @torch.no_grad()
    def predict(self, x_t: Tensor, t: Tensor, scales: Tensor, conditioning: ClipConditioning) -> tuple[Tensor, Tensor]:
        """The guided prediction and that of the audio branch, each (batch, frames, c, h, w) float32.

        Args:
            x_t: (batch, frames, c, h, w).
            t: timesteps, (batch,).
            scales: ref_cfg and audio_cfg of each sample, (batch, 2); with the scales of a branch, the guided prediction
                is that of the branch.
        """
        alpha, sigma = self.schedule.alpha_sigma(t)
        x_t, t, alpha, sigma = (
            value.repeat(len(BRANCHES), *(1,) * (value.ndim - 1)) for value in (x_t, t, alpha, sigma)
        )
        predictions = self.networks.predict(x_t, t, alpha, sigma, conditioning).unflatten(0, (len(BRANCHES), -1))
        return combine(predictions, torch.stack(branch_weights(*scales.unbind(1)))), predictions[-1]
