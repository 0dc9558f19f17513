"""One distillation step: draws clips, scales and noise, runs teacher and student, and mixes the two losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ..data.batches import ClipBatch, closeups, draw_batch
from ..data.samples import ClipDataset
from ..models.networks import Networks
from ..sampling.guidance import BRANCHES
from ..sampling.schedule import NoiseSchedule
from .losses import HUBER_C, Penalty, Space, sample_losses
from .mixer import Mixer, MixerInputs, trust_in_truth
from .mixer import Strategy as MixerStrategy
from .strategies import StepStrategy
from .strategies import Strategy as StepName
from .student import parameter_groups
from .teacher import GuidedTeacher


@dataclass
class Objective:
    """The objective of the distillation; what FADA's paper leaves open is our choice (docs/RESULTS.md)."""

    steps: int = 6
    """Denoising steps of the student."""
    strategy: StepName = "direct"
    substeps: int = 4
    """Teacher steps in one step of the student, for phased and trajectory."""
    space: Space = "v"
    penalty: Penalty = "mse"
    huber_c: float = HUBER_C
    """Error up to which the penalty huber is quadratic."""
    snr_gamma: float = 0.0
    """Limit of the min-SNR weighting (0: none)."""
    mixer: MixerStrategy = "confidence"
    teacher_share: float = 0.5
    """lambda of an average sample; 1 is distillation from the teacher alone."""
    truth_reach: float = 1.0
    """Sum of the scales' parts above 1 at which the weight of the ground truth falls to 1/e (0: it stays the same)."""
    ref_cfg: tuple[float, float] = (1.0, 3.0)
    """Range of the reference scales to draw."""
    audio_cfg: tuple[float, float] = (1.0, 10.0)
    corners: float = 0.3
    """Share of samples with the scales of a single branch (base, ref or audio), so that the student can also be sampled
    with three branches; 1: a student for three branches only."""
    control_scale: float = 10.0
    """Learning rate of tokens and control layers, relative to that of the other weights."""


class _Student(nn.Module):
    """The module that accelerate wraps: its forward conditions and predicts, and its state includes the mixer's."""

    def __init__(self, networks: Networks, mixer: Mixer) -> None:
        super().__init__()
        self.networks, self.mixer = networks, mixer

    def forward(self, x_t: Tensor, t: Tensor, scales: Tensor, batch: ClipBatch, schedule: NoiseSchedule) -> Tensor:
        conditioning = self.networks.condition(batch.inputs(scales[:, 0] == 0, scales[:, 1] == 0, scales))
        return self.networks.predict(x_t, t, *schedule.alpha_sigma(t), conditioning)


