"""Multi-CFG conditioning of the student: guidance scales are an input of one pass, not weights of three passes.

After FADA's overview figure (arXiv 2412.16915): three learned token sets, base, ref and audio, are mixed by the same
rule as the teacher's three predictions,

    tau = tau_base + ref_cfg (tau_ref - tau_base) + audio_cfg (tau_audio - tau_ref),

and enter the network through CFG control layers. The figure does not say what such a layer is; here it is a small
cross-attention (`attention.CFGControlLayer`) in each spatial attention block of the denoising UNet. Its output starts
at zero, so that a student starts as a copy of the teacher's audio branch.

Scales of (0, 0) give tau_base, (1, 0) tau_ref and (1, 1) tau_audio, as for the branches in `sampling.guidance`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from .resnet import timestep_features, zeroed


class CFGTokens(nn.Module):
    """The three token sets base, ref and audio. They are an Embedding, which can be created through `operations`."""

    def __init__(self, config: ModelConfig, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.count, self.dim = config.control.tokens, config.control.dim
        self.sets = operations.Embedding(3, self.count * self.dim, **factory)

    def forward(self, scales: Tensor) -> Tensor:
        """scales (batch, 2), ref_cfg and audio_cfg -> mixed tokens (batch, tokens, dim)"""
        ref_cfg, audio_cfg = scales.float().unbind(1)
        weights = torch.stack([1 - ref_cfg, ref_cfg - audio_cfg, audio_cfg], dim=1)
        sets = self.sets(torch.arange(3, device=scales.device))
        return (weights.to(sets) @ sets).unflatten(1, (self.count, self.dim))


class ScaleEmbedding(nn.Module):
    """The alternative to tokens (an ablation): both scales, embedded like timesteps, are added to the time embedding.

    Flux and guidance distillation (Meng et al. 2210.03142) condition a network on one scale in this way.
    """

    def __init__(self, config: ModelConfig, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.dim = config.control.dim
        time_dim = 4 * config.unet.block_out_channels[0]
        self.linear_1 = operations.Linear(2 * self.dim, time_dim, **factory)
        self.act = nn.SiLU()
        self.linear_2 = zeroed(operations.Linear(time_dim, time_dim, **factory))

    def forward(self, scales: Tensor) -> Tensor:
        """scales (batch, 2) -> (batch, time_dim)"""
        # Scales are in 0..20; the frequencies are those for timesteps in 0..1000.
        features = timestep_features(50.0 * scales.float().flatten(), self.dim).unflatten(0, (-1, 2)).flatten(1)
        return self.linear_2(self.act(self.linear_1(features.to(self.linear_1.weight.dtype))))
