"""The autoencoder's training task: reconstruct frames of people, above all mouths and eyes, and synthetic textures."""

from __future__ import annotations

from collections.abc import Sequence
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
from .textures import dead_leaves

MOUTH_WEIGHT, EYES_WEIGHT = 4.0, 2.5
"""Weights of mouth and eyes in the reconstruction loss (other pixels: 1): they are small, but viewers look at them."""
GRADIENT_WEIGHT = 0.5
KL_WEIGHT = 1e-4
ZOOM = 0.6, 1.5  #: range of the factor by which crops are scaled, so that faces have many sizes
AT_MOUTH = 0.5  #: share of crops around a mouth; the others have random positions
TRIES = 20  #: unreadable clips in a row, after which the training stops


def _gradients(images: Tensor) -> tuple[Tensor, Tensor]:
    """Horizontal and vertical differences of neighbouring pixels."""
    return images[..., :, 1:] - images[..., :, :-1], images[..., 1:, :] - images[..., :-1, :]


def reconstruction_loss(output: Tensor, images: Tensor, weight: Tensor) -> Tensor:
    """Scalar loss between pictures (n, 3, h, w) in -1..1: L1 + 4 MSE, weighted per pixel by `weight` (n, 1, h, w), +
    0.5 L1 of the gradients. The sum and its factors are our choice."""
    error = output - images
    gradient = sum(F.l1_loss(a, b) for a, b in zip(_gradients(output), _gradients(images), strict=True))
    return (weight * error.abs()).mean() + 4 * (weight * error.square()).mean() + GRADIENT_WEIGHT * gradient


