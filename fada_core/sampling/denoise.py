"""Denoise one clip: all conditional branches, guided, from noise to clean latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import FadaError
from ..models.networks import Networks, ReferenceFeatures
from ..models.unet import Conditioning
from .guidance import Branch, branches, one_pass
from .schedule import NoiseSchedule
from .solvers import build_solver

Callback = Callable[[int, int, Tensor], None]
"""Called between steps with (finished steps, all steps, the clean latents that the last step expects
(frames, c, h, w)); whatever it raises ends the sampling."""


Masks = Sequence[Sequence[Tensor]]
"""Where each audio region works: masks[level][region], (1, h*w, 1) in 0..1."""


@dataclass(frozen=True)
class SamplingSettings:
    """How to denoise. The defaults are the paper's teacher: 25 steps x 3 branches = 75 NFE."""

    steps: int = 25
    ref_cfg: float = 2.0  #: reference guidance, 1 = none
    audio_cfg: float = 6.5  #: audio guidance, 1 = none
    one_pass: bool = False
    """Students only: the scales go into the network as CFG tokens, which makes one pass of the three."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Where the scales apply, in parts of the schedule from 0 (clean) to 1 (noise); elsewhere both are 1, which takes
    the audio branch alone (Kynkaanniemi et al. 2404.07724)."""
    solver: str = "ddim"  #: one of `solvers.SOLVERS`
    region_weights: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Strength of the audio in each of the model's audio regions (Hallo: whole picture, face, lips)."""
    batch_branches: bool = True  #: False: one branch after the other, slower, with less memory; same result

    @property
    def evaluations(self) -> int:
        """Of the UNet, per branch, for a clip that is guided throughout."""
        return self.steps * len((one_pass if self.one_pass else branches)(self.ref_cfg, self.audio_cfg))


@dataclass(frozen=True, eq=False)
class Subject:
    """The person: what stays the same over all clips of a job. One batch row each."""

    portrait: Tensor  #: latents, (1, c, h, w) float32
    identity: Tensor | None = None  #: face embedding, (1, identity_dim)
    face_box: Tensor | None = None  #: face-box picture, (1, 3, size, size) in 0..1
    masks: Masks | None = None
    features: ReferenceFeatures | None = None
    """The portrait's own rows from the reference UNet, computed once: [identity hidden, identity shown], or a single
    row where the model has no identity tokens. None: computed for every clip."""


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
    """A `Subject` with its reference features; arguments as its fields."""
    features = None
    if not networks.config.hallo_compat:  # there, a portrait's features depend on the rest of the batch
        kinds = _identity_kinds(networks, portrait.device)
        tokens = networks.image_tokens(_repeat(identity, len(kinds)), kinds)
        no_motion = portrait.new_zeros(len(kinds), 0, *portrait.shape[1:])
        features = networks.reference_features(portrait.expand(len(kinds), -1, -1, -1), no_motion, tokens)
    return Subject(portrait, identity, face_box, masks, features)


@torch.no_grad()
def start_noise(portrait: Tensor, frames: int, generator: torch.Generator) -> Tensor:
    """Where the sampling of `frames` frames of the portrait (1, c, h, w) begins, (1, frames, c, h, w) float32."""
    noise = torch.randn((1, frames, *portrait.shape[1:]), generator=generator, dtype=torch.float32)
    return noise.to(portrait.device)


