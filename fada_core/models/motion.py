"""Motion modules: attention along time at each position of a feature map (AnimateDiff v2, Guo et al. 2307.04725).

The sequence consists of the motion frames (as features of the reference UNet), followed by the clip's frames.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..config import UNetConfig
from .attention import Attention, FeedForward, to_image, to_tokens
from .kernels import KernelModule
from .resnet import zeroed


class PositionalEncoding(nn.Module):
    """Adds the sine table of Vaswani et al. (1706.03762) to (n, length, dim); the table is part of the checkpoint."""

    def __init__(self, dim: int, max_frames: int, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        positions = torch.arange(max_frames, device=device, dtype=torch.float32)[:, None]
        even = torch.arange(0, dim, 2, device=device, dtype=torch.float32)
        angles = positions * torch.exp(even * (-math.log(10000.0) / dim))
        self.register_buffer("pe", torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[None].to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pe[:, : x.shape[1]].to(x)


class TemporalAttention(Attention):
    """Self-attention along time, with positional encoding."""

    def __init__(self, config: UNetConfig, dim: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__(dim, config.num_heads, operations=operations, **factory)
        self.pos_encoder = PositionalEncoding(dim, config.motion_max_frames, **factory)

    def forward_last(self, x: Tensor, skip: int) -> Tensor:
        """Self-attention of (n, length, dim), with output only from position `skip` on: (n, length - skip, dim)"""
        x = self.pos_encoder(x)
        # Projecting all queries is one matrix product; projecting a slice of each sequence would be many small ones.
        attended = self.attend(self.to_q(x)[:, skip:], *self.keys_values(x))
        return self.to_out[0](attended)


class TemporalBlock(nn.Module):
    """Two temporal self-attentions and a feed-forward layer."""

    def __init__(self, config: UNetConfig, dim: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList(
            [TemporalAttention(config, dim, operations=operations, **factory) for _ in range(2)]
        )
        self.norms = nn.ModuleList([operations.LayerNorm(dim, **factory) for _ in range(2)])
        self.ff = FeedForward(dim, config.ff_mult, operations=operations, **factory)
        self.ff_norm = operations.LayerNorm(dim, **factory)

    def forward(self, x: Tensor, skip: int) -> Tensor:
        """(n, skip + frames, dim) -> (n, frames, dim): the first `skip` positions are attended to, without output."""
        x = x + self.attention_blocks[0].forward_last(self.norms[0](x), 0)
        x = x[:, skip:] + self.attention_blocks[1].forward_last(self.norms[1](x), skip)
        return x + self.ff(self.ff_norm(x))


class TemporalTransformer(KernelModule):
    """Group norm (of each frame separately), linear layer, one `TemporalBlock`, linear layer, residual."""

    def __init__(self, config: UNetConfig, channels: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.norm = operations.GroupNorm(config.norm_groups, channels, eps=1e-6, **factory)
        self.proj_in = operations.Linear(channels, channels, **factory)
        self.transformer_blocks = nn.ModuleList([TemporalBlock(config, channels, operations=operations, **factory)])
        self.proj_out = zeroed(operations.Linear(channels, channels, **factory))

    def begin(self, hidden: Tensor, frames: int) -> Tensor:
        """(batch*frames, c, h, w) -> tokens (batch, h*w, frames, c)"""
        tokens = self.proj_in(to_tokens(self.kernels.group_norm(self.norm, hidden)))
        return tokens.unflatten(0, (-1, frames)).transpose(1, 2)

    def forward(self, hidden: Tensor, frames: int, motion: Tensor | None) -> Tensor:
        """hidden (batch*frames, c, h, w); motion: tokens of the motion frames, from `begin` -> shape of hidden"""
        tokens = self.begin(hidden, frames)
        skip = 0
        if motion is not None:
            tokens = torch.cat([motion, tokens], dim=2)
            skip = motion.shape[2]
        batch = tokens.shape[0]
        tokens = self.proj_out(self.transformer_blocks[0](tokens.flatten(0, 1), skip))
        tokens = tokens.unflatten(0, (batch, -1)).transpose(1, 2).flatten(0, 1)
        return hidden + to_image(tokens, *hidden.shape[-2:])


class MotionModule(nn.Module):
    """AnimateDiff's wrapper around its transformer, kept for the parameter names."""

    def __init__(self, config: UNetConfig, channels: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.temporal_transformer = TemporalTransformer(config, channels, operations=operations, **factory)

    def prepare(self, rows: Tensor, frames: int) -> Tensor:
        """Reference features of motion frames, (batch*frames, hw, c) -> tokens (batch, hw, frames, c)"""
        return self.temporal_transformer.begin(to_image(rows, rows.shape[1], 1), frames)

    def forward(self, hidden: Tensor, frames: int, motion: Tensor | None) -> Tensor:
        return self.temporal_transformer(hidden, frames, motion)
