"""Command: spoil whole files of every kind in many ways, and see that each ends in a result or in one sentence.

python -m tests.fuzz --cases 1600
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import tyro

from .guard import Guard
from .weights import SHARES


@dataclass
class FuzzConfig:
    """Try damaged files."""

    cases: int = 1600
    """In all; kinds that take longer get fewer."""
    kinds: tuple[str, ...] = tuple(SHARES)
    seed: int = 0
    """Of the first case; the same seeds make the same cases."""
    keep: Path = Path("fuzz-failures")
    """Folder for the files of cases that fail."""


def main() -> int:
    config = tyro.cli(FuzzConfig, prog="python -m tests.fuzz", description=__doc__)
    whole = sum(SHARES[kind] for kind in config.kinds)
    failed = 0
    with Guard(config.keep) as guard:
        for kind in config.kinds:
            ends: Counter[str] = Counter()
            slowest = 0.0
            for seed in range(config.seed, config.seed + round(config.cases * SHARES[kind] / whole)):
                outcome = guard.try_case(kind, seed)
                ends[outcome.how] += 1
                slowest = max(slowest, outcome.seconds)
                if not outcome.fine:
                    failed += 1
                    sys.stdout.write(f"{kind} {seed}: {outcome.how}: {outcome.text}\n")
                    sys.stdout.flush()
            told = ", ".join(f"{count} {how}" for how, count in ends.most_common())
            sys.stdout.write(f"{kind}: {ends.total()} cases, {told}; the slowest took {slowest:.1f} s\n")
            sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
