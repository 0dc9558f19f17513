"""Denoise one clip: from noise to clean latents, step by step, every step guided."""

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
"""Called between steps with (finished steps, all steps, the clean latents that the last step expects
(frames, c, h, w)); whatever it raises ends the sampling."""


class DenoisingStep:
    """One step: a prediction of every branch, their weighted sum, and the solver's step where it is linear."""

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
            timesteps: t, once for each branch, (branches,) int64.
            alpha, sigma: the schedule's amplitudes at t, scalars.
            weights: of the branches in the guided prediction, (branches,) float32.
            conditioning: one row a branch.
            coefficients: `Solver.coefficients`, which make the solver's step part of this one; or None.

        Returns:
            The guided prediction, and the next x or None; both (1, frames, c, h, w) float32.
        """
        latents = x.expand(len(weights), -1, -1, -1, -1)
        guided = combine(self.networks.predict(latents, timesteps, alpha, sigma, conditioning), weights)[None]
        return guided, None if coefficients is None else coefficients[0] * x + coefficients[1] * guided


Step = Callable[..., tuple[Tensor, Tensor | None]]
"""A `DenoisingStep`, or the same compiled or recorded (`speed.compute`)."""


class Denoiser:
    """What sampling computes with: the networks, their noise schedule, and the two computations that repeat.

    Args:
        step: default `DenoisingStep`; `speed.compute` gives faster ones.
        decode: latents (n, c, h, w) to pictures; default the autoencoder's.
    """

    def __init__(
        self, networks: Networks, step: Step | None = None, decode: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self.networks = networks
        self.schedule = NoiseSchedule(networks.config.schedule)
        self.step: Step = step or DenoisingStep(networks)
        self.decode = decode or (lambda latents: networks.vae.decode(latents))


class Clip(NamedTuple):
    """Clean latents, and the forward passes that they took, counted per branch."""

    latents: Tensor  #: (1, frames, c, h, w) float32
    nfe: int  #: passes since the clip before
    nfe_per_clip: int
    """Passes of `clip_frames` frames through all steps: `nfe`, except where clips overlap and share passes."""


@torch.no_grad()
def prepare_subject(
    networks: Networks,
    portrait: Tensor,
    identity: Tensor | None = None,
    face_box: Tensor | None = None,
    masks: Masks | None = None,
) -> Subject:
    """A `Subject` with its portrait's features; arguments as its fields."""
    features = None
    if not networks.config.hallo_compat:  # there they depend on the rest of the batch
        features = portrait_features(networks, portrait, identity)
    return Subject(portrait, identity, face_box, masks, features)


@torch.no_grad()
def start_noise(portrait: Tensor, frames: int, generator: torch.Generator) -> Tensor:
    """Where the sampling of `frames` frames of the portrait (1, c, h, w) begins, (1, frames, c, h, w) float32."""
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
        motion: latents of the frames before, (1, motion_frames, c, h, w).
        audio: audio features around each frame, (1, frames, window, layers, dim).
        generator: on the CPU; the start noise is drawn there in float32, so that it is the same for any device.

    Raises:
        FadaError: unknown solver, impossible number of steps.
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
    """Branches that are computed together."""

    weights: Tensor  #: (branches,)
    conditioning: ClipConditioning


class GuidedClip:
    """Guided predictions for the frames of one clip; the conditioning of all branches is computed once.

    Arguments as for `sample_clip`. `nfe` counts forward passes, per branch.
    """

    def __init__(
        self, denoiser: Denoiser, subject: Subject, motion: Tensor, audio: Tensor, settings: SamplingSettings
    ) -> None:
        self.denoiser, self.subject, self.settings = denoiser, subject, settings
        self.inputs = subject.clip(motion, audio, settings.region_weights)
        self.nfe = 0
        self._batches: dict[bool, list[_BranchBatch]] = {}

    def _branches_at(self, t: int) -> list[_BranchBatch]:
        """The branches that timestep t takes."""
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
        """v or noise (the config's `prediction`) for x_t, and the next x; all (1, frames, c, h, w) float32.

        Args:
            coefficients: `Solver.coefficients`. Without them, and where branches are computed one after the other, the
                next x is None.
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
