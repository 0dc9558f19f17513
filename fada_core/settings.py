"""What a checkpoint can be asked for: its modes, and the settings of a sampling, checked."""

from __future__ import annotations

from .checkpoint import CheckpointInfo
from .config import ModelConfig
from .errors import FadaError
from .sampling.denoise import SamplingSettings
from .sampling.schedule import NoiseSchedule
from .sampling.solvers import build_solver

MODES = {"teacher": "teacher", "balanced": "student", "fast": "student"}
"""Way to sample (three branches, three branches, one pass a step) -> the role of the checkpoint that it needs."""
SCALE_RANGE = (0.0, 20.0)
"""Guidance scales that separate predictions take; beyond it they overflow long before they look like anything."""


def modes_of(info: CheckpointInfo, config: ModelConfig) -> tuple[str, ...]:
    """What the checkpoint can be asked for, the default first.

    A student without control has its guidance distilled away (EchoMimic's accelerated weights): one pass, and no
    scales.
    """
    if info.role == "teacher":
        return ("teacher",)
    return ("fast",) if config.control.kind == "none" else ("fast", "balanced")


def sampling_settings(
    info: CheckpointInfo,
    config: ModelConfig,
    mode: str | None = None,
    steps: int | None = None,
    ref_cfg: float | None = None,
    audio_cfg: float | None = None,
    solver: str = "ddim",
    region_weights: tuple[float, ...] = (1.0, 1.0, 1.0),
    guidance_interval: tuple[float, float] = (0.0, 1.0),
    batch_branches: bool = True,
) -> SamplingSettings:
    """The settings of `Pipeline.sample`, with the checkpoint's own where nothing is said.

    Raises:
        FadaError: the mode does not fit the checkpoint, or a value is out of range.
    """
    able = modes_of(info, config)
    if mode is None:
        mode = able[0]
    if mode not in MODES:
        raise FadaError(f"There is no mode '{mode}'; choose one of {', '.join(MODES)}.")
    if mode not in able:
        reason = f"needs a {MODES[mode]} checkpoint, but this one is a {info.role}"
        if MODES[mode] == info.role:
            reason = "needs a student with CFG tokens, which this one does not have"
        names = " or ".join(f"'{name}'" for name in able)
        raise FadaError(f"Mode '{mode}' {reason}; choose mode {names} or load another checkpoint.")
    ranges = info.scale_ranges if mode == "fast" else (SCALE_RANGE, SCALE_RANGE)
    settings = SamplingSettings(
        steps=info.steps if steps is None else steps,
        ref_cfg=_scale("ref_cfg", info.ref_cfg if ref_cfg is None else ref_cfg, ranges[0]),
        audio_cfg=_scale("audio_cfg", info.audio_cfg if audio_cfg is None else audio_cfg, ranges[1]),
        one_pass=mode == "fast",
        solver=solver,
        region_weights=region_weights,
        guidance_interval=guidance_interval,
        batch_branches=batch_branches,
    )
    build_solver(NoiseSchedule(config.schedule), settings.steps, solver)  # checks both
    return settings


def _scale(name: str, value: float, limits: tuple[float, float]) -> float:
    low, high = limits
    if low == high != value:
        raise FadaError(f"{name} is {value:g}, but this model has no guidance to scale; leave {name} out.")
    if not low <= value <= high:  # NaN is not either
        raise FadaError(f"{name} is {value:g}, outside of {low:g} to {high:g} for this mode; try {min(2.0, high):g}.")
    return float(value)
