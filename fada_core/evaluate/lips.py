"""A measure of lip movement that is independent of the training loss: a small regressor of mouth openness."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).with_name("lips.safetensors")
MAX_OFFSET = 5  #: largest lag, in frames, of `correlation_and_offset`


class LipsRegressor(nn.Module):
    """Mouth openness (0 closed .. 1 widest) of rendered people: `(n, 3, h, w)` in -1..1 -> `(n,)`."""

    widths = (24, 32, 48, 64)

    def __init__(self, operations: Any = nn) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width in self.widths:
            layers += [
                operations.Conv2d(before, width, 3, stride=2, padding=1),
                operations.GroupNorm(8, width),
                nn.SiLU(),
                operations.Conv2d(width, width, 3, padding=1),
                nn.SiLU(),
            ]
            before = width
        self.layers = nn.Sequential(*layers)
        self.head = operations.Linear(before * 16, 1)

    def forward(self, frames: Tensor) -> Tensor:
        # 64 px are enough for a mouth, and hide the texture in which generated and rendered pictures differ.
        small = F.interpolate(frames, size=(64, 64), mode="area")
        return self.head(self.layers(small).flatten(1)).squeeze(1)


def load_regressor(device: torch.device | str = "cpu") -> LipsRegressor:
    """The regressor with the weights that come with the project."""
    regressor = LipsRegressor()
    regressor.load_state_dict(load_file(WEIGHTS))
    return regressor.to(device).eval().requires_grad_(False)


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's r of two series (n,); NaN where one of them is constant."""
    return float(torch.corrcoef(torch.stack([a.double(), b.double()]))[0, 1])


def correlation_and_offset(openness: Tensor, truth: Tensor) -> tuple[float, int]:
    """Pearson's r at lag 0, and the lag in frames with the highest r (positive: the video is late)."""
    n = len(truth)
    shifted = {
        lag: correlation(openness[max(0, lag) : n + min(0, lag)], truth[max(0, -lag) : n + min(0, -lag)])
        for lag in range(-MAX_OFFSET, MAX_OFFSET + 1)
    }
    return shifted[0], max(shifted, key=shifted.__getitem__)
