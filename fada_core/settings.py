"""Options of sampling: modes, solvers and ways to compute, listed once for API, commands and nodes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from .config import ModelConfig
from .errors import FadaError

if TYPE_CHECKING:  # sampling/ imports this module, and must not depend on files
    from .checkpoint import CheckpointInfo

Role = Literal["teacher", "student"]
Mode = Literal["teacher", "balanced", "fast"]
Solver = Literal["ddim", "dpm++", "unipc"]
Compute = Literal["auto", "eager", "compile", "graph"]

MODES: dict[Mode, Role] = {"teacher": "teacher", "balanced": "student", "fast": "student"}
"""Mode -> role of the checkpoint that it needs. teacher and balanced compute up to three branches per step, fast
one."""
GUIDED: tuple[Mode, ...] = ("teacher", "balanced")  #: modes that compute guidance from up to three predictions
SOLVERS: tuple[Solver, ...] = get_args(Solver)
COMPUTE: dict[Compute, str] = {
    "eager": "the networks as they are",
    "compile": "denoising step and decoder through torch.compile; on CUDA the step is then replayed as a graph",
    "graph": "fused norms and gates, and the denoising step replayed as a CUDA graph",
}
"""Ways to compute; "auto" chooses one by device and length (`speed.compute.choose`)."""
SCALE_RANGE = (0.0, 20.0)
"""Range of guidance scales in modes with branches; the result is useless long before its upper end."""


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """Sampling options as a user gives them; None stands for the checkpoint's default."""

    mode: Mode | None = None
    """How to sample (default: teacher for a teacher's checkpoint, fast for a student's)."""
    steps: int | None = None
    """Denoising steps of a clip (default: the checkpoint's)."""
    ref_cfg: float | None = None
    """Guidance scale of the portrait; 1 = no guidance (default: the checkpoint's)."""
    audio_cfg: float | None = None
    """Guidance scale of the speech; 1 = no guidance (default: the checkpoint's)."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Part of the schedule, from 0 (clean) to 1 (noise), in which the two scales apply; outside of it only the audio
    branch is computed, which saves evaluations (Kynkaanniemi et al. 2404.07724)."""
    solver: Solver = "ddim"
    """The solver; dpm++ and unipc need fewer steps than ddim."""
    region_weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Strength of the speech in the whole picture, the face and the lips, for models with these audio regions."""
    batch_branches: bool = True
    """Compute the guidance branches in one batch; one after the other, they take less memory and more time."""
    compute: Compute = "eager"
    """How the networks run: eager, compiled (which takes a minute or two at first) or as a CUDA graph. auto compiles
    for long jobs; for short ones it uses a CUDA graph on CUDA, and eager elsewhere."""

    def sampling(self) -> dict[str, Any]:
        """These options as arguments of `Pipeline.sample`, without the further fields of a subclass."""
        return {field.name: getattr(self, field.name) for field in fields(SamplingOptions)}


@dataclass(frozen=True)
class SamplingSettings:
    """`SamplingOptions` resolved against a checkpoint. The defaults are the paper's teacher, with 75 NFE."""

    steps: int = 25
    ref_cfg: float = 2.0
    audio_cfg: float = 6.5
    one_pass: bool = False
    """Students only: the network takes the scales as CFG tokens, and one pass replaces the three branches."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    solver: Solver = "ddim"
    region_weights: tuple[float, ...] = (1.0, 1.0, 1.0)
    batch_branches: bool = True


def modes_of(info: CheckpointInfo, config: ModelConfig) -> tuple[Mode, ...]:
    """The modes that a checkpoint serves, the default first.

    A student without CFG tokens (EchoMimic's accelerated weights) was distilled with fixed guidance: it runs in one
    pass and takes no scales.
    """
    if info.role == "teacher":
        return ("teacher",)
    return ("fast",) if config.control.kind == "none" else ("fast", "balanced")


def resolve_settings(info: CheckpointInfo, config: ModelConfig, options: SamplingOptions) -> SamplingSettings:
    """Resolve the options, with the checkpoint's values as defaults.

    Raises:
        FadaError: the mode does not fit the checkpoint, or a scale or the guidance interval is out of range.
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
    if not 0 <= low < high <= 1:  # also refuses NaN
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
    if not low <= value <= high:  # also refuses NaN
        raise FadaError(f"{name} is {value:g}, outside of {low:g} to {high:g} for this mode; try {min(2.0, high):g}.")
    return float(value)
