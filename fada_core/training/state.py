"""The state of a training on disk: one safetensors file per save, whole or not there, with the newest few kept.

The file holds whole tensors, so that a run of one process, of several, and of sharded parameters resume one another.
Its metadata holds the step, the settings of the training, and a checksum over everything: a state that a full disk, a
power cut or a copy has damaged is noticed, and the one before it is gone back to.

Random draws need no state: every step seeds its own generator from (seed, step, process), see `loop.py`.
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
_DAMAGED = ".damaged"  #: what the name of a state gets that is not whole; removed when a new one is written


def saved_states(folder: Path) -> list[tuple[int, Path]]:
    """(step, file) of every state in `folder`, oldest first."""
    found = ((_PATTERN.fullmatch(path.name), path) for path in folder.glob("state-*.safetensors"))
    return sorted((int(match[1]), path) for match, path in found if match)


def newest_whole(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest state that is whole, and the settings of its training; None where there is no state at all.

    Newer ones that are damaged are put aside and logged.

    Raises:
        FadaError: there are states, and none is whole; one cannot be read, or is of an older version.
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
            f"No state in '{folder}' is whole ({path.name}: {reason}); delete them to begin anew, or choose another "
            "--out."
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
    """Write model, optimiser and EMA after `step` steps; a kill at any moment leaves the older files whole.

    Every process has to call it; the main one writes.

    Raises:
        FadaError: the disk is full, or the folder cannot be written to.
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
    """Restore a whole state, in place, on every process; returns the number of steps done."""
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


class _DamagedError(Exception):
    """Why a state is not whole."""


def _metadata(path: Path, step: int) -> dict[str, str]:
    """A state's metadata, after every byte of it was read and compared with its checksum."""
    try:
        with path.open("rb"):  # of what safetensors says, nobody could tell this from damage
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
    """Of metadata, names, types, shapes and bytes, as eight hex digits (CRC-32)."""
    crc = zlib.crc32(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(names):
        value = tensor(name)
        crc = zlib.crc32(f"{name} {value.dtype} {list(value.shape)}".encode(), crc)
        crc = zlib.crc32(memoryview(value.reshape(-1).view(torch.uint8).numpy()), crc)
    return f"{crc:08x}"


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
