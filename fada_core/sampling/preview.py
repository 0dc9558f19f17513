"""A cheap look at unfinished latents."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.networks import Networks

_SD15_RGB = (
    (0.298, 0.207, 0.208),
    (0.187, 0.286, 0.173),
    (-0.158, 0.189, 0.264),
    (-0.184, -0.271, -0.473),
)
"""Stable Diffusion 1.x latents (rows, scaled by 0.18215) to RGB in -1..1; the linear fit that user interfaces share."""


@torch.no_grad()
def preview(networks: Networks, latents: Tensor) -> Tensor:
    """Approximate pictures (n, 3, 8h, 8w) in -1..1, float32, of latents (n, c, h, w).

    The tiny autoencoder and TAESD decode in milliseconds; for Stable Diffusion's own a linear map of the latents,
    enlarged, must do.
    """
    if networks.config.vae.kind != "kl":
        return networks.vae.decode(latents.to(networks.dtype)).float()
    factors = torch.tensor(_SD15_RGB, device=latents.device)
    pictures = torch.einsum("nchw,cr->nrhw", latents.float(), factors).clamp(-1, 1)
    return F.interpolate(pictures, scale_factor=float(networks.config.vae.downscale), mode="nearest")
