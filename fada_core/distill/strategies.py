"""Step distillation: the timesteps of the student's training, and its targets at them.

FADA's figure shows a regression to the guided prediction, but no method to reduce the steps; the choice of the three
strategies is ours. Each gives a target for the student's prediction at (x_t, t). A deterministic DDIM step from x_t to
x_s (s < t) is equivalent to a prediction:

    x_s = alpha_s x_0 + sigma_s eps = (alpha_s alpha_t + sigma_s sigma_t) x_t + (sigma_s alpha_t - alpha_s sigma_t) v.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from ..errors import FadaError
from ..sampling.schedule import NoiseSchedule

Strategy = Literal["direct", "phased", "trajectory"]


class Predict(Protocol):
    """Predicts (batch, frames, c, h, w) at x_t and timesteps (batch,), with the batch's conditions and scales."""

    def __call__(self, x_t: Tensor, t: Tensor, /) -> Tensor: ...


def velocity_between(schedule: NoiseSchedule, x_t: Tensor, x_s: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """The v at (x_t, t) whose DDIM step leads to (x_s, s); timesteps (batch,), s < t, negative for the clean sample."""
    alpha_t, sigma_t, alpha_s, sigma_s = (
        value[:, None, None, None, None] for pair in (t, s) for value in schedule.alpha_sigma(pair)
    )
    return (x_s - (alpha_s * alpha_t + sigma_s * sigma_t) * x_t) / (sigma_s * alpha_t - alpha_s * sigma_t)


@dataclass(frozen=True)
class StepStrategy:
    """Draws timesteps and makes targets for a student with `steps` trailing steps.

    direct: the timesteps are the student's own, and the target is the guided prediction.
    phased: the timesteps are those of a finer grid; the target leads to the point at the end of the current phase that
        the student (without gradient) predicts after one guided teacher step: consistency within `steps` phases (PCM,
        Wang et al. 2405.18407, section 3).
    trajectory: the timesteps are the student's own; the target leads to the point that `substeps` guided teacher steps
        reach (progressive distillation, Salimans & Ho 2202.00512, algorithm 2, with more than two steps at once).
    """

    name: Strategy
    schedule: NoiseSchedule
    steps: int = 6
    substeps: int = 4  #: teacher steps (for phased: points of the grid) in one step of the student

    def __post_init__(self) -> None:
        if self.schedule.config.prediction != "v" and self.name != "direct":
            raise FadaError(f"The strategy {self.name} needs a teacher that predicts v; choose direct.")

    def grid(self) -> list[int]:
        """The finer grid's timesteps, from noise to -1 (the clean sample), `substeps` for each step of the student."""
        coarse = [*self.schedule.timesteps(self.steps), -1]
        fine = []
        for high, low in zip(coarse, coarse[1:], strict=False):
            fine += [high - round((high - low) * i / self.substeps) for i in range(self.substeps)]
        return [*fine, -1]

    def draw(self, generators: list[torch.Generator]) -> Tensor:
        """Random timesteps (batch,), one from each generator."""
        choices = torch.tensor(self.grid()[:-1] if self.name == "phased" else self.schedule.timesteps(self.steps))
        return choices[torch.cat([torch.randint(len(choices), (1,), generator=g) for g in generators])]

    @torch.no_grad()
    def target(self, x_t: Tensor, t: Tensor, guided: Tensor, teacher: Predict, student: Predict) -> Tensor:
        """The student's target at (x_t, t), where the teacher predicts `guided`."""
        if self.name == "direct":
            return guided
        grid = torch.tensor(self.grid(), device=t.device)
        place = (grid[None] == t[:, None]).int().argmax(1)
        edge = grid[(place // self.substeps + 1) * self.substeps]
        moves = 1 if self.name == "phased" else self.substeps
        x, prediction, now = x_t, guided, t
        for move in range(moves):
            if move:
                prediction = teacher(x, now)
            following = grid[place + move + 1]
            x, now = self.schedule.ddim_step(prediction, x, now, following), following
        if self.name == "phased":
            # Where the teacher's step has already reached the end of the phase, its x is the target.
            there = now == edge
            asked = torch.where(there, t, now)
            jumped = self.schedule.ddim_step(student(x, asked), x, asked, edge)
            x = torch.where(there[:, None, None, None, None], x, jumped)
        return velocity_between(self.schedule, x_t, x, t, edge)
