"""Offloading: only the denoising UNet stays on the device; the other networks load their weights when they run."""

from __future__ import annotations

import torch

from ..models.networks import Networks


def keep_on_host(networks: Networks, device: torch.device) -> None:
    """Prepare networks in host memory for sampling on `device`.

    The denoising UNet, which runs in every step, is moved to the device. Networks that run once per job or clip
    (reference UNet, autoencoder, audio encoder, projections) stay on the host, and each of their layers copies its
    weights to the device for each call. Results are the same.
    """
    from accelerate import cpu_offload  # takes seconds to import

    networks.denoising_unet.to(device)
    for part in networks.children():
        if part is not networks.denoising_unet and any(True for _ in part.parameters()):
            cpu_offload(part, device)
