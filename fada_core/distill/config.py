"""Settings of the distillation: a dataclass that the command line shows, two presets, YAML."""

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
    """Avatars of each pool; those of the high pool are the teacher's own."""
    moderate_clips: int | None = None
    """Avatars of the moderate pool (default: as many as of the other)."""
    seconds: float = 2.4
    versions: int = 2
    """Of every clip: as it is, and changed in framing and colours."""
    workers: int = os.cpu_count() or 1
    """Processes that render."""


@dataclass
class DistillConfig:
    """Distil a teacher into a student of few steps whose guidance scales are inputs."""

    out: Path
    """Folder for states, logs, previews and, at the end, student.safetensors; start again to resume."""
    teacher: str = "tiny-teacher"
    """A shipped model's name or a teacher checkpoint."""
    data: str = "avatars"
    """`avatars`, a manifest (.jsonl) or a folder of shards (.tar)."""
    cache: Path | None = None
    """Folder of rendered clips and encoded latents; default OUT/cache. Several trainings can share one."""
    pools: tuple[Literal["high", "moderate"], ...] = ("high", "moderate")
    """Pools that the student is trained on; the teacher was trained on `high` alone."""
    preset: Literal["tiny", "sd15"] = "tiny"
    """Where the other settings start from: tiny on avatars, sd15 for real footage on eight GPUs."""
    config: Path | None = None
    """A YAML file with any of these settings, nested like this class; command-line flags override it."""
    trainable: Trainable = "full"
    lora_rank: int = 64
    batch: int = 4
    """Samples a step and process."""
    control: ControlConfig = field(default_factory=lambda: ControlConfig(kind="tokens", tokens=4, dim=64))
    objective: Objective = field(default_factory=Objective)
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=1000, learning_rate=2e-4, warmup_steps=50, decay_share=0.5, ema_decay=0.99, max_grad_norm=1.0
        )
    )
    avatars: AvatarsConfig = field(default_factory=AvatarsConfig)
    max_minutes: float = 0.0
    """Stop and save after this time (0: no limit); the checkpoint is written with what was learned."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "bf16"
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    cpu: bool = False
    """Train on the processor even where there is a GPU."""
    dry_run: bool = False
    """Build everything from the first few clips, say what would be trained, run one step, and write nothing but these
    clips to the cache: an answer within a minute."""

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
    "tiny": {
        # The teacher's own loss (docs/RESULTS.md), and scales up to those at which its faces stay intact.
        "objective": {
            "space": "x0",
            "penalty": "huber",
            "huber_c": 0.5,
            "ref_cfg": [1.0, 2.0],
            "audio_cfg": [1.0, 4.0],
        },
        "loop": {"learning_rate": 4e-4},
    },
    "sd15": {
        "batch": 1,
        "gradient_checkpointing": True,
        "control": {"dim": 768},
        # Full fine-tuning of distilled SD 1.5 networks is done at 1e-6 to 1e-5 (LCM, PCM, Hallo's stage 2).
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
    """Nested settings as command-line arguments, so that they are checked where those are."""
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
    """The settings in a YAML file.

    Raises:
        FadaError: no such file, or it is not a mapping of names to values.
    """
    settings = records.read_yaml(path, "the config")
    if not isinstance(settings, dict):
        raise FadaError(f"{path} holds no settings; write 'name: value' lines, as --help lists them.")
    return settings
