"""Results of a benchmark and their table."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..settings import SamplingOptions
from .measure import CLIP_STAGES, Measurement
from .variants import PUBLISHED


@dataclass(frozen=True)
class Result:
    """Results of a mode, variant and dtype. Times are medians over all clips of all passes, unless said otherwise."""

    preset: str
    mode: str
    variant: str
    dtype: str
    frames_per_s: float  #: from a clip's conditioning to bytes on the host, without encoding the job and writing
    mean_seconds: float  #: mean time of a clip for the same, which the table's ratios compare
    ms_per_forward: float  #: time of a denoising step, divided by its evaluations (one per branch)
    nfe: int  #: forward passes of the denoising UNet for one clip, per conditional branch, counted
    peak_memory_mb: float  #: MiB: of the device on CUDA, else of the process
    tflop: float  #: of one clip, counted
    peak_share: float  #: achieved share of the device's peak, 0..1
    realtime_factor: float  #: seconds of work, writing included, per second of video; below 1: faster than real time
    stages_ms: dict[str, float]  #: encode (once per job), then the stages of a clip
    spread: dict[str, tuple[float, float]]  #: lower and upper quartiles of frames_per_s, ms_per_forward, every stage
    steps: int
    size: int  #: side of the picture, pixels
    clip_frames: int
    peak_tflops: float  #: the device's
    peak_source: str  #: "data sheet" or "matmul"


def summarise(
    passes: Sequence[Measurement],
    options: SamplingOptions,
    tflop: float,
    peak: tuple[float, str],
    *,
    preset: str,
    variant: str,
    dtype: str,
    size: int,
    fps: float,
    clip_frames: int,
) -> Result:
    """Medians and quartiles of several passes over a job."""
    clips = [clip for each in passes for clip in each.clips]
    nfe = passes[0].nfe
    values = {
        "frames_per_s": [clip_frames / clip.until_host for clip in clips],
        "ms_per_forward": [1000 * clip.step * options.steps / nfe for clip in clips],
        "encode": [1000 * each.encode for each in passes],
        **{stage: [1000 * clip.stages[stage] for clip in clips] for stage in CLIP_STAGES},
    }
    quartiles = {name: np.percentile(found, (25, 50, 75)) for name, found in values.items()}
    medians = {name: float(f"{middle:.4g}") for name, (_, middle, _) in quartiles.items()}
    until_host = float(np.median([clip.until_host for clip in clips]))
    whole = float(np.median([sum(clip.stages.values()) for clip in clips]))
    return Result(
        preset=preset,
        mode=options.mode,  # type: ignore[arg-type] # the benchmark gives it, and the steps
        variant=variant,
        dtype=dtype,
        frames_per_s=medians["frames_per_s"],
        mean_seconds=float(f"{np.mean([clip.until_host for clip in clips]):.4g}"),
        ms_per_forward=medians["ms_per_forward"],
        nfe=nfe,
        peak_memory_mb=round(max(each.peak_memory_mb for each in passes), 1),
        tflop=float(f"{tflop:.4g}"),
        peak_share=float(f"{tflop / until_host / peak[0]:.3g}"),
        realtime_factor=float(f"{whole * fps / clip_frames:.4g}"),
        stages_ms={stage: medians[stage] for stage in ("encode", *CLIP_STAGES)},
        spread={name: (float(f"{low:.4g}"), float(f"{high:.4g}")) for name, (low, _, high) in quartiles.items()},
        steps=options.steps,  # type: ignore[arg-type]
        size=size,
        clip_frames=clip_frames,
        peak_tflops=float(f"{peak[0]:.4g}"),
        peak_source=peak[1],
    )


def markdown(rows: Sequence[Result], device: torch.device) -> str:
    """Device, table (medians and quartiles; stages in ms per clip, encode in ms per job), and ratios between rows."""
    first = rows[0]
    columns = ["mode", "variant", "dtype", "NFE", "frames/s", "real-time factor", "ms/forward", "encode", *CLIP_STAGES]
    columns += ["TFLOP", "of peak", "peak MiB"]
    lines = [
        f"{device_name(device)}, torch {torch.__version__}; {first.preset}, {first.size} px, clips of "
        f"{first.clip_frames} frames; peak {_peaks(rows)}",
        "",
        f"| {' | '.join(columns)} |",
        f"|---|---|---|{'---:|' * (len(columns) - 3)}",
    ]
    for row in rows:
        cells = [row.mode, row.variant, row.dtype, str(row.nfe), _cell(row.frames_per_s, row.spread["frames_per_s"])]
        cells += [f"{row.realtime_factor:.3g}", _cell(row.ms_per_forward, row.spread["ms_per_forward"])]
        cells += [f"{row.stages_ms[stage]:.3g}" for stage in ("encode", *CLIP_STAGES)]
        cells += [f"{row.tflop:.3g}", f"{100 * row.peak_share:.1f} %", f"{row.peak_memory_mb:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_ratios(rows)]).rstrip() + "\n"


def device_name(device: torch.device) -> str:
    """Name of the GPU or of the processor, which includes the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    if device.type == "cpu" and sys.platform == "linux":  # there `platform` gives only the architecture
        described = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        name = next((line.split(":")[1].strip() for line in described.splitlines() if "model name" in line), name)
    return f"{name} ({device.type}, {torch.get_num_threads()} threads)"


def _cell(median: float, quartiles: tuple[float, float]) -> str:
    return f"{median:.3g} ({quartiles[0]:.3g}-{quartiles[1]:.3g})"


def _peaks(rows: Sequence[Result]) -> str:
    found = {row.dtype: f"{row.peak_tflops:.3g} TFLOP/s in {row.dtype} ({row.peak_source})" for row in rows}
    return ", ".join(found.values())


def _ratios(rows: Sequence[Result]) -> list[str]:
    """Speed of every row relative to published code in the same mode, and to the teacher.

    From means, not medians: a slow second affects every long clip but may not change the median of short ones.
    """
    by_key = {(row.mode, row.variant, row.dtype): row for row in rows}
    lines = []
    for row in rows:
        for mode, variant in ((row.mode, PUBLISHED), ("teacher", row.variant)):
            other = by_key.get((mode, variant, row.dtype))
            if other is not None and other is not row:
                ours, theirs = (f"{each.mode}, {each.variant}" for each in (row, other))
                ratio = other.mean_seconds / row.mean_seconds
                lines.append(f"- {ours} : {theirs}, {row.dtype}: {ratio:.2f} x as fast")
    return lines
