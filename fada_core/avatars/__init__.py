"""Procedural talking people: a free data set of any size, with ground truth for every frame."""

from .clip import AvatarClip, Utterance, sample, utter
from .performance import Pool

__all__ = ["AvatarClip", "Pool", "Utterance", "sample", "utter"]