@dataclass
class DistillTask:
    """The distillation as a task for `training.train`."""

    student: Networks
    teacher: GuidedTeacher
    data: ClipDataset
    batch: int
    objective: Objective
    accelerator: Accelerator
    make_preview: Callable[[Networks, Path, int], None]
    origin: str = ""  #: the teacher's name; a training resumes only with the same teacher
    closeup_steps: int = 0  #: the first steps, which learn from close-ups
    closeup_cells: int = 0  #: their side in latent cells
    ids: list[str] = field(default_factory=list)  #: of the latest batch

    def __post_init__(self) -> None:
        self.config = self.student.config
        self.schedule = self.teacher.schedule
        objective = self.objective
        self.steps = StepStrategy(objective.strategy, self.schedule, objective.steps, objective.substeps)
        self.mixer = Mixer(objective.mixer, objective.teacher_share, self.config.schedule.train_timesteps)
        self.module = _Student(self.student, self.mixer).to(memory_format=torch.channels_last)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return parameter_groups(self.student, self.module, self.objective.control_scale)

    def settings(self) -> dict[str, Any]:
        part = {"closeup_steps": self.closeup_steps, "closeup_cells": self.closeup_cells} if self.closeup_steps else {}
        return {"objective": asdict(self.objective), "teacher": self.origin, "clips": len(self.data), **part}

    def describe(self) -> str:
        return "samples " + ", ".join(self.ids)

    def preview(self, folder: Path, step: int) -> None:
        self.make_preview(self.module.networks, folder, step)

    def draw_scales(self, generators: list[torch.Generator]) -> Tensor:
        """ref_cfg and audio_cfg of each sample, (batch, 2): those of a single branch, or uniform in their ranges."""
        objective, rows = self.objective, []
        for generator in generators:
            corner, which, ref, audio = torch.rand(4, generator=generator).tolist()
            if corner < objective.corners:
                rows.append(BRANCHES[int(len(BRANCHES) * which)].scales)
            else:
                (a, b), (c, d) = objective.ref_cfg, objective.audio_cfg
                rows.append((a + (b - a) * ref, c + (d - c) * audio))
        return torch.tensor(rows)

    def losses(self, module: nn.Module, step: int, generators: list[torch.Generator]) -> dict[str, Tensor]:
        objective, device = self.objective, self.student.device
        batch = draw_batch(self.data, self.config, generators)
        if step < self.closeup_steps:
            batch = closeups(batch, self.closeup_cells, generators)
        scales = self.draw_scales(generators)
        t = self.steps.draw(generators)
        noise = torch.stack([torch.randn(batch.latents.shape[1:], generator=g) for g in generators])
        batch = batch.to(device)
        scales, t, noise = (value.to(device) for value in (scales, t, noise))
        self.ids = batch.ids

        x_t = self.schedule.add_noise(batch.latents, noise, t)
        truth = self.schedule.target(batch.latents, noise, t)
        conditioning = self.teacher.condition(batch)
        guided, audio_alone = self.teacher.predict(x_t, t, scales, conditioning)

        def teacher(x: Tensor, now: Tensor) -> Tensor:
            return self.teacher.predict(x, now, scales, conditioning)[0]

        def student(x: Tensor, now: Tensor) -> Tensor:
            return self.module(x, now, scales, batch, self.schedule)

        target = self.steps.target(x_t, t, guided, teacher, student)
        prediction = module(x_t, t, scales, batch, self.schedule).float()

        alpha, sigma = self.schedule.alpha_sigma(t)

        def measure(a: Tensor, b: Tensor) -> Tensor:
            return sample_losses(
                a,
                b,
                batch.weights,
                alpha,
                sigma,
                space=objective.space,
                penalty=objective.penalty,
                huber_c=objective.huber_c,
                snr_gamma=objective.snr_gamma,
            )

        distill, gt = measure(prediction, target), measure(prediction, truth)
        inputs = MixerInputs(
            distill=distill.detach(),
            gt=gt.detach(),
            teacher_error=measure(audio_alone, truth),
            quality=batch.quality,
            trust=trust_in_truth(scales, objective.truth_reach),
            timesteps=t,
            gradient_norms=self._gradient_norms(distill, gt) if objective.mixer == "grad_norm" else None,
        )
        to_teacher, to_truth = self.mixer(inputs, self.accelerator)
        share = to_teacher / (to_teacher + to_truth)
        return {
            "loss": (to_teacher * distill + to_truth * gt).mean(),
            "distill": distill.mean(),
            "gt": gt.mean(),
            "teacher_error": inputs.teacher_error.mean(),
            "lambda_mean": share.mean(),
            "lambda_spread": share.std(correction=0),
        }

    def _gradient_norms(self, distill: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
        """Norms of the gradients of both mean losses at the last layer, over all processes."""
        last: Any = self.student.denoising_unet.conv_out.weight
        both = [torch.autograd.grad(loss.mean(), last, retain_graph=True)[0] for loss in (distill, gt)]
        distill_norm, gt_norm = (self.accelerator.reduce(gradient, "mean").norm() for gradient in both)
        return distill_norm, gt_norm
