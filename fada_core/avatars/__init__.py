"""Talking people who do not exist: an endless, free data set with the truth of every frame."""

from .clip import AvatarClip, Utterance, sample, utter
from .performance import Pool

__all__ = ["AvatarClip", "Pool", "Utterance", "sample", "utter"]
