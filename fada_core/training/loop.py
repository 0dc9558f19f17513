"""The training loop, on accelerate: exact resume, EMA, previews, time limit, clean stop on SIGTERM."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import FadaError
from .folder import agreed, check_settings, locked
from .log import TrainingLog
from .sharding import fill, hollow_copy, prepare, shards, whole
from .state import load_state, newest_whole, save_state

EXPLOSION_AFTER = 50  #: steps after which the running mean of the loss is reliable
MAX_SEED = 10**8  #: keeps the seeds of all samples within 64 bits, see `sample_generators`
_RANGES: dict[str, tuple[float, float]] = {
    "steps": (1, 10**8),
    "learning_rate": (0, 10),
    "warmup_steps": (0, 10**8),
    "decay_share": (0, 1),
    "weight_decay": (0, 10),
    "beta2": (0, 0.999999),
    "max_grad_norm": (0, 1e9),
    "explosion": (0, 1e9),
    "ema_decay": (0, 1),
    "save_every": (1, 10**9),
    "keep_states": (1, 10**4),
    "preview_every": (1, 10**9),
    "log_every": (1, 10**9),
    "seed": (0, MAX_SEED),
}


@dataclass
class LoopConfig:
    """Settings of one training stage; those in `folder.MAY_CHANGE` may differ on resume.

    Raises:
        FadaError: a setting is out of range.
    """

    steps: int = 10_000
    """Total number of optimiser steps; may be changed on resume, which moves the end of the learning-rate schedule."""
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    decay_share: float = 0.4
    """Fraction of the steps, at the end, over which the learning rate falls to zero along a half cosine."""
    weight_decay: float = 0.01
    beta2: float = 0.99
    max_grad_norm: float = 3.0
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    """adamw8bit stores the moments in 8 bits; it needs the package bitsandbytes and a CUDA device."""
    explosion: float = 50.0
    """Stop if the loss exceeds its running mean by this factor (0: never)."""
    ema_decay: float = 0.998
    save_every: int = 200
    keep_states: int = 2
    preview_every: int = 500
    log_every: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise FadaError(f"{name} is {value:g}; give a number from {low:g} to {high:g}.")


class Task(Protocol):
    """A training stage, as the loop needs it."""

    module: nn.Module
    batch: int  #: samples per step and process

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for the optimiser: `params`, and optionally `scale` (a factor of the learning rate) and
        `weight_decay`."""

    def losses(self, module: nn.Module, step: int, generators: list[torch.Generator]) -> dict[str, Tensor]:
        """Scalar loss terms of a batch, with one generator per sample for all random draws. All terms are logged, and
        the one called `loss` is minimised."""

    def settings(self) -> dict[str, Any]:
        """Everything that the result depends on besides the loop's settings and the batch size, as JSON values."""

    def describe(self) -> str:
        """The samples of the latest batch, for the error message of a failed training."""

    def preview(self, folder: Path, step: int) -> None:
        """Write pictures of the current state. `self.module` then has the EMA weights and is not sharded."""


def learning_rate(config: LoopConfig, step: int) -> float:
    """The learning rate of a step: linear warm-up, constant, half cosine to zero over the last `decay_share`."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    decay_steps = max(1.0, config.steps * config.decay_share)
    left = min(1.0, (config.steps - step) / decay_steps)
    return config.learning_rate * warm * 0.5 * (1 - math.cos(math.pi * left))


def sample_generators(seed: int, step: int, first: int, count: int) -> list[torch.Generator]:
    """One generator for each of the samples `first` .. `first + count - 1` of a step.

    Samples are counted over all processes, so that a batch does not depend on the number of processes that share it.
    """
    start = (seed * 1_000_003 + step) * 65_537
    return [torch.Generator().manual_seed(start + first + i) for i in range(count)]


class _StopRequest:
    """Turns SIGTERM into a flag that the loop checks between steps, so that the state can be saved before the end."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> _StopRequest:
        self._previous = signal.signal(signal.SIGTERM, self._on_signal)
        return self

    def _on_signal(self, *_: object) -> None:
        self.requested = True

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._previous)


def train(task: Task, config: LoopConfig, folder: Path, accelerator: Accelerator, deadline: float) -> bool:
    """Train for `config.steps`, resuming from the newest state in `folder`; returns whether all steps are done.

    Afterwards `task.module` has the EMA weights. With FSDP2 it is then another object, on the CPU, with weights on the
    main process only.

    Args:
        deadline: value of `time.monotonic()` at which to save the state and stop.

    Raises:
        FadaError: the loss or gradient is not finite or the loss explodes (the message names the step, its samples and
            the last saved state); another training is running in `folder`, or the one there has other settings or no
            undamaged state; the disk is full.
    """
    with locked(folder, accelerator):
        return _train(task, config, folder, accelerator, deadline)


