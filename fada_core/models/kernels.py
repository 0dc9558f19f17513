"""Operations that faster kernels can replace: group norm with the SiLU after it, and the gate of a GEGLU."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Kernels:
    """torch's operations; `speed.fused_layers` has faster ones with the same results."""

    def group_norm(self, norm: nn.Module, x: Tensor, *, silu: bool = False) -> Tensor:
        """The group norm of x, (n, c, h, w), followed by a SiLU if `silu`."""
        x = norm(x)
        return F.silu(x) if silu else x

    def geglu(self, projected: Tensor) -> Tensor:
        """(..., 2 d) -> (..., d): the first half times the exact GELU of the second (Shazeer 2002.05202)."""
        value, gate = projected.chunk(2, dim=-1)
        return value * F.gelu(gate)


class KernelModule(nn.Module):
    """A module that computes its norms and gates through `kernels`, which may be replaced between two calls."""

    kernels = Kernels()
