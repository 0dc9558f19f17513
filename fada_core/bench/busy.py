"""Command: measure how much another busy process slows sampling down.

python -m fada_core.bench.busy

One second of video is sampled and decoded on the CPU, alone and next to a process that only computes. That process has
its own session, like another program. Each of three ways to start is a process:

- command: `fada_core` is imported before torch, as in `python -m fada_core.generate`;
- loaded: torch is imported first, as in ComfyUI and in most scripts;
- plain: without the effect of `fada_core.threads`, which environment variables turn off (`--threads`, `--spins`).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..command import run_command
from ..errors import FadaError

WAYS = ("command", "loaded", "plain")
_ROOT = Path(__file__).parents[2]  # working directory of child processes, in which they find this package


@dataclass(frozen=True)
class BusyConfig:
    """Measure sampling next to a busy process."""

    model: str = "portrait"
    """Name of a shipped model, or a checkpoint."""
    steps: int = 6
    """Denoising steps per clip."""
    repeats: int = 3
    """Number of one-second videos for each figure, which is their median."""
    processes: int = 1
    """Number of busy processes."""
    threads: int | None = None
    """Number of threads in the way plain (default: the number of cores)."""
    spins: int = 300_000
    """Iterations of the waiting loop in the way plain; GNU's OpenMP has 300000 by default."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class Busy:
    """Seconds of work for a second of video, alone and beside a busy process."""

    way: str
    alone: float
    beside: float


def measure(config: BusyConfig, way: str) -> float:
    """Median seconds for a second of video in a process that starts in one of WAYS.

    Raises:
        FadaError: the process failed.
    """
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    if way == "plain":
        threads = config.threads or os.cpu_count()
        environment |= {"OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": str(config.spins)}
    else:
        for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
            environment.pop(name, None)
    first = "import torch; " if way == "loaded" else ""
    work = f"from fada_core.bench.busy import work; work({config.model!r}, {config.steps}, {config.repeats})"
    ended = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", first + work], env=environment, cwd=_ROOT, stdout=subprocess.PIPE, text=True
    )
    if ended.returncode:
        raise FadaError(f"The model '{config.model}' could not be measured; see above.")
    return statistics.median(json.loads(ended.stdout))


def work(model: str, steps: int, repeats: int) -> None:
    """Run in the child process: print the seconds for each video as JSON, after one video as warm-up."""
    import torch

    from ..pipeline import load

    pipe = load(model, "cpu")
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand((1, 3, pipe.config.size, pipe.config.size), generator=generator) * 2 - 1
    cond = pipe.encode(picture, torch.rand(16000, generator=generator) * 0.2 - 0.1)
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        for latents in pipe.sample(cond, steps=steps):
            pipe.decode(latents)
        seconds.append(time.perf_counter() - started)
    sys.stdout.write(json.dumps(seconds[1:]))


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Run processes that compute without end, each in its own session, because the scheduler groups by session."""
    # They end when this process has ended, however that happens.
    loop = [sys.executable, "-c", f"import os\nwhile os.getppid() == {os.getpid()}: pass"]
    running = [subprocess.Popen(loop, start_new_session=True) for _ in range(processes)]  # noqa: S603 - our own
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def run(config: BusyConfig) -> list[Busy]:
    """Measure all ways, alone and beside busy processes."""
    found = []
    for way in WAYS:
        alone = measure(config, way)
        with busy(config.processes):
            found.append(Busy(way, alone, measure(config, way)))
    return found


def table(rows: list[Busy]) -> str:
    """The results as a Markdown table."""
    lines = ["| started as | alone, s | beside, s | times as long |", "| --- | ---: | ---: | ---: |"]
    lines += [f"| {row.way} | {row.alone:.2f} | {row.beside:.2f} | {row.beside / row.alone:.1f} |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the command; returns its exit status."""

    def report(config: BusyConfig) -> None:
        rows = run(config)
        sys.stdout.write(f"{json.dumps([vars(row) for row in rows])}\n" if config.json else table(rows))

    return run_command(report, BusyConfig, "bench.busy", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
