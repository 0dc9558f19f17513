"""Command: measure the speed of sampling on this machine, by mode, precision, variant and stage.

python -m fada_core.bench --preset portrait --modes teacher fast --compare eager,published
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import torch
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

from ..command import run_command
from ..errors import FadaError
from ..pipeline import Pipeline, load
from ..settings import COMPUTE, MODES, Mode, Role, SamplingOptions, SamplingSettings
from ..system import default_device, default_dtype
from .measure import Measurement, count_tflop, measure, peak_tflops
from .models import STEPS, NoiseJob, bench_config, make_job, random_pipeline
from .report import Result, markdown, summarise
from .variants import Variant, build_variant, parse_variants

log = logging.getLogger("fada.bench")

PAPER = SamplingSettings()  #: with the paper's scales 2.0 and 6.5, for which guidance has three branches


@dataclass(frozen=True)
class BenchConfig:
    """Measure sampling: frames per second, time by stage, arithmetic and its share of the device's peak, memory."""

    preset: Literal["portrait", "sd15"] = "portrait"
    """Size of the networks; their weights are random, which does not affect the time."""
    model: str | None = None
    """Name of a shipped model, or a checkpoint, instead of a preset; it is measured in its own modes."""
    modes: tuple[Mode, ...] = ()
    """Modes to measure (default: all)."""
    dtypes: tuple[Literal["float32", "bfloat16", "float16"], ...] = ()
    """Precisions of the networks (default: the usual one of the device)."""
    compare: str = "eager"
    """Variants to measure, separated by commas: eager, compile, graph (CUDA only), and published (sampling as in
    published code)."""
    steps: tuple[int, ...] = ()
    """Denoising steps per clip, at least 2: one number for all modes or one for each (default: teacher 25, student
    6)."""
    clips: int = 2
    """Clips per pass."""
    warmup: int = 1
    """Passes before the measured ones, in addition to the one that counts the arithmetic."""
    repeats: int = 3
    """Measured passes of the slowest mode and variant. All take turns, and each gets the same total time."""
    width: int = 1
    """Divide the UNets' channels and heads by this number, for a preset that is too large for the machine."""
    size: int | None = None
    """Side of the picture in pixels (default: the preset's)."""
    vae: Literal["kl", "taesd", "tiny"] | None = None
    """Kind of the autoencoder (default: the preset's)."""
    device: Literal["cpu", "cuda", "mps", "xpu"] | None = None
    """Device to use (default: the accelerator, if there is one)."""
    profile: Path | None = None
    """Trace one more pass of the table's first row to this file, for chrome://tracing or Perfetto, and log the
    operations that take the most time."""
    json: bool = False
    """Print a line of JSON (a list of rows) instead of the table."""


def efforts(
    config: BenchConfig, modes: Sequence[Mode], scales: tuple[float, float] = (PAPER.ref_cfg, PAPER.audio_cfg)
) -> list[SamplingOptions]:
    """Sampling options of each mode with guidance scales (ref_cfg, audio_cfg).

    Raises:
        FadaError: the number of `--steps` does not fit, or one is below 2.
    """
    if len(config.steps) not in (0, 1, len(modes)):
        raise FadaError(f"--steps has {len(config.steps)} numbers for {len(modes)} modes; give one, or one for each.")
    steps = config.steps * len(modes) if len(config.steps) == 1 else config.steps
    steps = steps or tuple(STEPS["teacher" if mode == "teacher" else "student"] for mode in modes)
    if min(steps) < 2:
        raise FadaError("One step cannot be measured apart from the preparation of a clip; give --steps 2 or more.")
    return [
        SamplingOptions(mode=mode, steps=count, ref_cfg=scales[0], audio_cfg=scales[1])
        for mode, count in zip(modes, steps, strict=True)
    ]


def run(config: BenchConfig) -> tuple[list[Result], torch.device]:
    """Measure all rows; also returns the device.

    Raises:
        FadaError: options that contradict each other, the device or the checkpoint; out of memory.
    """
    device = torch.device(config.device or default_device())
    if device.type not in ("cpu", default_device().type):
        raise FadaError(f"There is no device '{device}' on this machine; use '{default_device().type}'.")
    names = parse_variants(config.compare, device.type)
    if min(config.clips, config.repeats) < 1 or config.warmup < 0:
        raise FadaError("There is nothing to measure; --clips and --repeats must be 1 or more, --warmup 0 or more.")
    if config.model is not None and (config.width, config.size, config.vae) != (1, None, None):
        raise FadaError("A checkpoint has its own width, size and autoencoder; leave these options out, or --model.")
    rows: list[Result] = []
    dtypes = config.dtypes or (str(default_dtype(device)).removeprefix("torch."),)
    for dtype in dtypes:
        peak = peak_tflops(device, getattr(torch, dtype))
        contenders = _contenders(config, names, device, getattr(torch, dtype))
        rows += _rows(config, contenders, peak, None if rows else config.profile)
    return rows, device


