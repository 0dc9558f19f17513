"""Pictures <-> latents: Stable Diffusion's autoencoder from diffusers, or the project's own small one.

Both kinds take pictures `(n, 3, h, w)` in -1..1 and give latents `(n, c, h/d, w/d)` of about unit variance; `encode` is
deterministic (the posterior's mean, as Hallo takes at inference), `decode` clamps to -1..1.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from ..config import VAEConfig


class ResBlock(nn.Module):
    """Two 3x3 convolutions on a residual path; no norm layers, so that flat drawings keep their exact colours."""

    def __init__(self, width: int, *, operations: Any = nn, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.conv1 = operations.Conv2d(width, width, 3, padding=1, device=device, dtype=dtype)
        self.conv2 = operations.Conv2d(width, width, 3, padding=1, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


class TinyVAE(nn.Module):
    """Small convolutional autoencoder: pixel-unshuffle by 2, one strided convolution, then latents at a quarter of the
    side that are unshuffled once more, so that the UNet sees a grid of an eighth with four times the channels.
    """

    encoder_blocks = 3
    decoder_blocks = 4

    def __init__(self, config: VAEConfig, *, operations: Any = nn, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        kwargs = {"device": device, "dtype": dtype}
        width, inner, fine = config.width, 2 * config.width, config.latent_channels // 4
        if config.downscale != 8 or config.latent_channels % 4:
            raise ValueError("TinyVAE has a downscale of 8 and a multiple of 4 latent channels")

        def blocks(channels: int, count: int) -> list[nn.Module]:
            return [ResBlock(channels, operations=operations, **kwargs) for _ in range(count)]

        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            operations.Conv2d(12, width, 3, padding=1, **kwargs),
            *blocks(width, self.encoder_blocks - 1),
            operations.Conv2d(width, inner, 3, stride=2, padding=1, **kwargs),
            *blocks(inner, self.encoder_blocks),
            operations.Conv2d(inner, 2 * fine, 3, padding=1, **kwargs),
        )
        self.decoder = nn.Sequential(
            operations.Conv2d(fine, inner, 3, padding=1, **kwargs),
            *blocks(inner, self.decoder_blocks),
            operations.Conv2d(inner, 4 * width, 3, padding=1, **kwargs),
            nn.PixelShuffle(2),
            *blocks(width, self.decoder_blocks - 2),
            operations.Conv2d(width, 12, 3, padding=1, **kwargs),
            nn.PixelShuffle(2),
        )
        # Statistics of the training latents, set once after training; scalars per channel keep the diffusion model's
        # signal-to-noise ratio equal over channels.
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels, device=device))
        self.register_buffer("latent_std", torch.ones(config.latent_channels, device=device))

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and log-variance `(n, c/4, h/4, w/4)`, unscaled; for training."""
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        return mean, log_variance.clamp(-20, 2)

    def reconstruct(self, fine_latents: Tensor) -> Tensor:
        """Pictures of unscaled latents as `moments` gives them, unclamped; for training."""
        return self.decoder(fine_latents)

    def encode(self, images: Tensor) -> Tensor:
        """Pictures `(n, 3, h, w)` in -1..1 to scaled latents `(n, c, h/8, w/8)`."""
        latents = F.pixel_unshuffle(self.moments(images)[0], 2)
        mean, std = (t.to(latents)[:, None, None] for t in (self.latent_mean, self.latent_std))
        return (latents - mean) / std

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents `(n, c, h, w)` to pictures `(n, 3, 8h, 8w)` in -1..1."""
        mean, std = (t.to(latents)[:, None, None] for t in (self.latent_mean, self.latent_std))
        return self.reconstruct(F.pixel_shuffle(latents * std + mean, 2)).clamp(-1, 1)


class StableDiffusionVAE(nn.Module):
    """diffusers' AutoencoderKL in the shapes of Stable Diffusion 1.5, scaled by `scaling_factor` (0.18215)."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.scale, self.shift = config.scaling_factor, config.shift_factor
        self.kl = AutoencoderKL(
            in_channels=3,
            out_channels=3,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=config.latent_channels,
            sample_size=512,
            scaling_factor=config.scaling_factor,
        )

    def encode(self, images: Tensor) -> Tensor:
        """Pictures `(n, 3, h, w)` in -1..1 to scaled latents `(n, 4, h/8, w/8)`."""
        return (self.kl.encode(images).latent_dist.mean - self.shift) * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents `(n, 4, h, w)` to pictures `(n, 3, 8h, 8w)` in -1..1."""
        return self.kl.decode(latents / self.scale + self.shift).sample.clamp(-1, 1)


def build_vae(
    config: VAEConfig, *, operations: Any = nn, device: Any = None, dtype: Any = None
) -> TinyVAE | StableDiffusionVAE:
    """The autoencoder that `config.kind` names, with fresh weights."""
    if config.kind == "tiny":
        return TinyVAE(config, operations=operations, device=device, dtype=dtype)
    return StableDiffusionVAE(config).to(device=device, dtype=dtype)
