"""Residual preconditioning: the network sees and predicts differences to the portrait's latents.

With x_0 = ref + r and sd(r) = s, y = x_t - alpha ref = alpha r + sigma noise has variance alpha^2 s^2 + sigma^2. As in
EDM (Karras et al. 2206.00364, section 5), c_in brings the network's input to unit variance, and c_skip and c_out are
chosen such that the network's target has unit variance and as little as possible of its error reaches v:

    v = alpha noise - sigma x_0 = -sigma ref + c_skip y + c_out F(c_in y)

A row without a reference has ref = 0 and s = 1, which is plain v-prediction: c_in 1, c_skip 0, c_out 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Coefficients(NamedTuple):
    """The preconditioning coefficients, (batch,) float32 each."""

    c_in: Tensor
    c_skip: Tensor
    c_out: Tensor


def coefficients(alpha: Tensor, sigma: Tensor, residual_std: float, has_reference: Tensor) -> Coefficients:
    """Coefficients of each batch row.

    Args:
        alpha, sigma: signal and noise amplitudes, (batch,) or scalars.
        residual_std: s above, > 0.
        has_reference: (batch,) bool.
    """
    std = torch.where(has_reference, residual_std, 1.0)
    variance = (alpha * std) ** 2 + sigma**2
    return Coefficients(variance**-0.5, alpha * sigma * (1 - std**2) / variance, std * variance**-0.5)


def _rows(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def network_input(
    x_t: Tensor, reference: Tensor, alpha: Tensor, sigma: Tensor, residual_std: float, has_reference: Tensor
) -> Tensor:
    """c_in (x_t - alpha ref).

    Args:
        x_t: (batch, frames, c, h, w).
        reference: the portrait's latents, (batch, c, h, w); rows without a reference are ignored.
        alpha, sigma, residual_std, has_reference: as for `coefficients`.
    """
    c_in = coefficients(alpha, sigma, residual_std, has_reference).c_in
    alpha = torch.where(has_reference, alpha, 0.0)
    return _rows(c_in, x_t) * (x_t - _rows(alpha, x_t) * reference.unsqueeze(1))


def velocity(
    output: Tensor,
    x_t: Tensor,
    reference: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    residual_std: float,
    has_reference: Tensor,
) -> Tensor:
    """v from the network's `output` (batch, frames, c, h, w); the other arguments as for `network_input`."""
    _, c_skip, c_out = coefficients(alpha, sigma, residual_std, has_reference)
    # c_skip is 0 without a reference, so y's own reference term needs no mask.
    reference = reference.unsqueeze(1)
    y = x_t - _rows(alpha.expand_as(c_skip), x_t) * reference
    sigma = torch.where(has_reference, sigma, 0.0)
    return _rows(c_out, x_t) * output + _rows(c_skip, x_t) * y - _rows(sigma, x_t) * reference
