"""How a video is sampled: modes, solvers, ways to compute and all options, listed once for API, commands and nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from .config import ModelConfig
from .errors import FadaError

if TYPE_CHECKING:  # sampling, which takes its settings from here, knows no files
    from .checkpoint import CheckpointInfo

Role = Literal["teacher", "student"]
Mode = Literal["teacher", "balanced", "fast"]
Solver = Literal["ddim", "dpm++", "unipc"]
Compute = Literal["auto", "eager", "compile", "graph"]

MODES: dict[Mode, Role] = {"teacher": "teacher", "balanced": "student", "fast": "student"}
"""Mode (three branches, three branches, one pass a step) -> the role of the checkpoint that it needs."""
GUIDED: tuple[Mode, ...] = ("teacher", "balanced")  #: modes that compute guidance from up to three predictions
SOLVERS: tuple[Solver, ...] = get_args(Solver)
COMPUTE: dict[Compute, str] = {
    "eager": "the networks as they are",
    "compile": "denoising step and decoder through torch.compile; on CUDA the step is then replayed as a graph",
    "graph": "fused norms and gates, and the denoising step replayed as a CUDA graph",
}
"""Ways to compute; "auto" chooses one by device and length (`speed.compute.choose`)."""
SCALE_RANGE = (0.0, 20.0)
"""Guidance scales that separate predictions take; beyond it they overflow long before they look like anything."""


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How to sample, as a user asks for it."""

    mode: Mode | None = None
    """How to sample (default: teacher for a teacher's checkpoint, fast for a student's)."""
    steps: int | None = None
    """Denoising steps of a clip (default: the checkpoint's)."""
    ref_cfg: float | None = None
    """Guidance towards the portrait, 1 = none (default: the checkpoint's)."""
    audio_cfg: float | None = None
    """Guidance towards the speech, 1 = none (default: the checkpoint's)."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Part of the schedule, 0 (clean) to 1 (noise), in which the two scales apply; elsewhere the audio branch runs
    alone, which saves the other evaluations (Kynkaanniemi et al. 2404.07724)."""
    solver: Solver = "ddim"
    """How a step is taken; dpm++ and unipc need fewer steps."""
    region_weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Strength of the speech in the whole picture, the face and the lips, for models with these audio regions."""
    batch_branches: bool = True
    """Compute the guidance branches together; one after the other, they take less memory and more time."""
    compute: Compute = "eager"
    """How the networks run: compiled (a minute or two at first), as a CUDA graph, or as they are. auto compiles for
    long jobs; others are a CUDA graph where there is CUDA."""


@dataclass(frozen=True)
class SamplingSettings:
    """What the sampler does: `SamplingOptions` resolved against a checkpoint. Defaults: the paper's teacher, 75 NFE."""

    steps: int = 25
    ref_cfg: float = 2.0
    audio_cfg: float = 6.5
    one_pass: bool = False
    """Students only: the scales go into the network as CFG tokens, one pass replaces the three branches."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    solver: Solver = "ddim"
    region_weights: tuple[float, ...] = (1.0, 1.0, 1.0)
    batch_branches: bool = True


def modes_of(info: CheckpointInfo, config: ModelConfig) -> tuple[Mode, ...]:
    """The modes that a checkpoint serves, the default first.

    A student without control has its guidance distilled away (EchoMimic's accelerated weights): one pass, and no
    scales.
    """
    if info.role == "teacher":
        return ("teacher",)
    return ("fast",) if config.control.kind == "none" else ("fast", "balanced")


def resolve_settings(info: CheckpointInfo, config: ModelConfig, options: SamplingOptions) -> SamplingSettings:
    """The settings of a sampling, with the checkpoint's own values where the options leave them open.

    Raises:
        FadaError: the mode does not fit the checkpoint, or a scale, weight or interval is out of range.
    """
    possible = modes_of(info, config)
    mode = possible[0] if options.mode is None else options.mode
    if mode not in MODES:
        raise FadaError(f"There is no mode '{mode}'; choose one of {', '.join(MODES)}.")
    if mode not in possible:
        reason = f"needs a {MODES[mode]} checkpoint, but this one is a {info.role}"
        if MODES[mode] == info.role:
            reason = "needs a student with CFG tokens, which this one does not have"
        names = " or ".join(f"'{name}'" for name in possible)
        raise FadaError(f"Mode '{mode}' {reason}; choose mode {names} or load another checkpoint.")
    ranges = info.scale_ranges if mode == "fast" else (SCALE_RANGE, SCALE_RANGE)
    low, high = options.guidance_interval
    if not 0 <= low < high <= 1:  # NaN is not either
        wrong = f"Guidance from {low:g} to {high:g} is no part of the schedule"
        raise FadaError(f"{wrong}; give two numbers from 0 to 1, the smaller one first.")
    ref_cfg = info.ref_cfg if options.ref_cfg is None else options.ref_cfg
    audio_cfg = info.audio_cfg if options.audio_cfg is None else options.audio_cfg
    return SamplingSettings(
        steps=info.steps if options.steps is None else options.steps,
        ref_cfg=_checked_scale("ref_cfg", ref_cfg, ranges[0]),
        audio_cfg=_checked_scale("audio_cfg", audio_cfg, ranges[1]),
        one_pass=mode == "fast",
        guidance_interval=options.guidance_interval,
        solver=options.solver,
        region_weights=options.region_weights,
        batch_branches=options.batch_branches,
    )


def _checked_scale(name: str, value: float, limits: tuple[float, float]) -> float:
    low, high = limits
    if low == high != value:
        raise FadaError(f"{name} is {value:g}, but this model has no guidance to scale; leave {name} out.")
    if not low <= value <= high:  # NaN is not either
        raise FadaError(f"{name} is {value:g}, outside of {low:g} to {high:g} for this mode; try {min(2.0, high):g}.")
    return float(value)