def autoencode(vae: TinyVAE, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Encode pictures (n, 3, h, w) in -1..1, sample from the posterior, and decode.

    Args:
        noise: standard normal, in the shape of the posterior's mean (see `TinyVAE.moments`).

    Returns the reconstructions (n, 3, h, w), not clamped, and the posterior's mean and log-variance.
    """
    mean, log_variance = vae.moments(images)
    return vae.reconstruct(mean + noise * (0.5 * log_variance).exp()), mean, log_variance


class _Reconstruction(nn.Module):
    """`autoencode` as a module, which accelerate wraps."""

    def __init__(self, vae: TinyVAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return autoencode(self.vae, images, noise)


class Pictures(Protocol):
    """Clips that are read frame by frame; `picture` may raise `BadClipError`."""

    @property
    def size(self) -> int:
        """Side of the frames in pixels."""

    def __len__(self) -> int: ...

    def picture(self, index: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random frame (3, size, size) in -1..1, and the boxes of its mouth and its eyes, (2, 4) pixels."""


@dataclass(frozen=True)
class Pools:
    """`Pictures` of several sets, none of them empty; frames are drawn from all sets equally often."""

    sets: Sequence[Pictures]

    @property
    def size(self) -> int:
        return self.sets[0].size

    def __len__(self) -> int:
        return len(self.sets) * max(map(len, self.sets))

    def picture(self, index: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        source = self.sets[index % len(self.sets)]
        return source.picture(index // len(self.sets) % len(source), generator)


@dataclass
class VAETask:
    """`reconstruction_loss`, weighted towards mouth and eyes, + KL, on crops of single frames and on textures."""

    vae: TinyVAE
    data: Pictures
    batch: int
    crop: int = 0  #: side of the crops in pixels; 0: whole pictures, unscaled
    textures: float = 0.0  #: share of `dead_leaves` among the pictures, 0..1

    def __post_init__(self) -> None:
        self.module: nn.Module = _Reconstruction(self.vae).to(memory_format=torch.channels_last)
        self.side = self.crop or self.data.size

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": [parameter for parameter in self.module.parameters() if parameter.requires_grad]}]

    def settings(self) -> dict[str, Any]:
        return {"clips": len(self.data)}

    def describe(self) -> str:
        return "single frames of random clips"

    def _images(self, generators: list[torch.Generator]) -> tuple[Tensor, Tensor]:
        """One picture per generator, (n, 3, side, side) in -1..1, and masks of mouth and eyes, (n, 2, side, side)."""
        images, boxes = zip(*map(self._sample, generators), strict=True)
        masks = [box_mask(each, self.side) for each in torch.stack(boxes, 1)]
        return torch.stack(images), torch.cat(masks, 1)

    def _sample(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if float(torch.rand((), generator=generator)) < self.textures:
            return dead_leaves(self.side, generator), torch.full((2, 4), -10.0)  # boxes outside of the picture
        image, boxes = self._picture(generator)
        return self._cropped(image, boxes, generator) if self.crop else (image, boxes)

    def _cropped(self, image: Tensor, boxes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random square of the picture, scaled to `crop` pixels and mirrored with probability 1/2, and its boxes."""
        zoom, at_mouth, x, y, mirrored = torch.rand(5, generator=generator).tolist()
        size = image.shape[-1]
        side = min(size, round(self.crop / (ZOOM[0] * (ZOOM[1] / ZOOM[0]) ** zoom)))
        left, top = round(x * (size - side)), round(y * (size - side))
        if at_mouth < AT_MOUTH:
            x0, y0, x1, y1 = boxes[0].tolist()
            middle = (x0 + x1) / 2 + (x - 0.5) * side / 2, (y0 + y1) / 2 + (y - 0.5) * side / 2
            left, top = (min(max(0, round(m - side / 2)), size - side) for m in middle)
        part = image[None, :, top : top + side, left : left + side]
        part = F.interpolate(part, (self.crop, self.crop), mode="bilinear", antialias=True)[0]
        boxes = (boxes - torch.tensor([left, top, left, top])) * (self.crop / side)
        if mirrored < 0.5:
            return part.flip(-1), torch.stack(
                [self.crop - boxes[:, 2], boxes[:, 1], self.crop - boxes[:, 0], boxes[:, 3]], 1
            )
        return part, boxes

    def _picture(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        for _ in range(TRIES):
            try:
                return self.data.picture(int(torch.randint(len(self.data), (), generator=generator)), generator)
            except BadClipError as error:
                reason = f"the last one, {error.id}, because {error}"
        raise FadaError(f"{TRIES} clips in a row cannot be read, {reason}; check the manifest.")

    def draw(self, generators: list[torch.Generator]) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures and masks as from `_images`, and noise for their latents; on the autoencoder's device."""
        images, masks = self._images(generators)
        mean = self.vae.get_buffer("latent_mean")
        cells = self.side // self.vae.fine_cell
        shape = (len(mean) // 4, cells, cells)
        noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
        return images.to(mean.device, memory_format=torch.channels_last), masks.to(mean.device), noise.to(mean.device)

    def losses(self, module: nn.Module, step: int, generators: list[torch.Generator]) -> dict[str, Tensor]:
        images, masks, noise = self.draw(generators)
        output, mean, log_variance = (part.float() for part in module(images, noise))
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        terms = self.terms(output, images, masks)
        return {**terms, "loss": terms["loss"] + KL_WEIGHT * kl, "kl": kl}

    def terms(self, output: Tensor, images: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """`loss` of reconstructions, and the PSNR in dB of the pictures (`psnr`) and of the mouths (`mouth_psnr`)."""
        mouth, eyes = masks.split(1, dim=1)
        loss = reconstruction_loss(output, images, 1 + (MOUTH_WEIGHT - 1) * mouth + (EYES_WEIGHT - 1) * eyes)
        with torch.no_grad():
            square = (output - images).square()
            mouth_mse = (mouth * square).sum() / (3 * mouth.sum().clamp(min=1))
            psnr, mouth_psnr = (-10 * torch.log10(mse / 4) for mse in (square.mean(), mouth_mse))
        return {"loss": loss, "psnr": psnr, "mouth_psnr": mouth_psnr}

    def preview(self, folder: Path, step: int) -> None:
        """Write `preview-STEP.png`: the same pictures at every step, above their reconstructions."""
        images, _ = self._images([torch.Generator().manual_seed(i) for i in range(12)])
        device = next(self.module.parameters()).device
        output = self.vae.reconstruct(self.vae.moments(images.to(device))[0]).float().cpu()
        grid = rearrange([to_uint8(images), to_uint8(output)], "row n h w c -> (row h) (n w) c")
        iio.imwrite(folder / f"preview-{step:06d}.png", grid.numpy())

    @torch.inference_mode()
    def set_statistics(self, count: int = 512) -> None:
        """Measure the latents on `count` whole frames, and store their mean per channel and their common standard
        deviation in the autoencoder.

        The deviation is common to all channels, so that the same change of any channel changes the picture about
        equally. Were each channel scaled to unit deviation, the many channels of fine detail would outweigh the few
        that encode the picture's shapes, in noise and loss, by up to 300 times in the portrait model.

        Raises:
            FadaError: too many clips cannot be read.
        """
        generator = torch.Generator().manual_seed(2)
        device = next(self.module.parameters()).device
        parts = []
        for at in range(0, count, 16):
            images = torch.stack([self._picture(generator)[0] for _ in range(min(16, count - at))])
            parts.append(F.pixel_unshuffle(self.vae.moments(images.to(device))[0], 2))
        latents = torch.cat(parts)
        mean = latents.mean(dim=(0, 2, 3))
        self.vae.get_buffer("latent_mean").copy_(mean)
        self.vae.get_buffer("latent_std").fill_((latents - mean[:, None, None]).square().mean().sqrt())