def sample_clip(
    networks: Networks,
    schedule: NoiseSchedule,
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
    guided = Guided(networks, schedule, subject, motion, audio, settings)
    solver = build_solver(schedule, settings.steps, settings.solver)
    x = start_noise(subject.portrait, audio.shape[1], generator)
    for done, t in enumerate(solver.timesteps, start=1):
        prediction, following = guided.step(x, t, solver.line(t, x.device))
        expected = schedule.to_x0(x, prediction, t)[0] if callback else None
        x = solver.step(prediction, t, x) if following is None else following
        if callback:
            callback(done, len(solver.timesteps), expected)
    return Clip(x, guided.nfe, guided.nfe)


class _Group(NamedTuple):
    """Branches that are computed together."""

    weights: Tensor  #: of the branches, (branches,)
    conditioning: Conditioning


class Guided:
    """The guided prediction for some frames: all its branches, their conditions computed once.

    Arguments as for `sample_clip`. `nfe` counts forward passes, per branch.
    """

    def __init__(
        self,
        networks: Networks,
        schedule: NoiseSchedule,
        subject: Subject,
        motion: Tensor,
        audio: Tensor,
        settings: SamplingSettings,
    ) -> None:
        self.networks, self.schedule, self.subject = networks, schedule, subject
        self.motion, self.audio, self.settings = motion, audio, settings
        self.nfe = 0
        self._plans: dict[tuple[float, float], list[_Group]] = {}

    def _plan(self, t: int) -> list[_Group]:
        """The branches at timestep t."""
        settings, (low, high) = self.settings, self.settings.guidance_interval
        inside = low <= (t + 1) / self.schedule.config.train_timesteps <= high
        scales = (settings.ref_cfg, settings.audio_cfg) if inside else (1.0, 1.0)
        if scales not in self._plans:
            used = (one_pass if settings.one_pass else branches)(*scales)
            groups = [used] if settings.batch_branches else [[branch] for branch in used]
            if self.networks.config.hallo_compat and len(groups) > 1:
                raise FadaError(
                    "hallo_compat mixes the rows of a batch, so it needs batch_branches; turn one of them off."
                )
            weights = settings.region_weights
            self._plans[scales] = _condition(self.networks, self.subject, self.motion, self.audio, groups, weights)
        return self._plans[scales]

    @torch.no_grad()
    def step(self, x: Tensor, t: int, line: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """v or noise (the config's `prediction`) for x_t, and the next x; all (1, frames, c, h, w) float32.

        Args:
            line: `Solver.line`, which makes the solver's step part of the same graph. Without it, and where branches
                are computed one after the other, the next x is None.
        """
        groups = self._plan(t)
        if len(groups) > 1:
            line = None
        alpha, sigma = self.schedule.alpha_sigma(t, x.device)
        prediction, following = 0.0, None
        for weights, conditioning in groups:
            timesteps = torch.full((len(weights),), t, device=x.device)
            part, following = self.networks.guided_step(
                x, timesteps, alpha, sigma, weights, self.subject.portrait, conditioning, line
            )
            prediction = prediction + part
            self.nfe += len(weights)
        return prediction, following


def _identity_kinds(networks: Networks, device: torch.device) -> Tensor:
    """Whether the identity is hidden, for each kind of reference row that guidance may ask for."""
    return torch.tensor([True, False] if networks.imageproj is not None else [False], device=device)


def _repeat(value: Tensor | None, batch: int) -> Tensor | None:
    return None if value is None else value.expand(batch, *value.shape[1:])


def _condition(
    networks: Networks,
    subject: Subject,
    motion: Tensor,
    audio: Tensor,
    groups: Sequence[Sequence[Branch]],
    region_weights: tuple[float, ...],
) -> list[_Group]:
    """What every group of branches is computed with, constant over the steps."""
    device = subject.portrait.device
    shared = None
    if subject.features is not None:
        kinds = _identity_kinds(networks, device)
        tokens = networks.image_tokens(_repeat(subject.identity, len(kinds)), kinds)
        shared = networks.reference_features(subject.features, _repeat(motion, len(kinds)), tokens)
    conditioned = []
    for group in groups:
        batch = len(group)
        drop_reference = torch.tensor([branch.drop_reference for branch in group], device=device)
        drop_audio = torch.tensor([branch.drop_audio for branch in group], device=device)
        tokens = networks.image_tokens(_repeat(subject.identity, batch), drop_reference)
        portraits = _repeat(subject.portrait, batch)
        if shared is None:
            features = networks.reference_features(portraits, _repeat(motion, batch), tokens)
        else:
            # The last kind shows the identity; where there is no other, it serves every branch.
            rows = 1 + motion.shape[1]
            hidden = 0 if networks.imageproj is not None else -1
            order = [hidden if branch.drop_reference else -1 for branch in group]
            features = {name: value.unflatten(0, (-1, rows))[order].flatten(0, 1) for name, value in shared.items()}
        conditioning = networks.condition_features(
            features,
            portraits,
            _repeat(motion, batch),
            tokens,
            _repeat(audio, batch),
            drop_reference=drop_reference,
            drop_audio=drop_audio,
            face_box=_repeat(subject.face_box, batch),
            scales=torch.tensor([branch.scales for branch in group], device=device),
            masks=subject.masks,
            region_weights=region_weights,
        )
        conditioned.append(_Group(torch.tensor([branch.weight for branch in group], device=device), conditioning))
    return conditioned
