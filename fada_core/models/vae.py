"""Autoencoders: Stable Diffusion's, the small TAESD for the same latents, and the project's own.

All of them encode pictures `(n, 3, h, w)` in -1..1 as latents `(n, c, h/d, w/d)` of about unit variance. `encode` is
deterministic (the posterior's mean, as in Hallo's inference); `decode` clamps to -1..1.
"""

from __future__ import annotations

import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import VAEConfig
from .kernels import KernelModule
from .resnet import ResnetBlock


class ResBlock(nn.Module):
    """Two 3x3 convolutions with a residual connection; without norm layers, so that flat areas keep exact colours."""

    def __init__(self, width: int, *, operations: Any = nn, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.conv1 = operations.Conv2d(width, width, 3, padding=1, device=device, dtype=dtype)
        self.conv2 = operations.Conv2d(width, width, 3, padding=1, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


class Autoencoder(KernelModule):
    """The interface of all autoencoders; the subclasses' docstrings give shapes."""

    map_channels: int
    """Channels of the decoder's largest feature map, converted to the picture's size; for the memory estimate."""
    tiles = False  #: whether `decode_tiled` is implemented

    def encode(self, images: Tensor) -> Tensor:
        """Pictures to scaled latents."""
        raise NotImplementedError

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents to pictures."""
        raise NotImplementedError

    def decode_tiled(self, latents: Tensor) -> Tensor:
        """As `decode`, with less memory; only if `tiles`."""
        raise NotImplementedError

    def preview(self, latents: Tensor) -> Tensor:
        """Approximate pictures of unfinished latents, shaped as in `decode`, within milliseconds."""
        return self.decode(latents)

    def picture_bytes(self, size: int, dtype: torch.dtype) -> int:
        """Upper estimate of the memory for decoding one picture of `size` by `size` pixels, in bytes."""
        return 4 * size**2 * self.map_channels * dtype.itemsize  # some four maps exist at the same time


class TinyVAE(Autoencoder):
    """Small convolutional autoencoder without norm layers.

    The encoder starts with a pixel-unshuffle by `downscale / 4` and halves the resolution once. Its latents have cells
    of `downscale / 2` pixels; another pixel-unshuffle by 2 gives the UNet a quarter of the cells with four times the
    channels. The decoder starts with cells of `decoder_cell` pixels, doubles the resolution before each further width,
    and ends with a pixel-shuffle to the picture's resolution.

    Raises:
        ValueError: the config's entries contradict each other.
    """

    map_channels = 16
    encoder_blocks = 3

    def __init__(self, config: VAEConfig, *, operations: Any = nn, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        kwargs = {"device": device, "dtype": dtype}
        width, inner, fine = config.width, 2 * config.width, config.latent_channels // 4
        stem, self.fine_cell, self.cell = config.downscale // 4, config.downscale // 2, config.decoder_cell
        if config.downscale not in (8, 16) or config.latent_channels % 4:
            raise ValueError("TinyVAE has a downscale of 8 or 16 and a multiple of 4 latent channels")
        if self.cell not in (self.fine_cell, 2 * self.fine_cell):
            raise ValueError("TinyVAE's decoder begins with cells of half the downscale or of all of it")
        if len(config.decoder_widths) != len(config.decoder_blocks):
            raise ValueError("TinyVAE's decoder needs as many numbers of blocks as widths")

        def conv(before: int, after: int, **more: Any) -> nn.Module:
            return operations.Conv2d(before, after, 3, padding=1, **kwargs, **more)

        def blocks(channels: int, count: int) -> list[nn.Module]:
            return [ResBlock(channels, operations=operations, **kwargs) for _ in range(count)]

        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(stem),
            conv(3 * stem**2, width),
            *blocks(width, self.encoder_blocks - 1),
            conv(width, inner, stride=2),
            *blocks(inner, self.encoder_blocks),
            conv(inner, 2 * fine),
        )
        first, *others = config.decoder_widths
        layers = [conv(fine * (self.cell // self.fine_cell) ** 2, first), *blocks(first, config.decoder_blocks[0])]
        for before, after, count in zip(config.decoder_widths, others, config.decoder_blocks[1:], strict=False):
            layers += [conv(before, 4 * after), nn.PixelShuffle(2), *blocks(after, count)]
        last = self.cell // 2 ** len(others)
        self.decoder = nn.Sequential(*layers, conv(config.decoder_widths[-1], 3 * last**2), nn.PixelShuffle(last))
        # Statistics of latents, set after training by `pretrain.vae`.
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels, device=device))
        self.register_buffer("latent_std", torch.ones(config.latent_channels, device=device))

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and log-variance `(n, c/4, 2h/d, 2w/d)`, unscaled; for training."""
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        return mean, log_variance.clamp(-20, 2)

    def reconstruct(self, fine_latents: Tensor) -> Tensor:
        """Pictures, not clamped, of unscaled latents as from `moments`; for training."""
        return self.decoder(F.pixel_unshuffle(fine_latents, self.cell // self.fine_cell))

    def encode(self, images: Tensor) -> Tensor:
        """Pictures `(n, 3, h, w)` in -1..1 to scaled latents `(n, c, h/d, w/d)`."""
        latents = F.pixel_unshuffle(self.moments(images)[0], 2)
        mean, std = (t.to(latents)[:, None, None] for t in (self.latent_mean, self.latent_std))
        return (latents - mean) / std

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents `(n, c, h, w)` to pictures `(n, 3, d*h, d*w)` in -1..1."""
        mean, std = (t.to(latents)[:, None, None] for t in (self.latent_mean, self.latent_std))
        return self.reconstruct(F.pixel_shuffle(latents * std + mean, 2)).clamp(-1, 1)


_SD15_RGB = (
    (0.298, 0.207, 0.208),
    (0.187, 0.286, 0.173),
    (-0.158, 0.189, 0.264),
    (-0.184, -0.271, -0.473),
)
"""Linear map from Stable Diffusion 1.x latents (rows; scaled by 0.18215) to RGB in -1..1, as user interfaces use it."""


class StableDiffusionVAE(Autoencoder):
    """diffusers' AutoencoderKL in the shapes of Stable Diffusion 1.5, scaled by `scaling_factor` (0.18215)."""

    map_channels = 256
    tiles = True

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        import diffusers  # not at the top: it takes a while, and FADA's own models do without

        self.scale, self.shift = config.scaling_factor, config.shift_factor
        kind: Any = diffusers.AutoencoderKL  # diffusers has no type annotations for it
        self.kl = kind(
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
        encoder, decoder = self.kl.encoder, self.kl.decoder
        for block in (*encoder.down_blocks, encoder.mid_block, *decoder.up_blocks, decoder.mid_block):
            # Equal to diffusers' blocks, but with replaceable kernels.
            block.resnets = nn.ModuleList(
                [ResnetBlock(each.in_channels, each.out_channels, 0, 32, eps=1e-6) for each in block.resnets]
            )
        # Half of diffusers' default, which is 512 px: a picture of the public models would be a single tile.
        self.kl.tile_sample_min_size, self.kl.tile_latent_min_size = 256, 32

    def encode(self, images: Tensor) -> Tensor:
        """Pictures `(n, 3, h, w)` in -1..1 to scaled latents `(n, 4, h/8, w/8)`."""
        return (self.kl.encode(images).latent_dist.mean - self.shift) * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents `(n, 4, h, w)` to pictures `(n, 3, 8h, 8w)` in -1..1."""
        decoder = self.kl.decoder
        hidden = decoder.mid_block(decoder.conv_in(self.kl.post_quant_conv(latents / self.scale + self.shift)))
        for block in decoder.up_blocks:
            hidden = block(hidden)
        hidden = self.kernels.group_norm(decoder.conv_norm_out, hidden, silu=True)
        return decoder.conv_out(hidden).clamp(-1, 1)

    def decode_tiled(self, latents: Tensor) -> Tensor:
        """As `decode`, in blended tiles of 256 px that overlap by a quarter, with a fraction of the memory.

        The norms are computed for each tile, so colours differ slightly from those of `decode`.
        """
        return self.kl.tiled_decode(latents / self.scale + self.shift).sample.clamp(-1, 1)

    def preview(self, latents: Tensor) -> Tensor:
        """A linear map of the latents to RGB, enlarged to the picture's size."""
        pictures = torch.einsum("nchw,cr->nrhw", latents.float(), torch.tensor(_SD15_RGB, device=latents.device))
        return F.interpolate(pictures.clamp(-1, 1), scale_factor=8.0, mode="nearest")


class TAESD(Autoencoder):
    """diffusers' AutoencoderTiny: Stable Diffusion's scaled latents at a hundredth of the cost, with less detail."""

    map_channels = 64

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        import diffusers

        kind: Any = diffusers.AutoencoderTiny
        self.taesd = kind(latent_channels=config.latent_channels)

    def encode(self, images: Tensor) -> Tensor:
        """Pictures `(n, 3, h, w)` in -1..1 to scaled latents `(n, 4, h/8, w/8)`."""
        return self.taesd.encode(images).latents

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents `(n, 4, h, w)` to pictures `(n, 3, 8h, 8w)` in -1..1."""
        return self.taesd.decoder(latents).clamp(-1, 1)


def build_vae(
    config: VAEConfig, *, operations: Any = nn, device: Any = None, dtype: Any = None
) -> TinyVAE | StableDiffusionVAE | TAESD:
    """The autoencoder that `config.kind` names, with fresh weights."""
    if config.kind == "tiny":
        return TinyVAE(config, operations=operations, device=device, dtype=dtype)
    kind = TAESD if config.kind == "taesd" else StableDiffusionVAE
    return kind(config).to(device=device, dtype=dtype)


_FIRST_RELEASE = (  # names in Stable Diffusion's own files -> in diffusers; the former count decoder levels backwards
    (r"(en|de)coder\.(down|up)\.(\d)\.block\.(\d)", r"\1coder.\2_blocks.\3.resnets.\4"),
    (r"(down|up)\.(\d)\.(down|up)sample\.conv", r"\1_blocks.\2.\3samplers.0.conv"),
    (r"mid\.block_1", "mid_block.resnets.0"),
    (r"mid\.block_2", "mid_block.resnets.1"),
    (r"mid\.attn_1", "mid_block.attentions.0"),
    (r"norm_out\.", "conv_norm_out."),
    (r"nin_shortcut", "conv_shortcut"),
)
_ATTENTION = (  # names in Stable Diffusion's own files and in early diffusers -> in current diffusers
    (r"attentions\.0\.norm\.", "attentions.0.group_norm."),
    (r"attentions\.0\.(q|query)\.", "attentions.0.to_q."),
    (r"attentions\.0\.(k|key)\.", "attentions.0.to_k."),
    (r"attentions\.0\.(v|value)\.", "attentions.0.to_v."),
    (r"attentions\.0\.(proj_out|proj_attn)\.", "attentions.0.to_out.0."),
)


def vae_weights(config: VAEConfig, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a published autoencoder to those of the module from `build_vae`.

    Supported are files of current and early diffusers, Stable Diffusion's own file (also as part of a complete
    checkpoint), and TAESD's two files (with the prefixes `taesd_encoder.` and `taesd_decoder.`).
    """
    if config.kind == "taesd":
        return {f"taesd.{_taesd_name(name)}": value for name, value in tensors.items()}
    prefix = "first_stage_model."
    if any(name.startswith(prefix) for name in tensors):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    renamed = {}
    for name, value in tensors.items():
        if name.startswith(("loss.", "model_ema.")):  # only used in its training
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
    found = re.fullmatch(r"taesd_(en|de)coder\.(\d{1,4})\.(.*)", name)
    if found is None:
        return name
    # In TAESD's decoder file, index 0 is a clamp.
    index = int(found[2]) - (found[1] == "de")
    return f"{found[1]}coder.layers.{index}.{found[3]}"
