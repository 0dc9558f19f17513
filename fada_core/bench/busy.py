"""Command: what another busy process costs.

python -m fada_core.bench.busy

One second of video is sampled and decoded on the CPU, alone and beside a process that does nothing but compute, in a
session of its own, as another program is. Each way is a process:

- command: as `python -m fada_core.generate` begins, before torch is loaded;
- loaded: torch comes first, as in ComfyUI and in most scripts;
- plain: without what `fada_core.threads` does, by the environment that turns it off (`--threads`, `--spins`).
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
_ROOT = Path(__file__).parents[2]  # where a child finds this package, wherever it was started


@dataclass(frozen=True)
class BusyConfig:
    """Measure sampling beside a busy process."""

    model: str = "tiny"
    """A shipped model's name or a checkpoint."""
    steps: int = 6
    """Denoising steps of a clip."""
    repeats: int = 3
    """Videos of a second for each figure, of which the median counts."""
    processes: int = 1
    """Busy ones."""
    threads: int | None = None
    """Of the way plain (default: as many as cores)."""
    spins: int = 300_000
    """Turns of the waiting loop of the way plain; GNU's OpenMP takes 300000 where nothing is set."""
    json: bool = False
    """Print JSON in place of a table."""


@dataclass(frozen=True)
class Busy:
    """Seconds that a second of video takes."""

    way: str
    alone: float
    beside: float


def measure(config: BusyConfig, way: str) -> float:
    """The median time of a second of video in a process that begins this way.

    Raises:
        FadaError: the model cannot be used.
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
    """Of the child: print the seconds that each video took, after one that is not counted."""
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
    """So many processes that compute without end, each in a session of its own, which the scheduler treats as one."""
    # They end with this one, however it ends.
    loop = [sys.executable, "-c", f"import os\nwhile os.getppid() == {os.getpid()}: pass"]
    running = [subprocess.Popen(loop, start_new_session=True) for _ in range(processes)]  # noqa: S603 - our own
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def run(config: BusyConfig) -> list[Busy]:
    """Every way, alone and beside."""
    found = []
    for way in WAYS:
        alone = measure(config, way)
        with busy(config.processes):
            found.append(Busy(way, alone, measure(config, way)))
    return found


def table(rows: list[Busy]) -> str:
    """Markdown."""
    lines = ["| begun as | alone, s | beside, s | times as long |", "| --- | ---: | ---: | ---: |"]
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
