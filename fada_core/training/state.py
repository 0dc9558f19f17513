"""The state of a training on disk: one safetensors file per save, atomic, with the newest few kept.

Random draws need no state: every step seeds its own generator from (seed, step, process), see `loop.py`.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import FadaError

_PATTERN = re.compile(r"state-(\d{8})\.safetensors")


def saved_states(folder: Path) -> list[tuple[int, Path]]:
    """(step, file) of every state in `folder`, oldest first."""
    found = ((_PATTERN.fullmatch(path.name), path) for path in folder.glob("state-*.safetensors"))
    return sorted((int(match[1]), path) for match, path in found if match)


def save_state(
    folder: Path, step: int, module: nn.Module, optimizer: torch.optim.Optimizer, ema: EMAModel, keep: int
) -> Path:
    """Write model, optimiser and EMA after `step` steps; a kill at any moment leaves the older files whole."""
    tensors: dict[str, Tensor] = {f"model.{name}": value for name, value in module.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
    tensors |= {f"ema.{index}": value for index, value in enumerate(ema.shadow_params)}
    metadata = {"step": str(step), "ema": json.dumps({"optimization_step": ema.optimization_step})}
    path = folder / f"state-{step:08d}.safetensors"
    partial = path.with_suffix(".partial")
    save_file({name: value.detach().contiguous().cpu() for name, value in tensors.items()}, partial, metadata)
    os.replace(partial, path)
    for _, old in saved_states(folder)[:-keep]:
        old.unlink()
    return path


@torch.no_grad()
def load_state(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, ema: EMAModel) -> int:
    """Restore what `save_state` wrote, in place; returns the number of steps done."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    model = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    if _shapes(model) != _shapes(module.state_dict()):
        raise FadaError(f"{path} belongs to a training of other networks; choose another --out or delete the file.")
    module.load_state_dict(model)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            parameter = parameters[int(index)]
            if value.shape == parameter.shape:
                # The fused optimiser walks through memory: moments need their parameter's layout (channels_last).
                value = torch.empty_like(parameter).copy_(value)
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for index, shadow in enumerate(ema.shadow_params):
        shadow.copy_(tensors[f"ema.{index}"])
    ema.optimization_step = json.loads(metadata["ema"])["optimization_step"]
    return int(metadata["step"])


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in tensors.items()}
