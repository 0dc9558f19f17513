"""Helpers of the tests of `fada_core.generate`."""

import math
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import soundfile

STEPS = 2
RATE = 22050

Run = Callable[..., tuple[int, str, str]]
"""Runs the command with good arguments but for those given: exit status, stdout, stderr."""


def write_sound(path: Path, seconds: float, rate: int = RATE) -> None:
    t = np.arange(round(seconds * rate)) / rate
    soundfile.write(path, (0.3 * np.sin(2 * math.pi * 180 * t)).astype(np.float32), rate, subtype="FLOAT")


def decoded_frames(path: Path) -> int:
    """Number of frames of a video that can be decoded; fails if the file cannot be opened."""
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def refused(result: tuple[int, str, str], *parts: str) -> None:
    """Check for exit code 2, no output, and one sentence with these parts as the last line of stderr."""
    code, out, err = result
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    line = err.splitlines()[-1]
    assert line.startswith("error: ")
    for part in parts:
        assert part in line
