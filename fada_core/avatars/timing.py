"""Command: processor time of a rendered frame in one thread, including speech, style, camera and defects.

OMP_NUM_THREADS=1 python -m fada_core.avatars.timing
"""

import sys
import time
from dataclasses import dataclass
from typing import get_args

import torch

from ..command import run_command
from .clip import sample
from .performance import Pool


@dataclass
class Options:
    """Render clips of both pools and print the milliseconds of processor time per frame."""

    clips: int = 12
    """Number of clips of each pool."""
    seconds: float = 2.4
    size: int = 256
    seed: int = 5_000_000
    """Seed of the first clip."""


def run(options: Options) -> dict[str, float]:
    """Print and return the mean milliseconds of processor time per frame, for each pool."""
    torch.set_num_threads(1)
    sample(options.seed - 1, "moderate", 0.2, size=options.size)  # triggers the compilation at first use
    found = {}
    for pool in get_args(Pool):
        began, frames = time.process_time(), 0
        for seed in range(options.seed, options.seed + options.clips):
            frames += len(sample(seed, pool, options.seconds, size=options.size, framing="face").frames)
        found[pool] = 1000 * (time.process_time() - began) / frames
        sys.stdout.write(f"{pool}: {found[pool]:.1f} ms per frame, {options.clips} clips of {options.seconds:g} s\n")
    return found


def main() -> int:
    def work(options: Options) -> None:
        run(options)

    return run_command(work, Options, "avatars.timing")


if __name__ == "__main__":
    sys.exit(main())
