"""Low memory: only the denoising UNet stays on the device; the other networks fetch their weights when they run."""

from __future__ import annotations

import torch

from ..models.networks import Networks


def keep_on_host(networks: Networks, device: torch.device) -> None:
    """Prepare networks in host memory for sampling on `device`.

    The denoising UNet, which runs in every step, moves there. Everything that runs once a job or once a clip (reference
    UNet, autoencoder, audio encoder, the small projections) keeps its weights on the host, and each layer fetches its
    own for every call. Results stay the same.
    """
    from accelerate import cpu_offload  # takes seconds to import

    networks.denoising_unet.to(device)
    for part in networks.children():
        if part is not networks.denoising_unet and any(True for _ in part.parameters()):
            cpu_offload(part, device)
