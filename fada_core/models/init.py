"""Weights of a network that starts from nothing: drawn from an explicit generator, residual branches silent."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights of `network` in place, in the order of its modules, from a CPU `generator`.

    Matrices and kernels are uniform in +-1/sqrt(fan in), torch's default for linear and convolution layers; norms are
    one, biases zero. A module may list in `zero_at_start` those of its layers that start at zero (the last layer of a
    residual branch, so that a fresh network is close to the identity: Fixup, Zhang et al. 1901.09321; ADM,
    Dhariwal & Nichol 2105.05233), and may define `reset_buffers()` for tables that no training changes.
    The network must have storage (not be on the meta device).
    """
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim > 1:
                bound = parameter[0].numel() ** -0.5
                draw = torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator)
                parameter.copy_(draw)
            else:
                parameter.fill_(1.0 if name == "weight" else 0.0)
        if hasattr(module, "reset_buffers"):
            module.reset_buffers()
    for module in network.modules():
        for name in getattr(module, "zero_at_start", ()):
            for parameter in getattr(module, name).parameters():
                parameter.zero_()
