"""The convolutional layers of a Stable Diffusion UNet: residual blocks, resampling and time embedding."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .kernels import KernelModule


def zeroed(layer: nn.Module) -> nn.Module:
    """Set all parameters of a layer to zero; a residual block with such a last layer starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def timestep_features(timesteps: Tensor, dim: int) -> Tensor:
    """(n,) timesteps 0..999 -> (n, dim) float32: cosines, then sines, with `dim // 2` frequencies from 1 to 1/10000."""
    half = dim // 2
    exponents = torch.arange(half, device=timesteps.device, dtype=torch.float32) / half
    angles = timesteps.float()[:, None] * torch.exp(-math.log(10000.0) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class TimestepEmbedding(nn.Module):
    """(n, channels) time features -> (n, 4 * channels)."""

    def __init__(self, channels: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.linear_1 = operations.Linear(channels, 4 * channels, **factory)
        self.linear_2 = operations.Linear(4 * channels, 4 * channels, **factory)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(features)))


class ResnetBlock(KernelModule):
    """Two 3x3 convolutions with a shift by the time embedding between them, plus the (projected) input.

    hidden (n, c_in, h, w), temb (n, time_dim), ignored if time_dim is 0 -> (n, c_out, h, w)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        time_dim: int,
        groups: int,
        *,
        eps: float = 1e-5,
        operations: Any = nn,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.norm1 = operations.GroupNorm(groups, in_channels, eps=eps, **factory)
        self.conv1 = operations.Conv2d(in_channels, out_channels, 3, padding=1, **factory)
        self.time_emb_proj = operations.Linear(time_dim, out_channels, **factory) if time_dim else None
        self.norm2 = operations.GroupNorm(groups, out_channels, eps=eps, **factory)
        self.conv2 = zeroed(operations.Conv2d(out_channels, out_channels, 3, padding=1, **factory))
        self.conv_shortcut = None
        if in_channels != out_channels:
            self.conv_shortcut = operations.Conv2d(in_channels, out_channels, 1, **factory)

    def forward(self, hidden: Tensor, temb: Tensor) -> Tensor:
        residual = hidden if self.conv_shortcut is None else self.conv_shortcut(hidden)
        hidden = self.conv1(self.kernels.group_norm(self.norm1, hidden, silu=True))
        if self.time_emb_proj is not None:
            hidden = hidden + self.time_emb_proj(F.silu(temb))[:, :, None, None]
        return residual + self.conv2(self.kernels.group_norm(self.norm2, hidden, silu=True))


class Downsample(nn.Module):
    """(n, c, h, w) -> (n, c, h/2, w/2) by a strided convolution."""

    def __init__(self, channels: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.conv = operations.Conv2d(channels, channels, 3, stride=2, padding=1, **factory)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.conv(hidden)


class Upsample(nn.Module):
    """(n, c, h, w) -> (n, c, 2h, 2w): nearest-neighbour interpolation, then a convolution."""

    def __init__(self, channels: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.conv = operations.Conv2d(channels, channels, 3, padding=1, **factory)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.conv(F.interpolate(hidden, scale_factor=2.0, mode="nearest"))
