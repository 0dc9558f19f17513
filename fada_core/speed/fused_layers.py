"""Replaces torch's group norm (with SiLU) and GEGLU by Triton kernels in networks that are not compiled."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from ..models.kernels import KernelModule, Kernels

log = logging.getLogger("fada.speed")


class FusedKernels(Kernels):
    """The Triton kernels, with torch's operations as fallback: for tensors that are not channels_last images, and for
    weights that are on another device or patched during the call."""

    def __init__(self, kernels: Any) -> None:
        self._kernels = kernels

    def group_norm(self, norm: nn.Module, x: Tensor, *, silu: bool = False) -> Tensor:
        ordered = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
        # ComfyUI's layers have a list of this name with patches (LoRA) that they apply to the weight in each call.
        if ordered and norm.weight.device == x.device and not getattr(norm, "weight_function", ()):
            return self._kernels.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps, silu=silu)
        return super().group_norm(norm, x, silu=silu)

    def geglu(self, projected: Tensor) -> Tensor:
        return self._kernels.geglu(projected)


def fuse_layers(networks: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Make the networks use the Triton kernels until `restore_layers`; results are the same up to rounding.

    If Triton is missing or does not work, nothing changes, and one line is logged.
    """
    try:
        kernels = FusedKernels(load_kernels(device, dtype))
    except Exception as reason:  # Triton, its compiler and the driver raise exceptions of many types
        log.warning("Group norms and GEGLUs are not fused: %.200s", " ".join(str(reason).split()))
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
    """Import the module of kernels and check its results; raises exceptions of any type if Triton does not work."""
    from . import triton_kernels

    triton_kernels.check(device, dtype)
    return triton_kernels
