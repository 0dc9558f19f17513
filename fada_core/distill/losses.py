"""Per-sample losses of the distillation: L_distill to the guided teacher, L_gt to the ground truth.

Both compare predictions in one of three spaces. A prediction of velocity v at (alpha, sigma) implies

    eps = alpha v + sigma x_t,    x_0 = alpha x_t - sigma v    (Salimans & Ho 2202.00512, appendix D),

so for the same x_t, errors differ only by a factor: eps error = alpha * v error, x_0 error = -sigma * v error. FADA's
figure has both losses in noise space. There, errors of the first step count nothing at zero terminal SNR, so the space
is an option.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Space = Literal["eps", "v", "x0"]
Penalty = Literal["mse", "huber"]
HUBER_C = 0.001  #: LCM's and PCM's value for SD 1.5 (Luo et al. 2310.04378; Wang et al. 2405.18407)


def space_factor(alpha: Tensor, sigma: Tensor, space: Space) -> Tensor:
    """Factor (batch,) between the error of a prediction in v and its error in `space`."""
    return {"eps": alpha, "v": torch.ones_like(alpha), "x0": sigma}[space]


def min_snr_weight(alpha: Tensor, sigma: Tensor, space: Space, gamma: float) -> Tensor:
    """Weight (batch,) of a squared error in `space` that makes it min(SNR, gamma) times the squared error of x_0.

    Hang et al. 2303.09556, section 3.4: min(SNR, gamma) for x_0, divided by SNR for noise, by SNR + 1 for v, with SNR =
    alpha^2 / sigma^2. At zero SNR the weight for v would be 0, and the first step would not be trained; below SNR 1 it
    therefore keeps its value for SNR 1, which is 1/2 (our choice).
    """
    snr = (alpha / sigma.clamp(min=1e-6)).square()
    capped = snr.clamp(min=1.0, max=gamma)
    return {"eps": capped / snr.clamp(min=1.0), "v": capped / (snr.clamp(min=1.0) + 1), "x0": capped}[space]


def sample_losses(
    prediction: Tensor,
    target: Tensor,
    weights: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    *,
    space: Space = "v",
    penalty: Penalty = "mse",
    huber_c: float = HUBER_C,
    snr_gamma: float = 0.0,
) -> Tensor:
    """The loss of each sample, (batch,) float32.

    Args:
        prediction, target: velocities at the same x_t, (batch, frames, c, h, w).
        weights: of the latent cells, (batch, frames, 1, h, w).
        alpha, sigma: the schedule's amplitudes, (batch,).
        space: the space in which errors are measured.
        penalty: `mse`, or `huber`: sqrt(d^2 + c^2) - c (pseudo-Huber).
        huber_c: c; up to about this error, `huber` is quadratic.
        snr_gamma: if above 0, losses are multiplied by `min_snr_weight`.
    """
    error = (prediction.float() - target.float()) * space_factor(alpha, sigma, space)[:, None, None, None, None]
    cells = error.square() if penalty == "mse" else (error.square() + huber_c**2).sqrt() - huber_c
    losses = (weights * cells).flatten(1).mean(1) / weights.flatten(1).mean(1)
    return losses * min_snr_weight(alpha, sigma, space, snr_gamma) if snr_gamma else losses
