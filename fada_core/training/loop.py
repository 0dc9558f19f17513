"""One readable training loop on accelerate: exact resume, EMA, logging, previews, time limit, clean stop on SIGTERM."""

from __future__ import annotations

import csv
import math
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import FadaError
from .state import load_state, save_state, saved_states


@dataclass
class LoopConfig:
    """Settings of one training stage."""

    steps: int = 10_000
    """Optimiser steps in all; may be changed on resume (the end of the learning-rate schedule moves along)."""
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    decay_share: float = 0.4
    """The last part of the steps, over which the learning rate falls to zero on a half cosine."""
    weight_decay: float = 0.01
    beta2: float = 0.99
    max_grad_norm: float = 3.0
    ema_decay: float = 0.998
    save_every: int = 200
    keep_states: int = 2
    preview_every: int = 500
    log_every: int = 20
    seed: int = 0


class Task(Protocol):
    """What a stage brings to the loop."""

    module: nn.Module

    def losses(self, module: nn.Module, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalar terms of one step's batch; the one called `loss` is minimised, all are logged."""

    def preview(self, folder: Path, step: int) -> None:
        """Write pictures of the present state (the module holds the EMA weights meanwhile)."""


def learning_rate(config: LoopConfig, step: int) -> float:
    """Linear warm-up, constant, half cosine to zero over the last `decay_share` of the steps."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    decay_steps = max(1.0, config.steps * config.decay_share)
    left = min(1.0, (config.steps - step) / decay_steps)
    return config.learning_rate * warm * 0.5 * (1 - math.cos(math.pi * left))


def step_generator(seed: int, step: int, process: int) -> torch.Generator:
    """The generator of everything random in one step of one process."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 4_099 + process)


class _StopRequest:
    """Turns SIGTERM into a flag that the loop reads between steps, so that a spot machine's notice loses nothing."""

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
    """Train until `config.steps` or `time.monotonic()` passes `deadline`; resumes from the newest state in `folder`.

    Leaves the EMA weights in `task.module`. Returns whether all steps are done. Raises FadaError when a loss is not
    finite, naming the step and the last good state.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parameters = [p for p in task.module.parameters() if p.requires_grad]
    task.module.to(accelerator.device)
    ema = EMAModel(parameters, decay=config.ema_decay, use_ema_warmup=True, power=0.75)
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, betas=(0.9, config.beta2), weight_decay=config.weight_decay, fused=True
    )
    states = saved_states(folder)
    first = load_state(states[-1][1], task.module, optimizer, ema) if states else 0
    module, optimizer = accelerator.prepare(task.module, optimizer)
    progress = tqdm(
        total=config.steps, initial=first, desc=folder.name, disable=not accelerator.is_main_process, mininterval=5
    )
    step, saved = first, first
    with _StopRequest() as stop, _Log(folder, accelerator.is_main_process) as log:
        while step < config.steps:
            # One process decides for all: their clocks differ, and a lone leaver would hang the others.
            if accelerator.num_processes > 1:
                ending = broadcast_object_list([stop.requested or time.monotonic() > deadline])[0]
            else:
                ending = stop.requested or time.monotonic() > deadline
            if ending:
                break
            rate = learning_rate(config, step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            generator = step_generator(config.seed, step, accelerator.process_index)
            with accelerator.autocast():
                losses = task.losses(module, step, generator)
            accelerator.backward(losses["loss"])
            norm = accelerator.clip_grad_norm_(parameters, config.max_grad_norm)
            if not torch.isfinite(norm):
                last = f"step {saved} is saved" if saved else "nothing was saved yet"
                raise FadaError(
                    f"The gradient of {folder.name} is not finite at step {step} ({last}); lower the learning rate."
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            ema.step(parameters)
            step += 1
            progress.update()
            log.add(step, rate, {**losses, "grad_norm": norm}, write=step % config.log_every == 0)
            if accelerator.is_main_process and step % config.save_every == 0:
                save_state(folder, step, task.module, optimizer.optimizer, ema, config.keep_states)
                saved = step
            if accelerator.is_main_process and (step % config.preview_every == 0 or step == config.steps):
                ema.store(parameters)
                ema.copy_to(parameters)
                task.module.eval()
                with torch.inference_mode():
                    task.preview(folder, step)
                task.module.train()
                ema.restore(parameters)
    progress.close()
    if accelerator.is_main_process and step > saved:
        save_state(folder, step, task.module, optimizer.optimizer, ema, config.keep_states)
    ema.copy_to(parameters)
    task.module.eval()
    return step >= config.steps


class _Log:
    """Means of the loss terms every few steps: a CSV always, tensorboard where it is installed."""

    def __init__(self, folder: Path, active: bool) -> None:
        self.path, self.active = folder / "log.csv", active
        self.sums: dict[str, float] = {}
        self.count = 0

    def __enter__(self) -> _Log:
        self.writer = None
        if self.active:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                pass
            else:
                self.writer = SummaryWriter(self.path.parent / "tensorboard")
        return self

    def __exit__(self, *_: object) -> None:
        if self.writer is not None:
            self.writer.close()

    def add(self, step: int, rate: float, terms: dict[str, Tensor], write: bool) -> None:
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())
        self.count += 1
        if not write or not self.active:
            return
        row = {"step": step, "learning_rate": rate, **{n: s / self.count for n, s in self.sums.items()}}
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow({n: f"{v:.6g}" if isinstance(v, float) else v for n, v in row.items()})
        if self.writer is not None:
            for name, value in row.items():
                self.writer.add_scalar(name, value, step)
        self.sums, self.count = {}, 0
