"""First stage: the small autoencoder learns the avatars' pictures, the mouth above all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import imageio.v3 as iio
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..data.samples import BadClipError, box_mask
from ..errors import FadaError
from ..media.image import to_uint8
from ..models.vae import TinyVAE

MOUTH_WEIGHT = 4.0  #: of the mouth's pixels in the reconstruction terms: few pixels that carry the speech
GRADIENT_WEIGHT = 0.5
KL_WEIGHT = 1e-4
TRIES = 20  #: clips drawn for one picture, where they cannot be read


def _gradients(images: Tensor) -> tuple[Tensor, Tensor]:
    return images[..., :, 1:] - images[..., :, :-1], images[..., 1:, :] - images[..., :-1, :]


class _Autoencoder(nn.Module):
    """Encode, draw from the posterior, decode: one forward, so that it can be wrapped for several processes."""

    def __init__(self, vae: TinyVAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.vae.moments(images)
        return self.vae.reconstruct(mean + noise * (0.5 * log_variance).exp()), mean, log_variance


class Pictures(Protocol):
    """Clips whose frames can be had one by one; may raise `BadClipError`."""

    size: int

    def __len__(self) -> int: ...

    def picture(self, index: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random frame (3, size, size) in -1..1, and the box of its mouth, (4,) pixels."""


@dataclass
class VAETask:
    """Mouth-weighted L1 + 4 MSE + gradient L1 + KL on single frames of random clips."""

    vae: TinyVAE
    data: Pictures
    batch: int

    def __post_init__(self) -> None:
        self.module = _Autoencoder(self.vae).to(memory_format=torch.channels_last)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": [parameter for parameter in self.module.parameters() if parameter.requires_grad]}]

    def settings(self) -> dict[str, Any]:
        return {"clips": len(self.data)}

    def describe(self) -> str:
        return "single frames of random clips"

    def _images(self, generators: list[torch.Generator]) -> tuple[Tensor, Tensor]:
        """One random frame for each generator, (n, 3, size, size), and masks of the mouths."""
        images, boxes = zip(*map(self._picture, generators), strict=True)
        return torch.stack(images), box_mask(torch.stack(boxes), self.data.size)

    def _picture(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        for _ in range(TRIES):
            try:
                return self.data.picture(int(torch.randint(len(self.data), (), generator=generator)), generator)
            except BadClipError as error:
                reason = f"the last one, {error.id}, because {error}"
        raise FadaError(f"{TRIES} clips in a row cannot be read, {reason}; check the manifest.")

    def losses(self, module: nn.Module, step: int, generators: list[torch.Generator]) -> dict[str, Tensor]:
        images, mouth = self._images(generators)
        device = next(module.parameters()).device
        shape = (self.vae.latent_mean.numel() // 4, self.data.size // 4, self.data.size // 4)
        noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
        images = images.to(device, memory_format=torch.channels_last)
        output, mean, log_variance = module(images, noise.to(device))
        output, mean, log_variance = output.float(), mean.float(), log_variance.float()
        weight = 1 + (MOUTH_WEIGHT - 1) * mouth.to(device)
        error = output - images
        l1 = (weight * error.abs()).mean()
        mse = (weight * error.square()).mean()
        gradient = sum(F.l1_loss(a, b) for a, b in zip(_gradients(output), _gradients(images), strict=True))
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        with torch.no_grad():
            mouth_mse = (mouth.to(device) * error.square()).sum() / (3 * mouth.sum().clamp(min=1))
            psnr = -10 * torch.log10(error.square().mean() / 4)
            mouth_psnr = -10 * torch.log10(mouth_mse / 4)
        loss = l1 + 4 * mse + GRADIENT_WEIGHT * gradient + KL_WEIGHT * kl
        return {"loss": loss, "l1": l1, "kl": kl, "psnr": psnr, "mouth_psnr": mouth_psnr}

    def preview(self, folder: Path, step: int) -> None:
        """Originals above reconstructions, always of the same frames."""
        images, _ = self._images([torch.Generator().manual_seed(1)] * 8)
        device = next(self.module.parameters()).device
        output = self.vae.reconstruct(self.vae.moments(images.to(device))[0]).float().cpu()
        grid = rearrange([to_uint8(images), to_uint8(output)], "row n h w c -> (row h) (n w) c")
        iio.imwrite(folder / f"preview-{step:06d}.png", grid.numpy())

    @torch.inference_mode()
    def set_statistics(self, count: int = 512) -> None:
        """Measure the latents' mean and deviation per channel and put them into the autoencoder."""
        images, _ = self._images([torch.Generator().manual_seed(2)] * count)
        device = next(self.module.parameters()).device
        latents = torch.cat([F.pixel_unshuffle(self.vae.moments(part.to(device))[0], 2) for part in images.split(32)])
        self.vae.latent_mean.copy_(latents.mean(dim=(0, 2, 3)))
        self.vae.latent_std.copy_(latents.std(dim=(0, 2, 3)))
