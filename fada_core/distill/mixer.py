"""The adaptive loss mixer: the weights of teacher and ground truth for each sample.

    loss = lambda * L_distill + (1 - lambda) * L_gt,    per sample

FADA (arXiv 2412.16915) says that the balance is adaptive, because the quality of the student's data varies; its formula
is not known. The four strategies are ours, after common practice. In all of them the weight of the ground truth is also
multiplied by a trust (ours): footage is a valid target at scales of 1 and with dropped conditions, but larger scales
exaggerate on purpose, and only the teacher shows by how much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn

Strategy = Literal["constant", "ratio", "grad_norm", "confidence"]
BUCKETS = 10  #: number of ranges of timesteps, each with its running means
MOMENTUM = 0.99  #: of the running means


@dataclass
class MixerInputs:
    """Values that the weights may depend on: one row per sample, detached."""

    distill: Tensor  #: L_distill, (batch,)
    gt: Tensor  #: L_gt, (batch,)
    teacher_error: Tensor  #: loss of the teacher's audio branch against the ground truth, (batch,)
    quality: Tensor  #: of the sample's data, (batch,) in 0..1
    trust: Tensor  #: in the ground truth at the sample's scales, (batch,) in 0..1; see `trust_in_truth`
    timesteps: Tensor  #: (batch,) int64
    gradient_norms: tuple[Tensor, Tensor] | None  #: of the mean L_distill and L_gt, for grad_norm


def trust_in_truth(scales: Tensor, reach: float) -> Tensor:
    """exp(-d / reach), (batch,) in 0..1, where d is the sum of the parts of ref_cfg and audio_cfg (batch, 2) above 1.

    With a reach of 0 it is 1 at all scales.
    """
    excess = (scales - 1).clamp(min=0).sum(1)
    return torch.exp(-excess / reach) if reach else torch.ones_like(excess)


class RunningMeans(nn.Module):
    """Running means of a value by noise level, over all processes; part of the training's state."""

    sums: Tensor
    counts: Tensor

    def __init__(self, train_timesteps: int) -> None:
        super().__init__()
        self.width = -(-train_timesteps // BUCKETS)
        self.register_buffer("sums", torch.zeros(BUCKETS))
        self.register_buffer("counts", torch.zeros(BUCKETS))

    @torch.no_grad()
    def update(self, values: Tensor, timesteps: Tensor, accelerator: Accelerator) -> None:
        """Add values (batch,) of all processes."""
        bucket = timesteps // self.width
        new = values.new_zeros(2, BUCKETS)
        new[0].index_add_(0, bucket, values)
        new[1].index_add_(0, bucket, torch.ones_like(values))
        new = accelerator.reduce(new, "sum")
        seen = new[1] > 0
        self.sums.copy_(torch.where(seen, MOMENTUM * self.sums + new[0], self.sums))
        self.counts.copy_(torch.where(seen, MOMENTUM * self.counts + new[1], self.counts))

    def forward(self, timesteps: Tensor) -> Tensor:
        """Means (batch,) at these timesteps, for which `update` must have been called before."""
        bucket = timesteps // self.width
        return self.sums[bucket] / self.counts[bucket]


class Mixer(nn.Module):
    """Weights of the two losses for each sample.

    Args:
        strategy:
            constant: lambda = `share`.
            ratio: like constant, but each loss is first divided by its running mean at that noise level and multiplied
                by the mean of both, so that both have the same scale.
            grad_norm: like constant, but the losses are first scaled so that their gradients at the last layer have the
                same norm (VQGAN, Esser et al. 2012.09841, section 3.1); the factors are the same for the whole batch.
            confidence: lambda = sigmoid(logit(share) - error_slope log(r / mean r) - quality_slope (q - mean q)),
                limited to 0.1..0.9, where r is the teacher's error on the sample and q the quality of its data. If the
                error is larger than usual, the sample is outside the teacher's domain, and the ground truth weighs
                more; if the quality is lower than usual, the teacher weighs more.
        share: lambda of an average sample, 0..1.
    """

    limits = (0.1, 0.9)

    def __init__(
        self,
        strategy: Strategy,
        share: float,
        train_timesteps: int,
        error_slope: float = 1.0,
        quality_slope: float = 2.0,
    ) -> None:
        super().__init__()
        self.strategy, self.share = strategy, share
        self.error_slope, self.quality_slope = error_slope, quality_slope
        names = {"ratio": ("distill", "gt"), "confidence": ("teacher_error", "quality")}.get(strategy, ())
        self.means = nn.ModuleDict({name: RunningMeans(train_timesteps) for name in names})

    @torch.no_grad()
    def forward(self, inputs: MixerInputs, accelerator: Accelerator) -> tuple[Tensor, Tensor]:
        """Weights of L_distill and of L_gt, (batch,) each; lambda is the first one's share of their sum."""
        for name, means in self.means.items():
            means.update(getattr(inputs, name), inputs.timesteps, accelerator)
        lam = torch.full_like(inputs.distill, self.share)
        if self.strategy == "confidence":
            usual_error, usual_quality = (self.means[name](inputs.timesteps) for name in ("teacher_error", "quality"))
            surprise = (inputs.teacher_error / usual_error).clamp(min=1e-6).log()
            score = lam.logit() - self.error_slope * surprise - self.quality_slope * (inputs.quality - usual_quality)
            lam = score.sigmoid().clamp(*self.limits)
        lam = 1 - (1 - lam) * inputs.trust
        scale_distill = scale_gt = torch.ones_like(lam)
        if self.strategy == "ratio":
            distill, gt = (self.means[name](inputs.timesteps) for name in ("distill", "gt"))
            both = (distill + gt) / 2
            scale_distill, scale_gt = both / distill.clamp(min=1e-8), both / gt.clamp(min=1e-8)
        elif self.strategy == "grad_norm":
            distill, gt = inputs.gradient_norms  # type: ignore[misc]  # not None with this strategy
            both = (distill + gt) / 2
            # As in VQGAN, weights are at most 1e4.
            scale_distill, scale_gt = ((both / norm.clamp(min=1e-4)).clamp(max=1e4) for norm in (distill, gt))
        return lam * scale_distill, (1 - lam) * scale_gt
