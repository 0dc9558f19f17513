"""The noise schedule: signal and noise amplitudes of the timesteps, and the DDIM step between two of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..config import ScheduleConfig
from ..errors import FadaError


def _alphas_cumprod(config: ScheduleConfig) -> np.ndarray:
    """Cumulative product of 1 - beta (the signal's variance) at each timestep, (train_timesteps,) float64."""
    if config.beta_schedule == "linear":
        betas = np.linspace(config.beta_start, config.beta_end, config.train_timesteps)
    else:
        betas = np.linspace(config.beta_start**0.5, config.beta_end**0.5, config.train_timesteps) ** 2
    cumprod = np.cumprod(1.0 - betas)
    if config.zero_snr:  # Lin et al. 2305.08891, algorithm 1: shift the last root to zero, scale the first one back
        root = np.sqrt(cumprod)
        cumprod = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return cumprod


def _expand(values: Tensor, like: Tensor) -> Tensor:
    """Append axes so that one value per batch row (or a scalar) broadcasts against `like`."""
    return values.reshape(values.shape + (1,) * (like.ndim - values.ndim)) if values.ndim else values


class NoiseSchedule:
    """x_t = alpha_t x_0 + sigma_t noise, alpha_t^2 + sigma_t^2 = 1, for t = 0 (nearly clean) .. train_timesteps - 1.

    All methods take `t` as an int or as a LongTensor with one entry per batch row; samples may have any trailing axes.
    A negative `t` stands for the clean sample (alpha 1, sigma 0).

    Raises:
        FadaError: the config combines noise prediction with zero terminal SNR. x_t is then pure noise at the first
            step, and computing x_0 from the predicted noise would divide by zero.
    """

    def __init__(self, config: ScheduleConfig) -> None:
        if config.zero_snr and config.prediction == "epsilon":
            raise FadaError(
                "A schedule with zero terminal SNR cannot be sampled by noise prediction; "
                "set schedule.prediction to 'v' or schedule.zero_snr to false."
            )
        self.config = config
        cumprod = _alphas_cumprod(config)
        # Append the clean sample, so that it has index -1.
        cumprod = np.append(cumprod, 1.0)
        self._tables = {torch.device("cpu"): torch.from_numpy(np.sqrt(np.stack([cumprod, 1.0 - cumprod]))).float()}
        self._coefficients: dict[tuple[int, torch.device], dict[int, Tensor]] = {}

    def timesteps(self, steps: int) -> list[int]:
        """`steps` timesteps from train_timesteps - 1 downwards with "trailing" spacing (2305.08891, table 2).

        Raises:
            FadaError: `steps` is not within 1..train_timesteps.
        """
        total = self.config.train_timesteps
        if not 1 <= steps <= total:
            raise FadaError(f"{steps} sampling steps are not possible; choose 1 to {total}.")
        # The same arange as in diffusers, so that halves round alike. Rounding errors may give one entry too many.
        return [int(t) - 1 for t in np.round(np.arange(total, 0, -total / steps))[:steps]]

    def previous(self, t: int, steps: int) -> int:
        """The timestep after `t`, an entry of `timesteps(steps)`; negative for the clean sample."""
        if self.config.previous_timestep == "stride":
            return t - self.config.train_timesteps // steps
        following = [*self.timesteps(steps), -1]
        return following[following.index(t) + 1]

    def alpha_sigma(self, t: int | Tensor, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """Signal and noise amplitudes, float32: scalars on `device` for an int, else of the shape and device of `t`."""
        cpu = torch.device("cpu")
        device, row = (device or cpu, max(t, -1)) if isinstance(t, int) else (t.device, t.clamp(min=-1))
        table = self._tables.get(device)
        if table is None:
            table = self._tables[device] = self._tables[cpu].to(device)
        alpha, sigma = table[:, row]
        return alpha, sigma

    def _amplitudes(self, t: int | Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.alpha_sigma(t)
        return _expand(alpha, like), _expand(sigma, like)

    def add_noise(self, x0: Tensor, noise: Tensor, t: int | Tensor) -> Tensor:
        """x_t = alpha x_0 + sigma noise."""
        alpha, sigma = self._amplitudes(t, x0)
        return alpha * x0 + sigma * noise

    def velocity(self, x0: Tensor, noise: Tensor, t: int | Tensor) -> Tensor:
        """v = alpha noise - sigma x_0 (Salimans & Ho, 2202.00512, section 4)."""
        alpha, sigma = self._amplitudes(t, x0)
        return alpha * noise - sigma * x0

    def target(self, x0: Tensor, noise: Tensor, t: int | Tensor) -> Tensor:
        """The training target: v or the noise, by the config."""
        return noise if self.config.prediction == "epsilon" else self.velocity(x0, noise, t)

    def to_x0(self, x_t: Tensor, prediction: Tensor, t: int | Tensor) -> Tensor:
        """The clean sample that `prediction` (v or noise, by the config) implies."""
        alpha, sigma = self._amplitudes(t, x_t)
        if self.config.prediction == "epsilon":
            return (x_t - sigma * prediction) / alpha
        return alpha * x_t - sigma * prediction

    def to_epsilon(self, x_t: Tensor, prediction: Tensor, t: int | Tensor) -> Tensor:
        """The noise that `prediction` (v or noise, by the config) implies."""
        if self.config.prediction == "epsilon":
            return prediction
        alpha, sigma = self._amplitudes(t, x_t)
        return alpha * prediction + sigma * x_t

    def ddim_step(self, prediction: Tensor, x_t: Tensor, t: int | Tensor, t_prev: int | Tensor) -> Tensor:
        """x at `t_prev` by DDIM (Song et al. 2010.02502, equation 12, eta 0); negative `t_prev`: the clean sample."""
        alpha, sigma = self._amplitudes(t_prev, x_t)
        return alpha * self.to_x0(x_t, prediction, t) + sigma * self.to_epsilon(x_t, prediction, t)

    def ddim_coefficients(self, steps: int, device: torch.device) -> dict[int, Tensor]:
        """`ddim_step` written as a x_t + b prediction: (a, b) on `device` for each entry of `timesteps(steps)`.

        The result is cached, so that it is copied to the device only once.
        """
        if (steps, device) not in self._coefficients:
            zero, one = torch.tensor(0.0), torch.tensor(1.0)
            times = self.timesteps(steps)
            x_and_prediction = ((zero, one), (one, zero))
            table = [
                [self.ddim_step(prediction, x, t, self.previous(t, steps)) for prediction, x in x_and_prediction]
                for t in times
            ]
            rows = torch.tensor(table).to(device)
            self._coefficients[steps, device] = dict(zip(times, rows, strict=True))
        return self._coefficients[steps, device]
