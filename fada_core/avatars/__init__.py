"""Procedural talking avatars: an endless, free data set with the truth of every frame."""

from .clip import AvatarClip, Pool, sample
from .identity import Identity, sample_identity
from .render import render
from .speech import Phoneme, Speech, synthesize

__all__ = ["AvatarClip", "Identity", "Phoneme", "Pool", "Speech", "render", "sample", "sample_identity", "synthesize"]
