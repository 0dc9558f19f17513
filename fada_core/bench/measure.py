"""Measurements: time by stage, arithmetic, memory, and the device's peak."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from ..config import ModelConfig
from ..job import Job
from ..media.video import VideoWriter
from ..settings import SamplingOptions
from ..system import peak_memory_mb, reset_peak
from .models import NoiseJob
from .variants import Variant

CLIP_STAGES = ("reference", "denoise", "decode", "copy", "write")
"""Stages of a clip. reference: all work except the denoising steps, mainly the reference UNet and its keys and values,
and the encoding of motion frames in models that pass them on as pictures; copy: conversion to bytes on the host; write:
encoding as MP4."""

_PEAKS = (  # dense TFLOP/s in half precision, from the vendor's data sheets
    ("H200", 989.0), ("H100 PCIe", 756.0), ("H100 NVL", 835.0), ("H100", 989.0), ("B200", 2250.0), ("A100", 312.0),
    ("L40S", 362.0), ("L4", 121.0), ("A10G", 70.0), ("RTX 5090", 209.5), ("RTX 4090", 165.2), ("RTX 3090", 71.0),
)  # fmt: skip


@dataclass(frozen=True)
class ClipTimes:
    """Times of a clip in seconds."""

    stages: dict[str, float]  #: one entry for each of CLIP_STAGES
    step: float  #: median of the clip's denoising steps

    @property
    def until_host(self) -> float:
        """Time until the frames are on the host, without writing the file."""
        return sum(self.stages[name] for name in CLIP_STAGES if name != "write")


@dataclass(frozen=True)
class Measurement:
    """Measurements of one pass over the whole job."""

    encode: float  #: seconds, once per job
    clips: list[ClipTimes]
    nfe: int  #: of a clip, counted
    peak_memory_mb: float


class Clock:
    """Time measurement on a device by events in its queue, so that the host does not wait."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def mark(self) -> Any:
        if self._device.type == "cpu":
            return time.perf_counter()
        event = torch.Event(device=self._device.type, enable_timing=True)
        event.record()
        return event

    def seconds(self, start: Any, end: Any) -> float:
        """Seconds between two marks; call `synchronize` first."""
        return end - start if self._device.type == "cpu" else start.elapsed_time(end) / 1000

    def synchronize(self) -> None:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)


def measure(variant: Variant, encode: Callable[[], Job], job: NoiseJob, options: SamplingOptions) -> Measurement:
    """Generate the job's video once, like `generate`, and measure the times.

    The first step of a clip includes the preparation of its conditions. So the median of the other steps is used for
    every step, and the rest of the time until the clip's latents are ready is the stage `reference`.

    Args:
        encode: encodes the job's portrait and speech.
    """
    networks = variant.pipe.networks
    device, config = networks.device, networks.config
    clock = Clock(device)
    reset_peak(device)
    marks: list[tuple[list[Any], list[Any]]] = []
    ticks: list[Any] = []
    began = clock.mark()
    encoded = encode()
    encoding_done = clock.mark()
    clips = variant.sample(encoded, options, lambda step, steps, latents: ticks.append(clock.mark()))
    made = []
    bounds = [clock.mark()]
    for latents in clips:
        bounds.append(clock.mark())
        frames = variant.pipe.decode(latents)
        bounds.append(clock.mark())
        made.append(variant.to_host(frames))
        bounds.append(clock.mark())
        marks.append((bounds, ticks[-options.steps :]))
        bounds = [bounds[-1]]
    clock.synchronize()
    memory = peak_memory_mb(device)
    writing = _write(made, config, job)  # separately, because the encoder's threads would overlap the next stage
    times = [_clip_times(clock, *of, seconds) for of, seconds in zip(marks, writing, strict=True)]
    return Measurement(clock.seconds(began, encoding_done), times, variant.pipe.stats.nfe_per_clip, memory)


def _write(clips: Sequence[Tensor], config: ModelConfig, job: NoiseJob) -> list[float]:
    """Write the clips to a video; returns the seconds for each."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "bench.mp4")
        with VideoWriter(target, config.size, config.size, config.fps, job.speech) as writer:
            ends = [time.perf_counter()]
            for pictures in clips:
                writer.write(pictures)
                ends.append(time.perf_counter())
    return [end - start for start, end in pairwise(ends)]


def _clip_times(clock: Clock, bounds: Sequence[Any], ticks: Sequence[Any], write: float) -> ClipTimes:
    sampled, decode, copy = (clock.seconds(a, b) for a, b in pairwise(bounds))
    steps = sorted(clock.seconds(a, b) for a, b in pairwise(ticks))
    step = steps[len(steps) // 2]
    # A slow median step (page faults, another process) must not make the rest negative.
    denoise = min(step * len(ticks), sampled)
    spans = (sampled - denoise, denoise, decode, copy, write)
    return ClipTimes(dict(zip(CLIP_STAGES, spans, strict=True)), step)


def count_tflop(variant: Variant, encoded: Job, options: SamplingOptions) -> float:
    """TFLOP of a clip: matrix products, convolutions and attention, decoding included; a multiply-add counts as two.

    Counted on the job's first clip; the other clips have the same number.
    """
    cpu_attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

    def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(query, key, value)

    with FlopCounterMode(display=False, custom_mapping={cpu_attention: attention}) as counter:
        variant.pipe.decode(next(variant.sample(encoded, options)))
    return counter.get_total_flops() / 1e12


def peak_tflops(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """Peak of a device in TFLOP/s, and the source of the number: "data sheet" or "matmul".

    For half precision on the GPUs in _PEAKS it is that of the data sheet, which others quote as well. Otherwise it is
    the best of several square matrix products on the machine itself.
    """
    if device.type == "cuda" and dtype in (torch.float16, torch.bfloat16):
        name = torch.cuda.get_device_name(device)
        for known, tflops in _PEAKS:
            if known in name:
                return tflops, "data sheet"
    side = 512 if device.type == "cpu" else 8192
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    clock = Clock(device)
    spans = []
    for _ in range(8):
        start = clock.mark()
        a @ b
        end = clock.mark()
        clock.synchronize()
        spans.append(clock.seconds(start, end))
    return 2 * side**3 / min(spans) / 1e12, "matmul"