@dataclass(frozen=True, eq=False)
class _Contender:
    """A row of the table: a model with its job, sampling options and variant."""

    pipe: Pipeline
    job: NoiseJob
    options: SamplingOptions
    variant: Variant

    def run(self) -> Measurement:
        return measure(self.variant, lambda: self.job.encode(self.pipe), self.job, self.options)


def _contenders(
    config: BenchConfig, names: Sequence[str], device: torch.device, dtype: torch.dtype
) -> list[_Contender]:
    """All contenders, in the order of the modes; each mode in all variants."""
    contenders = []
    for pipe, chosen in _pipelines(config, device, dtype):
        job = make_job(pipe.config, config.clips)
        variants = [build_variant(name, pipe) for name in names]
        contenders += [_Contender(pipe, job, options, variant) for options, variant in product(chosen, variants)]
    modes = config.modes or tuple(MODES)
    return sorted(contenders, key=lambda contender: modes.index(contender.options.mode))


def _pipelines(
    config: BenchConfig, device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[Pipeline, list[SamplingOptions]]]:
    """Each model with its sampling options."""
    if config.model is not None:
        pipe = load(config.model, device, dtype)
        if pipe.config.clip_overlap:
            raise FadaError(f"'{config.model}' samples overlapping windows; the benchmark takes chained clips only.")
        # A student accepts only the scales for which it was distilled.
        yield pipe, efforts(config, config.modes or pipe.modes, (pipe.info.ref_cfg, pipe.info.audio_cfg))
        return
    asked = efforts(config, config.modes or tuple(MODES))
    student = None
    roles: tuple[Role, ...] = ("student", "teacher")
    for role in roles:
        chosen = [options for options in asked if MODES[options.mode] == role]
        if chosen:
            model = bench_config(config.preset, role, config.width, config.size, config.vae)
            pipe = random_pipeline(model, role, device, dtype, student)
            student = pipe.networks
            yield pipe, chosen


def _rows(
    config: BenchConfig, contenders: Sequence[_Contender], peak: tuple[float, str], trace: Path | None
) -> Iterator[Result]:
    tflop = [_tflop(contender) for contender in contenders]
    passes = _measure(config, contenders)
    if trace is not None:
        _profile(trace, contenders[0])
    for contender, arithmetic, done in zip(contenders, tflop, passes, strict=True):
        model = contender.pipe.config
        yield summarise(
            done,
            contender.options,
            arithmetic,
            peak,
            preset=model.name if config.model is None else config.model,
            variant=contender.variant.name,
            dtype=str(contender.pipe.networks.dtype).removeprefix("torch."),
            size=model.size,
            fps=model.fps,
            clip_frames=model.clip_frames,
        )


def _tflop(contender: _Contender) -> float:
    variant = contender.variant
    if variant.name in COMPUTE:  # compiled or captured, the arithmetic is the same but cannot be counted
        variant = build_variant("eager", contender.pipe)
    return count_tflop(variant, contender.job.encode(contender.pipe), contender.options)


def _measure(config: BenchConfig, contenders: Sequence[_Contender]) -> list[list[Measurement]]:
    """The measured passes of each contender: `repeats` of the slowest, of the others as many as fit in the same time.

    The next pass always goes to the contender with the least time so far, so that a slow phase of the machine affects
    all of them, however long a pass takes.
    """
    for contender in tqdm(list(contenders) * config.warmup, desc="warm-up", mininterval=5):
        contender.run()
    passes: list[list[Measurement]] = [[] for _ in contenders]
    spent = [0.0] * len(contenders)
    going = list(range(len(contenders)))
    with tqdm(desc="passes", mininterval=5) as bar:
        while going:
            index = min(going, key=spent.__getitem__)
            start = time.perf_counter()
            passes[index].append(contenders[index].run())
            spent[index] += time.perf_counter() - start
            bar.update()
            means = [total / max(1, len(done)) for total, done in zip(spent, passes, strict=True)]
            enough = config.repeats * max(means)
            going = [i for i, mean in enumerate(means) if spent[i] + mean / 2 < enough]
    return passes


def _profile(target: Path, contender: _Contender) -> None:
    activities = [ProfilerActivity.CPU]
    if contender.pipe.networks.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    target.parent.mkdir(parents=True, exist_ok=True)
    with profile(activities=activities) as trace:
        contender.run()
    trace.export_chrome_trace(str(target))
    key = "self_device_time_total" if len(activities) > 1 else "self_cpu_time_total"
    log.info(trace.key_averages().table(sort_by=key, row_limit=16, max_name_column_width=50))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""

    def work(config: BenchConfig) -> None:
        rows, device = run(config)
        sys.stdout.write(f"{json.dumps([asdict(row) for row in rows])}\n" if config.json else markdown(rows, device))

    return run_command(work, BenchConfig, "bench", arguments, description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
