"""The state of a training on disk: one safetensors file per save, written atomically; the newest few are kept.

The file holds full tensors, so that a training can be resumed with another number of processes, sharded or not. Its
metadata holds the step, the settings of the training, and a checksum over everything: if a full disk, a power cut or
copying has damaged a state, this is detected, and the training resumes from the previous one.

Random draws need no state: generators are seeded from (seed, step, sample), see `loop.sample_generators`.
"""

from __future__ import annotations

import json
import logging
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..atomic import whole_file
from ..errors import FadaError
from .sharding import as_sharded, gather, shard_as, shards

log = logging.getLogger("fada.training")

_PATTERN = re.compile(r"state-(\d{8})\.safetensors")
_DAMAGED = ".damaged"  #: suffix of damaged states; these are deleted when the next state is written


def saved_states(folder: Path) -> list[tuple[int, Path]]:
    """(step, file) of each state in `folder`, oldest first."""
    found = ((_PATTERN.fullmatch(path.name), path) for path in folder.glob("state-*.safetensors"))
    return sorted((int(match[1]), path) for match, path in found if match)


def newest_whole(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest undamaged state and the settings of its training; None if there are no states.

    Newer, damaged states are renamed, which is logged.

    Raises:
        FadaError: all states are damaged, or one cannot be read or was written by an older version.
    """
    damaged: list[tuple[Path, str]] = []
    for step, path in reversed(saved_states(folder)):
        try:
            metadata = _metadata(path, step)
        except _DamagedError as error:
            damaged.append((path, str(error)))
            continue
        for other, reason in damaged:
            log.warning("%s is damaged (%s); going back to step %d", other.name, reason, step)
            other.replace(other.with_name(other.name + _DAMAGED))
        return path, json.loads(metadata["settings"])
    if damaged:
        path, reason = damaged[0]
        raise FadaError(
            f"All states in '{folder}' are damaged ({path.name}: {reason}); delete them to start again, or choose "
            "another --out."
        )
    return None


def save_state(
    folder: Path,
    step: int,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: EMAModel,
    settings: Mapping[str, Any],
    keep: int,
    accelerator: Accelerator,
) -> None:
    """Write model, optimiser and EMA after `step` steps, atomically, and delete all but the newest `keep` states.

    All processes have to call this; the main one writes.

    Raises:
        FadaError: the disk is full, or the folder cannot be written.
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
    metadata = {
        "step": str(step),
        "ema": json.dumps({"optimization_step": ema.optimization_step}),
        "settings": json.dumps(settings),
    }
    metadata["checksum"] = _checksum(metadata, tensors, tensors.__getitem__)
    path = folder / f"state-{step:08d}.safetensors"
    with whole_file(path, sum(value.nbytes for value in tensors.values())) as partial:
        save_file(tensors, partial, metadata)
    for _, old in saved_states(folder)[:-keep]:
        old.unlink()
    for left in folder.glob(f"state-*{_DAMAGED}"):
        left.unlink()


@torch.no_grad()
def load_state(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, ema: EMAModel) -> int:
    """Restore an undamaged state in place, on all processes; returns the number of steps done.

    Raises:
        FadaError: the state belongs to other networks.
    """
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
                    # The fused optimiser ignores strides: moments need the parameter's memory format (channels_last).
                    value = shard_as(value, parameter)
                state.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        for index, (shadow, parameter) in enumerate(zip(ema.shadow_params, parameters, strict=True)):
            shadow.copy_(shards([shard_as(file.get_tensor(f"ema.{index}"), parameter)])[0])
        metadata = file.metadata()
    ema.optimization_step = json.loads(metadata["ema"])["optimization_step"]
    return int(metadata["step"])


class _DamagedError(Exception):
    """A state is damaged; the text says in what way."""


def _metadata(path: Path, step: int) -> dict[str, str]:
    """A state's metadata, after checking its checksum, for which the whole file is read."""
    try:
        with path.open("rb"):  # safetensors raises the same error for files that cannot be read and damaged ones
            pass
    except OSError as error:
        raise FadaError(f"'{path}' cannot be read ({error.strerror}); correct that, or move the file away.") from error
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if "checksum" not in metadata and metadata.get("step") == str(step):
                raise FadaError(
                    f"'{path}' was written by an older version of FADA; finish the training with that, or choose "
                    "another --out."
                )
            found = metadata.pop("checksum", None)
            whole = found == _checksum(metadata, file.keys(), file.get_tensor)
    except SafetensorError as error:
        raise _DamagedError(str(error)) from error
    if not whole or metadata["step"] != str(step):
        raise _DamagedError("its checksum is wrong")
    return metadata


def _checksum(metadata: Mapping[str, str], names: Iterable[str], tensor: Callable[[str], Tensor]) -> str:
    """CRC-32 over metadata and the names, types, shapes and bytes of tensors, as eight hex digits."""
    crc = zlib.crc32(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(names):
        value = tensor(name)
        crc = zlib.crc32(f"{name} {value.dtype} {list(value.shape)}".encode(), crc)
        crc = zlib.crc32(value.reshape(-1).view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
