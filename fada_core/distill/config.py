"""Settings of the distillation: options of the command, two presets, and YAML files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .. import records
from ..config import ControlConfig
from ..errors import FadaError
from ..training import LoopConfig
from .student import Trainable
from .task import Objective


@dataclass
class AvatarsConfig:
    """The rendered data set, for `--data avatars`."""

    clips: int = 640
    """Number of avatars of each pool; those of the high pool are the same as the teacher's."""
    moderate_clips: int | None = None
    """Number of avatars of the moderate pool (default: the same)."""
    seconds: float = 2.4
    versions: int = 2
    """Versions of each clip: the original, and others with changed framing and colours."""
    workers: int = os.cpu_count() or 1
    """Number of processes for rendering."""


@dataclass
class DistillConfig:
    """Distil a teacher into a student with few steps whose guidance scales are inputs."""

    out: Path
    """Folder for states, logs, previews and, at the end, student.safetensors; start again to resume."""
    teacher: str = "portrait-teacher"
    """Name of a shipped model, or a teacher's checkpoint."""
    data: str = "avatars"
    """`avatars`, a manifest (.jsonl) or a folder of shards (.tar)."""
    cache: Path | None = None
    """Folder of rendered clips and encoded latents (default: OUT/cache). Trainings can share it."""
    pools: tuple[Literal["high", "moderate"], ...] = ("high", "moderate")
    """Pools to train the student on; the teacher was trained on `high` only."""
    preset: Literal["portrait", "sd15"] = "portrait"
    """Defaults of the other settings: portrait for avatars, sd15 for real footage on eight GPUs."""
    config: Path | None = None
    """A YAML file with any of these settings, nested like this class; command-line flags override it."""
    trainable: Trainable = "full"
    lora_rank: int = 64
    batch: int = 4
    """Samples per step and process."""
    closeup_steps: int = 0
    """The first steps, which learn from parts of the pictures, mostly around mouths: a quarter of the work. For models
    without face locator and masks, like `portrait`."""
    closeup_cells: int = 8
    """Side of these parts in latent cells."""
    control: ControlConfig = field(default_factory=lambda: ControlConfig(kind="tokens", tokens=4, dim=64))
    objective: Objective = field(default_factory=Objective)
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=1000, learning_rate=2e-4, warmup_steps=50, decay_share=0.5, ema_decay=0.99, max_grad_norm=1.0
        )
    )
    avatars: AvatarsConfig = field(default_factory=AvatarsConfig)
    max_minutes: float = 0.0
    """Stop after this time, and write state and checkpoint (0: no limit)."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "bf16"
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass, which takes less memory and about a third more time."""
    cpu: bool = False
    """Train on the CPU even if there is a GPU."""
    dry_run: bool = False
    """Build everything with the first few clips, log the plan of the training, run one step, and write nothing except
    these clips to the cache. This takes less than a minute."""

    def __post_init__(self) -> None:
        counts = {"batch": self.batch, "lora_rank": self.lora_rank}
        counts |= {f"avatars.{name}": getattr(self.avatars, name) for name in ("clips", "versions", "workers")}
        if self.avatars.moderate_clips is not None:
            counts["avatars.moderate_clips"] = self.avatars.moderate_clips
        for name, value in counts.items():
            if value < 1:
                raise FadaError(f"{name} is {value}; give at least 1.")
        if not 0 <= self.max_minutes < float("inf") or not 0 < self.avatars.seconds <= 60:
            raise FadaError("max_minutes has to be 0 or more, avatars.seconds above 0 and at most 60.")
        if not self.pools:
            raise FadaError("pools names no pool; give high, moderate or both.")


PRESETS: dict[str, dict[str, Any]] = {
    "portrait": {
        # The teacher's loss (docs/RESULTS.md), and scales at which its faces stay intact.
        "objective": {
            "space": "x0",
            "penalty": "huber",
            "huber_c": 1.5,
            "ref_cfg": [1.0, 2.0],
            "audio_cfg": [1.0, 4.0],
        },
        "loop": {"learning_rate": 4e-4},
    },
    "sd15": {
        "batch": 1,
        "gradient_checkpointing": True,
        "control": {"dim": 768},
        # Published learning rates for all weights of SD 1.5 are 1e-6 to 1e-5 (LCM, PCM, Hallo's stage 2).
        "loop": {
            "steps": 30_000,
            "learning_rate": 1e-5,
            "warmup_steps": 500,
            "ema_decay": 0.999,
            "save_every": 500,
            "preview_every": 1000,
            "beta2": 0.999,
        },
    },
}


def arguments(settings: dict[str, Any], prefix: str = "--") -> Iterator[str]:
    """Nested settings as command-line arguments, so that the same code checks both."""
    for name, value in settings.items():
        flag = prefix + str(name).replace("_", "-")
        if isinstance(value, dict):
            yield from arguments(value, f"{flag}.")
        elif isinstance(value, bool):
            head, dot, tail = flag.rpartition(".")
            yield flag if value else (f"{head}{dot}no-{tail}" if dot else f"--no-{flag[2:]}")
        elif isinstance(value, (list, tuple)):
            yield flag
            yield from (str(entry) for entry in value)
        else:
            yield from (flag, str(value))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the settings of a YAML file.

    Raises:
        FadaError: there is no such file, or it is not a mapping of names to values.
    """
    settings = records.read_yaml(path, "the config")
    if not isinstance(settings, dict):
        raise FadaError(f"{path} holds no settings; write 'name: value' lines, as --help lists them.")
    return settings
