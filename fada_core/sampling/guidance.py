"""Classifier-free guidance over two conditions, reference and audio: branches, their inputs, weights and sum.

    e = e_base + ref_cfg (e_ref - e_base) + audio_cfg (e_audio - e_ref)

base has neither reference nor audio as input, ref the reference only, audio both. A scale of 1 means no guidance.
Sampler, distillation and benchmark all use this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from ..models.inputs import ClipInputs, ReferenceFeatures
from ..models.networks import ClipConditioning, Networks
from ..settings import SamplingSettings

Scale = TypeVar("Scale", float, Tensor)


class Branch(NamedTuple):
    """One conditional prediction."""

    name: str
    drop_reference: bool
    drop_audio: bool
    scales: tuple[float, float]
    """The (ref_cfg, audio_cfg) for which the guided prediction equals this one; a student takes them as input."""


BASE = Branch("base", True, True, (0.0, 0.0))
REF = Branch("ref", False, True, (1.0, 0.0))
AUDIO = Branch("audio", False, False, (1.0, 1.0))
BRANCHES = (BASE, REF, AUDIO)


def branch_weights(ref_cfg: Scale, audio_cfg: Scale) -> tuple[Scale, Scale, Scale]:
    """Weights of base, ref and audio in the sum above; they add up to 1."""
    return 1 - ref_cfg, ref_cfg - audio_cfg, audio_cfg


def branches(ref_cfg: float, audio_cfg: float) -> dict[Branch, float]:
    """The branches that these scales need, with their weights.

    Branches of weight 0 are left out: scales (1, 1) need the audio branch only; equal scales need no ref branch, which
    is ordinary guidance with two branches.
    """
    weights = branch_weights(ref_cfg, audio_cfg)
    return {branch: weight for branch, weight in zip(BRANCHES, weights, strict=True) if weight}


def one_pass(ref_cfg: float, audio_cfg: float) -> dict[Branch, float]:
    """The single branch of a student that predicts the guided result for these scales directly."""
    return {Branch("tokens", False, False, (ref_cfg, audio_cfg)): 1.0}


def branches_of(settings: SamplingSettings, *, guided: bool = True) -> dict[Branch, float]:
    """The branches of one step, with their weights.

    Args:
        guided: whether the step lies within the guidance interval; otherwise both scales are 1.
    """
    scales = (settings.ref_cfg, settings.audio_cfg) if guided else (1.0, 1.0)
    return one_pass(*scales) if settings.one_pass else branches(*scales)


def evaluations(settings: SamplingSettings) -> int:
    """Forward passes of the UNet, counted per branch, for a clip with guidance in all steps."""
    return settings.steps * len(branches_of(settings))


def combine(predictions: Tensor, weights: Tensor) -> Tensor:
    """The guided prediction: the weighted sum over the branches.

    Args:
        predictions: (branches, ...).
        weights: (branches,), or (branches, batch) if each sample has its own scales.
    """
    return (weights.reshape(weights.shape + (1,) * (predictions.ndim - weights.ndim)) * predictions).sum(0)


def portrait_features(networks: Networks, portrait: Tensor, identity: Tensor | None) -> ReferenceFeatures:
    """The reference UNet's features of portraits, for each kind of row that a branch may need.

    Args:
        portrait: latents, (batch, c, h, w).
        identity: face embeddings, (batch, identity_dim), or None.

    Returns:
        Features of shape (kinds * batch, h*w, c). There are two kinds of rows, without and with identity tokens; or
        one, if the model takes no identity.
    """
    no_motion = portrait.new_zeros(len(portrait), 0, *portrait.shape[1:])
    return _reference_features(networks, portrait, no_motion, identity)


def condition_branches(
    networks: Networks, clip: ClipInputs, used: Sequence[Branch], features: ReferenceFeatures | None = None
) -> ClipConditioning:
    """Conditioning of several branches: all rows of `clip` for the first branch, then all for the second, and so on.

    Reference features of portraits and motion frames are computed once for all branches.

    Args:
        features: of the portraits, from `portrait_features`; computed here if None.
    """
    batch, device = len(clip), clip.portrait.device
    rows = replace(
        clip.repeat(len(used)),
        drop_reference=torch.tensor([branch.drop_reference for branch in used], device=device).repeat_interleave(batch),
        drop_audio=torch.tensor([branch.drop_audio for branch in used], device=device).repeat_interleave(batch),
        scales=torch.tensor([branch.scales for branch in used], device=device).repeat_interleave(batch, 0),
    )
    if networks.config.hallo_compat:  # a row's features then depend on the other rows of the batch
        return networks.condition(rows)
    portrait = clip.portrait if features is None else features
    features = _reference_features(networks, portrait, clip.motion, clip.identity)
    kinds = len(_identity_hidden(networks))
    kind_of = [0 if branch.drop_reference else kinds - 1 for branch in used]
    features = {name: value.unflatten(0, (kinds, -1))[kind_of].flatten(0, 1) for name, value in features.items()}
    return networks.condition(rows, features)


def _identity_hidden(networks: Networks) -> tuple[bool, ...]:
    """The kinds of reference rows: for each, whether the identity is hidden."""
    return (True, False) if networks.imageproj is not None else (False,)


def _reference_features(
    networks: Networks, portrait: Tensor | ReferenceFeatures, motion: Tensor, identity: Tensor | None
) -> ReferenceFeatures:
    """`Networks.reference_features` for each kind of row; `portrait` may be features that already cover all kinds."""
    kinds = _identity_hidden(networks)

    def of_each_kind(value: Tensor) -> Tensor:
        return value.repeat(len(kinds), *(1,) * (value.ndim - 1))

    hidden = torch.tensor(kinds, device=motion.device).repeat_interleave(len(motion))
    tokens = networks.image_tokens(None if identity is None else of_each_kind(identity), hidden)
    if isinstance(portrait, Tensor):
        portrait = of_each_kind(portrait)
    return networks.reference_features(portrait, of_each_kind(motion), tokens)
