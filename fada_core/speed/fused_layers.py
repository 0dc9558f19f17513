"""Group norms, the SiLUs after them, and GEGLUs of uncompiled networks as kernels of their own (`kernels`)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.attention import GEGLU

log = logging.getLogger("fada.speed")

_ACTIVATIONS = {"norm1": "nonlinearity", "norm2": "nonlinearity", "conv_norm_out": "conv_act"}
"""Group norm -> the SiLU of its block that follows it: so are they called here, and in diffusers' autoencoder."""


def fuse(networks: nn.Module, device: torch.device, dtype: torch.dtype, undo: ExitStack) -> None:
    """Make the networks use the kernels, until `undo` is closed; the results stay the same.

    Where Triton is missing or does not work they are left as they are, after one line of log. So are single calls that
    the kernels are not made for: pictures in another order, weights that are elsewhere or changed while they are used.
    """
    try:
        kernels = load_kernels(device, dtype)
    except Exception as reason:  # a compiler's own errors, a missing C compiler's, a driver's: of any kind
        log.warning("Group norms and GEGLUs stay torch's own: %.200s", " ".join(str(reason).split()))
        return
    for block in list(networks.modules()):
        if isinstance(block, GEGLU):
            swap(undo, block, "forward", partial(_geglu, kernels, block))
        norms = {name: part for name, part in block.named_children() if isinstance(part, nn.GroupNorm)}
        after = {name: each for name, each in _ACTIVATIONS.items() if name in norms and _is_silu(block, each)}
        for name, norm in norms.items():
            swap(undo, norm, "forward", partial(_group_norm, kernels, norm, norm.forward, name in after))
        for activation in set(after.values()):
            swap(undo, block, activation, nn.Identity())


def load_kernels(device: torch.device, dtype: torch.dtype) -> Any:
    """The module, after its check; raises whatever may be wrong with Triton."""
    from . import triton_kernels as kernels

    kernels.check(device, dtype)
    return kernels


def _is_silu(block: nn.Module, name: str) -> bool:
    return isinstance(getattr(block, name, None), nn.SiLU)


def swap(undo: ExitStack, module: nn.Module, name: str, value: Any) -> None:
    """Put the value in the place of the module's own, until `undo` is closed."""
    before = getattr(module, name)
    if name in vars(module) or isinstance(before, nn.Module):
        undo.callback(setattr, module, name, before)
    else:  # its class's
        undo.callback(delattr, module, name)
    setattr(module, name, value)


def _geglu(kernels: Any, layer: GEGLU, x: Tensor) -> Tensor:
    return kernels.geglu(layer.proj(x))


def _group_norm(kernels: Any, norm: nn.GroupNorm, plain: Callable[[Tensor], Tensor], silu: bool, x: Tensor) -> Tensor:
    ordered = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    # ComfyUI's layers keep changes to their weights in lists of this name, and apply them in each call.
    if ordered and norm.weight.device == x.device and not getattr(norm, "weight_function", ()):
        return kernels.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps, silu=silu)
    return F.silu(plain(x)) if silu else plain(x)
