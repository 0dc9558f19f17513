"""The state of a training on disk: one safetensors file per save, atomic, with the newest few kept.

The file holds whole tensors, so that a run of one process, of several, and of sharded parameters resume one another.

Random draws need no state: every step seeds its own generator from (seed, step, process), see `loop.py`.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import FadaError
from .sharding import as_sharded, gather, shard_as, shards

_PATTERN = re.compile(r"state-(\d{8})\.safetensors")


def saved_states(folder: Path) -> list[tuple[int, Path]]:
    """(step, file) of every state in `folder`, oldest first."""
    found = ((_PATTERN.fullmatch(path.name), path) for path in folder.glob("state-*.safetensors"))
    return sorted((int(match[1]), path) for match, path in found if match)


def save_state(
    folder: Path,
    step: int,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: EMAModel,
    keep: int,
    accelerator: Accelerator,
) -> None:
    """Write model, optimiser and EMA after `step` steps; a kill at any moment leaves the older files whole.

    Every process has to call it; the main one writes.
    """
    parameters = _parameters(optimizer)
    tensors: dict[str, Tensor] = {f"model.{name}": value for name, value in module.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
    shadows = zip(ema.shadow_params, parameters, strict=True)
    tensors |= {f"ema.{index}": as_sharded(shadow, parameter) for index, (shadow, parameter) in enumerate(shadows)}
    tensors = gather(tensors, accelerator)
    if not accelerator.is_main_process:
        return
    metadata = {"step": str(step), "ema": json.dumps({"optimization_step": ema.optimization_step})}
    path = folder / f"state-{step:08d}.safetensors"
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata)
    os.replace(partial, path)
    for _, old in saved_states(folder)[:-keep]:
        old.unlink()


@torch.no_grad()
def load_state(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, ema: EMAModel) -> int:
    """Restore what `save_state` wrote, in place, on every process; returns the number of steps done."""
    parameters = _parameters(optimizer)
    own = {f"model.{name}": value for name, value in module.state_dict().items()}
    with safe_open(path, "pt") as file:
        names = sorted(file.keys())
        saved = {name: file.get_slice(name).get_shape() for name in names if name.startswith("model.")}
        if saved != {name: list(value.shape) for name, value in own.items()}:
            raise FadaError(f"{path} belongs to a training of other networks; choose another --out or delete the file.")
        for name, value in own.items():
            value.copy_(shard_as(file.get_tensor(name), value))
        state: dict[int, dict[str, Tensor]] = {}
        for name in names:
            if name.startswith("optimizer."):
                _, index, key = name.split(".", 2)
                value, parameter = file.get_tensor(name), parameters[int(index)]
                if value.shape == parameter.shape:
                    # The fused optimiser walks through memory: moments need their parameter's layout (channels_last).
                    value = shard_as(value, parameter)
                state.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        for index, (shadow, parameter) in enumerate(zip(ema.shadow_params, parameters, strict=True)):
            shadow.copy_(*shards([shard_as(file.get_tensor(f"ema.{index}"), parameter)]))
        metadata = file.metadata()
    ema.optimization_step = json.loads(metadata["ema"])["optimization_step"]
    return int(metadata["step"])


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
