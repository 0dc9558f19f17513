"""Small networks for the portrait: face locator and identity tokens."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ModelConfig
from .resnet import zeroed


class FaceLocator(nn.Module):
    """Encodes an image of the face's box, (n, 1 or face_channels[0], size, size) in 0..1, as features
    (n, block_out_channels[0], size/8, size/8).

    The features are added after the first convolution of the denoising UNet (Hallo, arXiv 2406.08801).
    """

    def __init__(self, config: ModelConfig, *, operations: Any = nn, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        factory = {"device": device, "dtype": dtype, "padding": 1}
        self.image_channels, *channels = config.condition.face_channels
        self.conv_in = operations.Conv2d(self.image_channels, channels[0], 3, **factory)
        self.blocks = nn.ModuleList()
        for narrow, wide in zip(channels, channels[1:], strict=False):
            self.blocks.append(operations.Conv2d(narrow, narrow, 3, **factory))
            self.blocks.append(operations.Conv2d(narrow, wide, 3, stride=2, **factory))
        self.conv_out = zeroed(operations.Conv2d(channels[-1], config.unet.block_out_channels[0], 3, **factory))

    def forward(self, image: Tensor) -> Tensor:
        hidden = F.silu(self.conv_in(image.expand(-1, self.image_channels, -1, -1)))
        for block in self.blocks:
            hidden = F.silu(block(hidden))
        return self.conv_out(hidden)


class ImageProjection(nn.Module):
    """Face embedding (n, identity_dim), not normalised to unit length -> tokens (n, image_tokens, image_token_dim)."""

    def __init__(self, config: ModelConfig, *, operations: Any = nn, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.tokens = config.condition.image_tokens
        dim = config.unet.image_token_dim
        self.proj = operations.Linear(config.condition.identity_dim, self.tokens * dim, device=device, dtype=dtype)
        self.norm = operations.LayerNorm(dim, device=device, dtype=dtype)

    def forward(self, embedding: Tensor) -> Tensor:
        return self.norm(self.proj(embedding).unflatten(-1, (self.tokens, -1)))
