"""Triton kernels in place of torch's group norm (with SiLU) and GEGLU, where torch.compile does not fuse them."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from ..models.kernels import KernelModule, Kernels

log = logging.getLogger("fada.speed")


class FusedKernels(Kernels):
    """Falls back to torch for a call that the kernels do not fit: images in another memory order than channels_last,
    weights that are on another device or patched while they are used."""

    def __init__(self, kernels: Any) -> None:
        self._kernels = kernels

    def group_norm(self, norm: nn.Module, x: Tensor, *, silu: bool = False) -> Tensor:
        ordered = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
        # ComfyUI's layers keep patches of their weights in a list of this name, and apply them in each call.
        if ordered and norm.weight.device == x.device and not getattr(norm, "weight_function", ()):
            return self._kernels.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps, silu=silu)
        return super().group_norm(norm, x, silu=silu)

    def geglu(self, projected: Tensor) -> Tensor:
        return self._kernels.geglu(projected)


def fuse_layers(networks: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Make the networks use the Triton kernels until `restore_layers`; results stay the same up to rounding.

    Where Triton is missing or does not work, nothing changes, and one line of log says why.
    """
    try:
        kernels = FusedKernels(load_kernels(device, dtype))
    except Exception as reason:  # of any kind: a compiler's, a missing C compiler's, a driver's
        log.warning("Group norms and GEGLUs stay torch's own: %.200s", " ".join(str(reason).split()))
        return
    for module in networks.modules():
        if isinstance(module, KernelModule):
            module.kernels = kernels


def restore_layers(networks: nn.Module) -> None:
    """Make the networks use torch's own operations again."""
    for module in networks.modules():
        if isinstance(module, KernelModule):
            module.kernels = KernelModule.kernels


def load_kernels(device: torch.device, dtype: torch.dtype) -> Any:
    """The kernels' module, after a check of its results; raises whatever may be wrong with Triton."""
    from . import triton_kernels

    triton_kernels.check(device, dtype)
    return triton_kernels