def _train(task: Task, config: LoopConfig, folder: Path, accelerator: Accelerator, deadline: float) -> bool:
    trained = [value for value in task.module.parameters() if value.requires_grad]
    settings = {
        **asdict(config),
        "batch": task.batch * accelerator.num_processes,
        "trained weights": f"{len(trained)} tensors of {sum(value.numel() for value in trained)} numbers",
        "precision": accelerator.mixed_precision,
        **task.settings(),
    }
    state = _state_to_go_on_from(folder, settings, accelerator)
    task.module.to(accelerator.device)
    hollow = hollow_copy(task.module) if accelerator.is_fsdp2 else None
    module, optimizer = prepare(accelerator, task.module, _optimizer(config, task.parameter_groups()))
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    ema = EMAModel(_local(parameters), decay=config.ema_decay, use_ema_warmup=True, power=0.75)
    first = 0 if state is None else load_state(state, task.module, optimizer.optimizer, ema)
    progress = tqdm(
        total=config.steps, initial=first, desc=folder.name, disable=not accelerator.is_main_process, mininterval=5
    )
    step, saved = first, first
    usual = 0.0  # running mean of the loss

    def save() -> None:
        save_state(folder, step, task.module, optimizer.optimizer, ema, settings, config.keep_states, accelerator)

    with _StopRequest() as stop, TrainingLog(folder, first, accelerator) as log:
        while step < config.steps:
            # The main process decides for all: if one process ended alone, the others would wait for it forever.
            if agreed(stop.requested or time.monotonic() > deadline, accelerator):
                break
            rate = learning_rate(config, step)
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("scale", 1.0)
            mine = accelerator.process_index * task.batch
            with accelerator.autocast():
                losses = task.losses(module, step, sample_generators(config.seed, step, mine, task.batch))
            accelerator.backward(losses["loss"])
            norm = whole(accelerator.clip_grad_norm_(parameters, config.max_grad_norm))
            loss = float(losses["loss"].detach())
            exploded = config.explosion and step - first > EXPLOSION_AFTER and loss > config.explosion * usual
            if exploded or not torch.isfinite(norm):
                what = f"a loss of {loss:.3g}, usually {usual:.3g}," if exploded else "values that are not finite"
                last = f"step {saved} is saved" if saved else "nothing is saved yet"
                raise FadaError(
                    f"The training in {folder.name} has {what} at step {step} ({last}; {task.describe()}); check these "
                    "samples, or start again with a lower learning rate."
                )
            usual = loss if step == first else 0.95 * usual + 0.05 * loss
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            ema.step(_local(parameters))
            step += 1
            progress.update()
            log.add(step, rate, {**losses, "grad_norm": norm}, write=step % config.log_every == 0)
            if step % config.save_every == 0:
                save()
                saved = step
            takes_part = accelerator.is_main_process or hollow is not None
            if takes_part and (step % config.preview_every == 0 or step == config.steps):
                with _averaged(task, ema, parameters, hollow, accelerator):
                    if accelerator.is_main_process:
                        _preview(task, folder, step)
    progress.close()
    if step > saved:
        save()
    ema.copy_to(_local(parameters))
    if hollow is not None:
        task.module = fill(hollow, task.module, accelerator)
    task.module.eval()
    return step >= config.steps


def _state_to_go_on_from(folder: Path, settings: dict[str, Any], accelerator: Accelerator) -> Path | None:
    """The newest undamaged state in `folder`, or None; the main process decides for all."""
    state, problem = None, None
    if accelerator.is_main_process:
        try:
            found = newest_whole(folder)
            if found is not None:
                state, began = found
                check_settings(began, settings, folder)
        except FadaError as error:
            problem = str(error)
    state, problem = agreed((state, problem), accelerator)
    if problem is not None:
        raise FadaError(problem)
    return state


@torch.inference_mode()
def _preview(task: Task, folder: Path, step: int) -> None:
    try:
        task.preview(folder, step)
    except OSError as error:
        raise FadaError(
            f"The preview of step {step} cannot be written to '{folder}' ({error.strerror}); make room, and start "
            "again to resume from the last state."
        ) from error


def _local(parameters: list[Tensor]) -> list[nn.Parameter]:
    """`shards` for EMAModel, which takes any tensors, but is annotated with parameters."""
    return cast(list[nn.Parameter], shards(parameters))


@contextmanager
def _averaged(
    task: Task, ema: EMAModel, parameters: list[Tensor], hollow: nn.Module | None, accelerator: Accelerator
) -> Iterator[None]:
    """Within the block, `task.module` on the main process has the EMA weights and is not sharded.

    With sharded parameters, all processes have to call this.
    """
    trained = task.module
    ema.store(_local(parameters))
    ema.copy_to(_local(parameters))
    if hollow is not None:
        task.module = fill(hollow, trained, accelerator)
        if accelerator.is_main_process:
            task.module.to(accelerator.device)
    task.module.eval()
    yield
    task.module = trained.train()
    ema.restore(_local(parameters))


def _optimizer(config: LoopConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    rate, betas, decay = config.learning_rate, (0.9, config.beta2), config.weight_decay
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, rate, betas, weight_decay=decay, fused=True)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise FadaError("adamw8bit needs the package bitsandbytes: pip install bitsandbytes.") from error
    return AdamW8bit(groups, rate, betas, weight_decay=decay)
