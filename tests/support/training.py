"""A training that takes milliseconds, and its log and states."""

from __future__ import annotations

import math
import signal
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn

from fada_core.models.attention import FeedForward
from fada_core.training import LoopConfig, train
from fada_core.training.state import saved_states

NEVER = float("inf")
SETTINGS = LoopConfig(steps=12, save_every=4, log_every=1, preview_every=100, warmup_steps=2)


class Regression:
    """Learns running sums of random inputs; `slow` seconds a step, a NaN at step `poison`, a spike at `spike`, a
    signal to end after step `stop`."""

    def __init__(self, slow: float = 0.0, poison: int = -1, spike: int = -2, stop: int = 0) -> None:
        torch.manual_seed(0)
        self.module: nn.Module = FeedForward(4, 4)
        self.slow, self.poison, self.spike, self.stop, self.batch = slow, poison, spike, stop, 2
        self.previews: list[int] = []

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.module.parameters())}]

    def settings(self) -> dict[str, Any]:
        return {"clips": 2}

    def describe(self) -> str:
        return "samples a, b"

    def losses(self, module: nn.Module, step: int, generators: list[torch.Generator]) -> dict[str, Tensor]:
        time.sleep(self.slow)
        if step == self.stop - 1:
            signal.raise_signal(signal.SIGTERM)
        x = torch.cat([torch.randn(8, 4, generator=generator) for generator in generators])
        loss = (module(x) - x.cumsum(1)).square().mean()
        factor = {self.poison: math.nan, self.spike: 1e4}.get(step, 1.0)
        return {"loss": loss * factor}

    def preview(self, folder: Path, step: int) -> None:
        self.previews.append(step)


def run(task: Regression, settings: LoopConfig, folder: Path, deadline: float = NEVER) -> bool:
    return train(task, settings, folder, Accelerator(cpu=True), deadline)


def column(folder: Path, name: str) -> list[str]:
    header, *rows = [line.split(",") for line in (folder / "log.csv").read_text().splitlines()]
    return [row[header.index(name)] for row in rows]


def state_of(folder: Path) -> dict[str, Tensor]:
    return load_file(saved_states(folder)[-1][1])


def assert_same_state(a: Path, b: Path) -> None:
    first, second = state_of(a), state_of(b)
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=0)
