"""Pictures <-> latents: Stable Diffusion's autoencoder or its small stand-in TAESD, or the project's own.

All kinds take pictures `(n, 3, h, w)` in -1..1 and give latents `(n, c, h/d, w/d)` of about unit variance; `encode` is
deterministic (the posterior's mean, as Hallo takes at inference), `decode` clamps to -1..1.
"""

from __future__ import annotations

import re
from typing import Any

import diffusers  # its parts are imported at their first use, which takes seconds
import torch
import torch.nn.functional as F
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

    The decoder begins at a quarter or at an eighth, doubles the resolution once, and leaves the rest to pixel-shuffle.
    """

    encoder_blocks = 3

    def __init__(self, config: VAEConfig, *, operations: Any = nn, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        kwargs = {"device": device, "dtype": dtype}
        width, inner, fine = config.width, 2 * config.width, config.latent_channels // 4
        self.cell = config.decoder_cell
        if config.downscale != 8 or config.latent_channels % 4:
            raise ValueError("TinyVAE has a downscale of 8 and a multiple of 4 latent channels")
        if self.cell not in (4, 8):
            raise ValueError("TinyVAE's decoder begins with cells of 4 or 8 pixels")

        def conv(before: int, after: int, **more: Any) -> nn.Module:
            return operations.Conv2d(before, after, 3, padding=1, **kwargs, **more)

        def blocks(channels: int, count: int) -> list[nn.Module]:
            return [ResBlock(channels, operations=operations, **kwargs) for _ in range(count)]

        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            conv(12, width),
            *blocks(width, self.encoder_blocks - 1),
            conv(width, inner, stride=2),
            *blocks(inner, self.encoder_blocks),
            conv(inner, 2 * fine),
        )
        (coarse, finer), (first, then) = config.decoder_widths, config.decoder_blocks
        self.decoder = nn.Sequential(
            conv(fine * (self.cell // 4) ** 2, coarse),
            *blocks(coarse, first),
            conv(coarse, 4 * finer),
            nn.PixelShuffle(2),
            *blocks(finer, then),
            conv(finer, 3 * (self.cell // 2) ** 2),
            nn.PixelShuffle(self.cell // 2),
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
        return self.decoder(F.pixel_unshuffle(fine_latents, self.cell // 4))

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
        self.kl = diffusers.AutoencoderKL(
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
        # Half of diffusers' own: 512 px, the size of the public models, would be a single tile.
        self.kl.tile_sample_min_size, self.kl.tile_latent_min_size = 256, 32

    def encode(self, images: Tensor) -> Tensor:
        """Pictures `(n, 3, h, w)` in -1..1 to scaled latents `(n, 4, h/8, w/8)`."""
        return (self.kl.encode(images).latent_dist.mean - self.shift) * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents `(n, 4, h, w)` to pictures `(n, 3, 8h, 8w)` in -1..1."""
        return self.kl.decode(latents / self.scale + self.shift).sample.clamp(-1, 1)

    def decode_tiled(self, latents: Tensor) -> Tensor:
        """As `decode`, in tiles of 256 px that overlap by a quarter and are blended: a fraction of its memory.

        The norms see one tile at a time, so colours differ a little from `decode`'s.
        """
        return self.kl.tiled_decode(latents / self.scale + self.shift).sample.clamp(-1, 1)


class TAESD(nn.Module):
    """diffusers' AutoencoderTiny: Stable Diffusion's scaled latents, at a hundredth of the cost and less detail."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.taesd = diffusers.AutoencoderTiny(latent_channels=config.latent_channels)

    def encode(self, images: Tensor) -> Tensor:
        """Pictures `(n, 3, h, w)` in -1..1 to scaled latents `(n, 4, h/8, w/8)`."""
        return self.taesd.encode(images).latents

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents `(n, 4, h, w)` to pictures `(n, 3, 8h, 8w)` in -1..1."""
        return self.taesd.decode(latents).sample.clamp(-1, 1)


def build_vae(
    config: VAEConfig, *, operations: Any = nn, device: Any = None, dtype: Any = None
) -> TinyVAE | StableDiffusionVAE | TAESD:
    """The autoencoder that `config.kind` names, with fresh weights."""
    if config.kind == "tiny":
        return TinyVAE(config, operations=operations, device=device, dtype=dtype)
    kind = TAESD if config.kind == "taesd" else StableDiffusionVAE
    return kind(config).to(device=device, dtype=dtype)


_FIRST_RELEASE = (  # names in Stable Diffusion's own files, then in diffusers; levels of the decoder count downwards
    (r"(en|de)coder\.(down|up)\.(\d)\.block\.(\d)", r"\1coder.\2_blocks.\3.resnets.\4"),
    (r"(down|up)\.(\d)\.(down|up)sample\.conv", r"\1_blocks.\2.\3samplers.0.conv"),
    (r"mid\.block_1", "mid_block.resnets.0"),
    (r"mid\.block_2", "mid_block.resnets.1"),
    (r"mid\.attn_1", "mid_block.attentions.0"),
    (r"norm_out\.", "conv_norm_out."),
    (r"nin_shortcut", "conv_shortcut"),
)
_ATTENTION = (  # names of both first releases, then of today's diffusers
    (r"attentions\.0\.norm\.", "attentions.0.group_norm."),
    (r"attentions\.0\.(q|query)\.", "attentions.0.to_q."),
    (r"attentions\.0\.(k|key)\.", "attentions.0.to_k."),
    (r"attentions\.0\.(v|value)\.", "attentions.0.to_v."),
    (r"attentions\.0\.(proj_out|proj_attn)\.", "attentions.0.to_out.0."),
)


def vae_weights(config: VAEConfig, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a published autoencoder under the names of `build_vae`'s module.

    Takes files of diffusers, old and new, Stable Diffusion's single file, also as part of a whole checkpoint, and
    TAESD's two files (with `taesd_encoder.` and `taesd_decoder.` before the names).
    """
    if config.kind == "taesd":
        return {f"taesd.{_taesd_name(name)}": value for name, value in tensors.items()}
    prefix = "first_stage_model."
    if any(name.startswith(prefix) for name in tensors):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    renamed = {}
    for name, value in tensors.items():
        if name.startswith(("loss.", "model_ema.")):  # of its training
            continue
        first_release = re.search(r"\.(down|up|mid)\.", name) or re.search(r"coder\.norm_out\.", name)
        if first_release:
            for theirs, ours in _FIRST_RELEASE:
                name = re.sub(theirs, ours, name)
            name = re.sub(r"up_blocks\.(\d)", lambda found: f"up_blocks.{3 - int(found[1])}", name)
        for theirs, ours in _ATTENTION:
            name = re.sub(theirs, ours, name)
        projection = ".attentions.0.to_" in name and value.ndim == 4  # a 1x1 convolution in the first release
        renamed[f"kl.{name}"] = value.flatten(1) if projection else value
    return renamed


def _taesd_name(name: str) -> str:
    found = re.fullmatch(r"taesd_(en|de)coder\.(\d+)\.(.*)", name)
    if found is None:
        return name
    # The decoder's own file counts the clamp before its layers.
    index = int(found[2]) - (found[1] == "de")
    return f"{found[1]}coder.layers.{index}.{found[3]}"
