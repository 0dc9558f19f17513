"""Step distillation: at which timesteps the student learns, and the targets that the teacher gives it there.

FADA's figure shows a regression of the guided prediction and no step-reduction recipe; the three strategies are ours to
choose between. All of them give a prediction at (x_t, t) for the student to match. A deterministic DDIM step from x_t
to x_s (s < t) is equivalent to such a prediction:

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
    """A prediction (batch, frames, c, h, w) at x_t and timesteps (batch,), under the batch's conditions and scales."""

    def __call__(self, x_t: Tensor, t: Tensor, /) -> Tensor: ...


def velocity_between(schedule: NoiseSchedule, x_t: Tensor, x_s: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """The v at (x_t, t) whose DDIM step leads to (x_s, s); s < t, negative for the clean sample; (batch,) timesteps."""
    alpha_t, sigma_t, alpha_s, sigma_s = (
        value[:, None, None, None, None] for pair in (t, s) for value in schedule.alpha_sigma(pair)
    )
    return (x_s - (alpha_s * alpha_t + sigma_s * sigma_t) * x_t) / (sigma_s * alpha_t - alpha_s * sigma_t)


@dataclass(frozen=True)
class StepStrategy:
    """Draws timesteps and makes targets for a student of `steps` trailing steps.

    direct: at the student's own timesteps, the guided prediction.
    phased: anywhere on a finer grid; the target is the point at the end of the current phase that the student itself
        (without gradient) predicts after one guided teacher step: consistency within `steps` phases (PCM, Wang et al.
        2405.18407, section 3).
    trajectory: at the student's own timesteps, the move that `substeps` guided teacher steps make together (progressive
        distillation, Salimans & Ho 2202.00512, algorithm 2, with more than two steps at once).
    """

    name: Strategy
    schedule: NoiseSchedule
    steps: int = 6
    substeps: int = 4  #: teacher steps within one step of the student (phased: grid points, trajectory: steps made)

    def __post_init__(self) -> None:
        if self.schedule.config.prediction != "v" and self.name != "direct":
            raise FadaError(f"The strategy {self.name} needs a teacher that predicts v; choose direct.")

    def grid(self) -> list[int]:
        """The finer timesteps, noise first, `substeps` for each of the student's; -1 is the clean sample."""
        coarse = [*self.schedule.timesteps(self.steps), -1]
        fine = []
        for high, low in zip(coarse, coarse[1:], strict=False):
            fine += [high - round((high - low) * i / self.substeps) for i in range(self.substeps)]
        return [*fine, -1]

    def draw(self, generators: list[torch.Generator]) -> Tensor:
        """Timesteps, (batch,), one from each generator."""
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
            # Where the teacher's step has already reached the edge, its x is the target.
            there = now == edge
            asked = torch.where(there, t, now)
            jumped = self.schedule.ddim_step(student(x, asked), x, asked, edge)
            x = torch.where(there[:, None, None, None, None], x, jumped)
        return velocity_between(self.schedule, x_t, x, t, edge)
