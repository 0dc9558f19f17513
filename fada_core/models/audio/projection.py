"""Projects the audio features around each frame to the audio tokens that the denoising UNet attends to."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...config import ModelConfig


def window_features(features: Tensor, window: int, rows: Tensor | None = None) -> Tensor:
    """(frames, layers, dim) -> (frames, window, layers, dim): the features of each frame and its neighbours.

    Frame i gets frames i - window // 2 .. i + window // 2 (`window` is odd); at the ends, the first or last frame is
    repeated.

    Args:
        rows: the frames to give, (n,) int64; default: all.
    """
    frames = features.shape[0]
    offsets = torch.arange(window, device=features.device) - window // 2
    rows = torch.arange(frames, device=features.device) if rows is None else rows
    return features[(rows[:, None] + offsets).clamp(0, frames - 1)]


def clip_windows(features: Tensor, start: int, frames: int, window: int) -> Tensor:
    """Windows for the frames of one clip, (1, frames, window, layers, dim), from the features of the whole recording.

    Windows extend beyond the clip; beyond the ends of the recording its first or last row is repeated.

    Args:
        features: of the whole recording, (n, layers, dim).
        start, frames: first frame and length of the clip.
        window: frames per window, odd.
    """
    reach = window // 2
    rows = torch.arange(start - reach, start + frames + reach, device=features.device).clamp(0, len(features) - 1)
    return window_features(features[rows], window)[None, reach : reach + frames]


class AudioProjection(nn.Module):
    """Three linear layers: (batch, frames, window, layers, dim) -> (batch, frames, audio_tokens, audio_token_dim)"""

    def __init__(self, config: ModelConfig, *, operations: Any = nn, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        condition, audio = config.condition, config.audio
        factory = {"device": device, "dtype": dtype}
        self.tokens = condition.audio_tokens
        self.activation = {"relu": F.relu, "silu": F.silu}[condition.audio_activation]
        dim = config.unet.audio_token_dim
        inputs = condition.audio_window * audio.layers * audio.dim
        self.proj1 = operations.Linear(inputs, condition.audio_hidden, **factory)
        self.proj2 = operations.Linear(condition.audio_hidden, condition.audio_hidden, **factory)
        self.proj3 = operations.Linear(condition.audio_hidden, self.tokens * dim, **factory)
        self.norm = operations.LayerNorm(dim, **factory)

    def forward(self, windows: Tensor) -> Tensor:
        hidden = self.activation(self.proj1(windows.flatten(2)))
        hidden = self.proj3(self.activation(self.proj2(hidden)))
        return self.norm(hidden.unflatten(-1, (self.tokens, -1)))
