"""Denoises one clip from noise to clean latents, with guidance in each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import FadaError
from ..models.inputs import Masks, Subject
from ..models.networks import ClipConditioning, Networks
from ..settings import SamplingSettings
from .guidance import branches_of, combine, condition_branches, portrait_features
from .schedule import NoiseSchedule
from .solvers import build_solver

Callback = Callable[[int, int, Tensor], None]
"""Called after each step with (finished steps, number of steps, the step's prediction of the clean latents, (frames, c,
h, w)); an exception that it raises ends the sampling."""


class DenoisingStep:
    """One step: the prediction of each branch, their weighted sum, and the solver's step if it is linear."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks

    def __call__(
        self,
        x: Tensor,
        timesteps: Tensor,
        alpha: Tensor,
        sigma: Tensor,
        weights: Tensor,
        conditioning: ClipConditioning,
        coefficients: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """
        Args:
            x: x_t of one video, (1, frames, c, h, w) float32.
            timesteps: t, repeated for each branch, (branches,) int64.
            alpha, sigma: the schedule's amplitudes at t, scalars.
            weights: of the branches in the guided prediction, (branches,) float32.
            conditioning: one row per branch.
            coefficients: of the solver's step (`Solver.coefficients`), or None to leave the step to the solver.

        Returns:
            The guided prediction, and the next x (None without coefficients); both (1, frames, c, h, w) float32.
        """
        latents = x.expand(len(weights), -1, -1, -1, -1)
        guided = combine(self.networks.predict(latents, timesteps, alpha, sigma, conditioning), weights)[None]
        return guided, None if coefficients is None else coefficients[0] * x + coefficients[1] * guided


Step = Callable[..., tuple[Tensor, Tensor | None]]
"""A `DenoisingStep`, or a compiled or recorded one (`speed.compute`)."""


class Denoiser:
    """The networks, their noise schedule, and the two repeated computations: denoising step and decoding.

    Args:
        step: default `DenoisingStep`; `speed.compute` builds faster ones.
        decode: latents (n, c, h, w) to pictures; default: the autoencoder's `decode`.
    """

    def __init__(
        self, networks: Networks, step: Step | None = None, decode: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self.networks = networks
        self.schedule = NoiseSchedule(networks.config.schedule)
        self.step: Step = step or DenoisingStep(networks)
        self.decode = decode or (lambda latents: networks.vae.decode(latents))


class Clip(NamedTuple):
    """Clean latents, and the number of forward passes for them, counted per branch."""

    latents: Tensor  #: (1, frames, c, h, w) float32
    nfe: int  #: forward passes since the previous clip
    nfe_per_clip: int
    """Forward passes of one window of `clip_frames` frames through all steps: equal to `nfe` unless clips overlap."""


@torch.no_grad()
def prepare_subject(
    networks: Networks,
    portrait: Tensor,
    identity: Tensor | None = None,
    face_box: Tensor | None = None,
    masks: Masks | None = None,
) -> Subject:
    """Make a `Subject` and compute the reference features of its portrait; arguments are the fields of `Subject`."""
    features = None
    if not networks.config.hallo_compat:  # with hallo_compat, they depend on the other rows of the batch
        features = portrait_features(networks, portrait, identity)
    return Subject(portrait, identity, face_box, masks, features)


@torch.no_grad()
def start_noise(portrait: Tensor, frames: int, generator: torch.Generator) -> Tensor:
    """The initial noise of `frames` frames, (1, frames, c, h, w) float32, shaped and placed like the portrait.

    It is drawn on the CPU, so that it is the same for every device.
    """
    noise = torch.randn((1, frames, *portrait.shape[1:]), generator=generator, dtype=torch.float32)
    return noise.to(portrait.device)


def sample_clip(
    denoiser: Denoiser,
    subject: Subject,
    motion: Tensor,
    audio: Tensor,
    settings: SamplingSettings,
    generator: torch.Generator,
    callback: Callback | None = None,
) -> Clip:
    """Sample the latents of one clip.

    Args:
        motion: latents of the previous frames, (1, motion_frames, c, h, w).
        audio: audio features around each frame, (1, frames, window, layers, dim).
        generator: of the initial noise, on the CPU.

    Raises:
        FadaError: the solver is unknown, or the number of steps is out of range.
    """
    schedule = denoiser.schedule
    clip = GuidedClip(denoiser, subject, motion, audio, settings)
    solver = build_solver(schedule, settings.steps, settings.solver)
    x = start_noise(subject.portrait, audio.shape[1], generator)
    for done, t in enumerate(solver.timesteps, start=1):
        prediction, following = clip.step(x, t, solver.coefficients(t, x.device))
        noisy, x = x, solver.step(prediction, t, x) if following is None else following
        if callback:
            callback(done, len(solver.timesteps), schedule.to_x0(noisy, prediction, t)[0])
    return Clip(x, clip.nfe, clip.nfe)


class _BranchBatch(NamedTuple):
    """Branches that are computed in one batch."""

    weights: Tensor  #: (branches,)
    conditioning: ClipConditioning


class GuidedClip:
    """Guided predictions for one clip; the conditioning of all branches is computed once, at the first step.

    Arguments are those of `sample_clip`. `nfe` counts forward passes, per branch.
    """

    def __init__(
        self, denoiser: Denoiser, subject: Subject, motion: Tensor, audio: Tensor, settings: SamplingSettings
    ) -> None:
        self.denoiser, self.subject, self.settings = denoiser, subject, settings
        self.inputs = subject.clip(motion, audio, settings.region_weights)
        self.nfe = 0
        self._batches: dict[bool, list[_BranchBatch]] = {}

    def _branches_at(self, t: int) -> list[_BranchBatch]:
        """The branches of timestep t, in batches; outside the guidance interval there are fewer."""
        networks, (low, high) = self.denoiser.networks, self.settings.guidance_interval
        guided = low <= (t + 1) / networks.config.schedule.train_timesteps <= high
        if guided not in self._batches:
            used = list(branches_of(self.settings, guided=guided).items())
            batches = [used] if self.settings.batch_branches else [[each] for each in used]
            if networks.config.hallo_compat and len(batches) > 1:
                raise FadaError(
                    "hallo_compat mixes the rows of a batch, so it needs batch_branches; turn one of them off."
                )
            self._batches[guided] = [
                _BranchBatch(
                    torch.tensor([weight for _, weight in batch], device=self.inputs.portrait.device),
                    condition_branches(
                        networks, self.inputs, [branch for branch, _ in batch], self.subject.portrait_features
                    ),
                )
                for batch in batches
            ]
        return self._batches[guided]

    @torch.no_grad()
    def step(self, x: Tensor, t: int, coefficients: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The guided prediction (v or noise, by the config) for x_t, and the next x; all (1, frames, c, h, w) float32.

        Args:
            coefficients: `Solver.coefficients`. Without them, or if branches are computed one after the other, the next
                x is None, and the caller has to take the solver's step.
        """
        batches = self._branches_at(t)
        if len(batches) > 1:
            coefficients = None
        alpha, sigma = self.denoiser.schedule.alpha_sigma(t, x.device)
        parts, following = [], None
        for weights, conditioning in batches:
            timesteps = torch.full((len(weights),), t, device=x.device)
            part, following = self.denoiser.step(x, timesteps, alpha, sigma, weights, conditioning, coefficients)
            parts.append(part)
            self.nfe += len(weights)
        return sum(parts[1:], start=parts[0]), following
