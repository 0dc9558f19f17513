"""Guidance over two conditions, reference and audio: which predictions it takes, and how they are combined.

    e = e_base + ref_cfg (e_ref - e_base) + audio_cfg (e_audio - e_ref)

base sees neither reference nor audio, ref the reference only, audio both. A scale of 1 means no guidance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Branch(NamedTuple):
    """One conditional prediction and its factor in the guided one."""

    name: str
    weight: float
    drop_reference: bool
    drop_audio: bool
    scales: tuple[float, float]
    """What a student is told, ref_cfg and audio_cfg: for the three predictions the scales at which guidance is this
    prediction alone."""


def branches(ref_cfg: float, audio_cfg: float) -> list[Branch]:
    """The predictions that the two scales need, base (no reference) first; factors add up to 1.

    A prediction with factor 0 is left out: scales (1, 1) take the audio branch alone, equal scales skip the ref branch
    and are then ordinary two-branch guidance.
    """
    every = [
        Branch("base", 1 - ref_cfg, True, True, (0.0, 0.0)),
        Branch("ref", ref_cfg - audio_cfg, False, True, (1.0, 0.0)),
        Branch("audio", audio_cfg, False, False, (1.0, 1.0)),
    ]
    return [branch for branch in every if branch.weight != 0]


def one_pass(ref_cfg: float, audio_cfg: float) -> list[Branch]:
    """The single prediction of a student that has learned the whole combination, for these scales."""
    return [Branch("tokens", 1.0, False, False, (ref_cfg, audio_cfg))]


def combine(predictions: Sequence[Tensor], used: Sequence[Branch]) -> Tensor:
    """The guided prediction from one prediction per branch (equal shapes), in the order of `used`."""
    guided = used[0].weight * predictions[0]
    for branch, prediction in zip(used[1:], predictions[1:], strict=True):
        guided = guided + branch.weight * prediction
    return guided
