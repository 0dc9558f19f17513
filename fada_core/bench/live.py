"""Command: measure the delay of a live video behind the speech.

python -m fada_core.bench.live --seconds 10

Speech is fed in real time, as from a microphone. The delay of a frame is the time from the arrival of its own sound
until the frame is on the host as bytes.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..command import run_command
from ..media.image import to_uint8
from ..models.audio import SAMPLE_RATE
from ..pipeline import Pipeline, load
from ..settings import Compute, Mode


@dataclass(frozen=True)
class LiveConfig:
    """Measure the delay of a live video."""

    model: str = "portrait"
    """Name of a shipped model, or a checkpoint."""
    mode: Mode | None = None
    """Mode of sampling (default: the checkpoint's first mode)."""
    steps: int | None = None
    """Denoising steps per clip (default: the checkpoint's)."""
    seconds: float = 10.0
    """Length of the speech."""
    chunk: float = 0.04
    """Seconds of speech per chunk."""
    lookahead: float = 0.2
    """Seconds of speech after its own end for which a clip waits."""
    compute: Compute = "eager"
    """How the networks run; compilation ends before the measurement."""
    device: str | None = None
    """cpu, cuda, mps ... (default: the accelerator, if there is one)."""
    json: bool = False
    """Print a line of JSON instead of a sentence."""


@dataclass(frozen=True)
class Lag:
    """Delays in seconds. They include the wait for a clip's speech, which does not depend on the machine."""

    first_frame: float  #: from the first sample of speech to the first frame
    median: float  #: of the first frames of all clips, behind their sound
    last: float  #: of the last clip's first frame; above the median if the machine is slower than real time
    clip: float  #: length of a clip, for which its first frame waits
    work: float  #: median time to sample a clip, without decoding
    clips: int  #: number of clips


def measure(pipe: Pipeline, config: LiveConfig) -> Lag:
    """Measure the delays with noise as speech, fed in real time, after one clip as warm-up."""
    generator = torch.Generator().manual_seed(0)
    size, fps, frames = pipe.config.size, pipe.config.fps, pipe.config.clip_frames
    portrait = torch.rand(1, 3, size, size, generator=generator) * 2 - 1
    speech = 0.1 * torch.randn(round(config.seconds * SAMPLE_RATE), generator=generator)
    how: dict[str, Any] = {"mode": config.mode, "steps": config.steps, "compute": config.compute}
    how["lookahead"] = config.lookahead
    clip = frames / fps
    for part in pipe.stream(portrait, [speech[: round(clip * SAMPLE_RATE)]], **how):
        to_uint8(part.frames)

    began = 0.0

    def arriving() -> Iterator[Tensor]:
        nonlocal began
        began = time.perf_counter()
        heard = 0
        for chunk in speech.split(round(config.chunk * SAMPLE_RATE)):
            heard += len(chunk)
            time.sleep(max(0.0, began + heard / SAMPLE_RATE - time.perf_counter()))
            yield chunk

    lags, work, before = [], [], 0.0
    for index, part in enumerate(pipe.stream(portrait, arriving(), **how)):
        to_uint8(part.frames)
        lags.append(time.perf_counter() - began - index * clip)
        work.append(pipe.stats.seconds - before)
        before = pipe.stats.seconds
    return Lag(lags[0], statistics.median(lags), lags[-1], clip, statistics.median(work), len(lags))


def main() -> int:
    """Run the command; returns its exit status."""
    return run_command(_report, LiveConfig, "bench.live", description=__doc__)


def _report(config: LiveConfig) -> None:
    lag = measure(load(config.model, config.device), config)
    line = json.dumps({name: round(value, 3) for name, value in asdict(lag).items()})
    if not config.json:
        line = (
            f"first frame {lag.first_frame:.2f} s after the first sound; clips of {lag.clip:.2f} s, of which "
            f"each took {lag.work:.2f} s to sample; their first frames came {lag.median:.2f} s (median of {lag.clips}) "
            f"and in the end {lag.last:.2f} s after their sound"
        )
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
