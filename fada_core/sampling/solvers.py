"""Solvers with one interface: DDIM, and multistep solvers from diffusers."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import FadaError
from ..settings import SOLVERS
from .schedule import NoiseSchedule


class Solver(Protocol):
    """Steps through `timesteps` in order, once. It has state, so each clip needs a new one."""

    timesteps: list[int]

    def step(self, prediction: Tensor, t: int, x: Tensor) -> Tensor:
        """x (float32) at the timestep after `t`; after the last timestep, the clean sample."""
        ...

    def coefficients(self, t: int, device: torch.device) -> Tensor | None:
        """(a, b), a tensor on `device`, if `step` is a x + b prediction; otherwise None."""
        ...


class DDIM:
    """Deterministic DDIM (2010.02502), see `NoiseSchedule.ddim_step`."""

    def __init__(self, schedule: NoiseSchedule, steps: int) -> None:
        self.schedule, self.timesteps, self._steps = schedule, schedule.timesteps(steps), steps
        self._previous = {t: schedule.previous(t, steps) for t in self.timesteps}

    def step(self, prediction: Tensor, t: int, x: Tensor) -> Tensor:
        return self.schedule.ddim_step(prediction, x, t, self._previous[t])

    def coefficients(self, t: int, device: torch.device) -> Tensor:
        return self.schedule.ddim_coefficients(self._steps, device)[t]


class Multistep:
    """DPM-Solver++ 2M (2211.01095) or UniPC (2302.04867) from diffusers, with the schedule's settings.

    Args:
        kind: the diffusers class.

    Raises:
        FadaError: `steps` is out of range.
    """

    def __init__(self, kind: Any, schedule: NoiseSchedule, steps: int) -> None:  # diffusers' classes have no types
        config = schedule.config
        self._scheduler = kind(
            num_train_timesteps=config.train_timesteps,
            beta_start=config.beta_start,
            beta_end=config.beta_end,
            beta_schedule=config.beta_schedule,
            solver_order=2,
            prediction_type="v_prediction" if config.prediction == "v" else "epsilon",
            timestep_spacing=config.spacing,
            rescale_betas_zero_snr=config.zero_snr,
        )
        schedule.timesteps(steps)  # raises a FadaError where diffusers would fail otherwise
        self._scheduler.set_timesteps(steps)
        self.timesteps = self._scheduler.timesteps.tolist()

    def step(self, prediction: Tensor, t: int, x: Tensor) -> Tensor:
        return self._scheduler.step(prediction, t, x, return_dict=False)[0]

    def coefficients(self, t: int, device: torch.device) -> None:
        return None  # the step also depends on previous predictions


def build_solver(schedule: NoiseSchedule, steps: int, name: str = "ddim") -> Solver:
    """A new solver for one clip.

    Args:
        name: an entry of `settings.SOLVERS`.

    Raises:
        FadaError: there is no solver `name`, or `steps` is out of range.
    """
    if name == "ddim":
        return DDIM(schedule, steps)
    import diffusers  # not at the top: it takes a while, and the default does without

    if name == "dpm++":
        return Multistep(diffusers.DPMSolverMultistepScheduler, schedule, steps)
    if name == "unipc":
        return Multistep(diffusers.UniPCMultistepScheduler, schedule, steps)
    raise FadaError(f"There is no solver '{name}'; choose one of {', '.join(SOLVERS)}.")
