"""Command: a portrait and a recording become a talking video.

    python -m fada_core.generate --image portrait.png --audio speech.wav --out talking.mp4
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from .errors import FadaError
from .media.audio import load_audio
from .media.image import load_image, to_square
from .media.video import VideoWriter
from .pipeline import Pipeline, load

SHEET_COLUMNS, SHEET_ROWS = 6, 3
_DEFAULT_MODE = {"teacher": "teacher", "student": "fast"}


@dataclass(frozen=True)
class GenerateConfig:
    """Make a talking video from a portrait and a recording of speech."""

    image: Path
    """The portrait: head and shoulders, facing the camera."""
    audio: Path
    """The recording: any file with sound."""
    out: Path
    """The video; its suffix chooses the format: .mp4, .webm, .gif, or .png for single frames."""
    model: str = "tiny"
    """A shipped model's name, or the path of a checkpoint."""
    mode: Literal["teacher", "balanced", "fast"] | None = None
    """How to sample (default: teacher for a teacher's checkpoint, fast for a student's)."""
    steps: int | None = None
    """Denoising steps of a clip (default: the checkpoint's)."""
    ref_cfg: float | None = None
    """Guidance towards the portrait, 1 = none (default: the checkpoint's)."""
    audio_cfg: float | None = None
    """Guidance towards the speech, 1 = none (default: the checkpoint's)."""
    solver: Literal["ddim", "dpm++", "unipc"] = "ddim"
    seed: int = 0
    """The same seed on the same machine gives the same video."""
    fps: float | None = None
    """Frames per second (default: the model's, the only rate that it can make)."""
    start: float = 0.0
    """Where in the recording to begin, in seconds."""
    duration: float | None = None
    """How much of the recording to use, in seconds (default: all)."""
    device: str | None = None
    """cpu, cuda, mps ... (default: the accelerator, if there is one)."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Precision of the networks (default: what suits the device)."""
    sheet: Path | None = None
    """Also write a picture of the portrait and of frames from the whole video."""
    json: bool = False
    """Print one line of JSON and nothing else to stdout."""


@dataclass(frozen=True)
class Report:
    """What `generate` did."""

    out: str
    frames: int
    fps: float
    width: int
    height: int
    nfe_per_clip: float  #: forward passes of the denoising UNet for one clip, per conditional branch
    clips: int
    seconds: float  #: from the encoding of portrait and speech to the finished file, without loading the model
    realtime_factor: float  #: seconds of work for one second of video; below 1 is faster than real time
    peak_memory_mb: float  #: MiB: of the device's memory on CUDA, else of the whole process
    seed: int


def generate(config: GenerateConfig) -> Report:
    """Make the video, clip by clip, in memory that does not grow with its length; progress goes to stderr.

    However it ends, the frames finished until then are in a playable file.

    Raises:
        FadaError: any of the user's mistakes that portrait, recording, checkpoint, options and output can hold.
    """
    if config.sheet and config.sheet.suffix.lower() not in Image.registered_extensions():
        raise FadaError(f"'{config.sheet.suffix}' is no picture format, so --sheet cannot be written; use .png.")
    portrait = load_image(config.image)
    speech = load_audio(config.audio, config.start, config.duration)
    pipe = load(config.model, config.device, config.dtype and getattr(torch, config.dtype))
    started = time.perf_counter()
    cond = pipe.encode(portrait, speech, config.fps)
    size, fps = pipe.config.size, pipe.config.fps
    sheet = _Sheet(portrait, size, cond.frames) if config.sheet else None
    with _progress(cond.frames) as bar:

        def advance(step: int, steps: int, latents: Tensor) -> None:
            bar.update(cond.frames * step / steps - bar.n)

        clips = pipe.sample(
            cond,
            config.mode or _DEFAULT_MODE[pipe.info.role],
            config.steps,
            config.ref_cfg,
            config.audio_cfg,
            config.seed,
            config.solver,
            advance,
        )
        with VideoWriter(config.out, size, size, fps, speech) as writer:
            for latents in clips:
                frames = pipe.decode(latents)
                writer.write(frames)
                if sheet:
                    sheet.add(frames)
    if sheet:
        sheet.save(config.sheet)
    seconds = time.perf_counter() - started
    return Report(
        out=str(config.out),
        frames=pipe.stats.frames,
        fps=fps,
        width=size,
        height=size,
        nfe_per_clip=pipe.stats.nfe_per_clip,
        clips=pipe.stats.clips,
        seconds=round(seconds, 3),
        realtime_factor=round(seconds * fps / pipe.stats.frames, 3),
        peak_memory_mb=round(_peak_memory(pipe), 1),
        seed=config.seed,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, 2 after a user's mistake, 128 + signal after Ctrl-C or SIGTERM."""
    config = tyro.cli(
        GenerateConfig,
        args=arguments,
        prog="python -m fada_core.generate",
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    try:
        with _termination_interrupts():
            report = generate(config)
    except FadaError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt as stop:
        sys.stderr.write(f"stopped; the clips finished until then, if any, are in {config.out}\n")
        return 128 + (signal.SIGTERM if isinstance(stop, _Terminated) else signal.SIGINT)
    sys.stdout.write(f"{json.dumps(asdict(report)) if config.json else _sentence(report)}\n")
    return 0


class _Terminated(KeyboardInterrupt):
    """SIGTERM: ends the work in the same order as Ctrl-C."""


@contextmanager
def _termination_interrupts() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _progress(frames: int) -> tqdm:
    # Steps count as parts of a clip's frames, so that the bar also moves while a slow clip is denoised.
    form = "{percentage:3.0f}%|{bar}| {n:.0f}/{total} frames, {rate_noinv_fmt}, {remaining} left"
    return tqdm(total=frames, unit=" frames", bar_format=form, file=sys.stderr)


def _sentence(report: Report) -> str:
    return (
        f"{report.out}: {report.frames} frames at {report.fps:g} fps, {report.nfe_per_clip:g} NFE per clip "
        f"({report.clips} clips), {report.seconds:.1f} s, real-time factor {report.realtime_factor:.2f}, "
        f"peak memory {report.peak_memory_mb:.0f} MB"
    )


def _peak_memory(pipe: Pipeline) -> float:
    """The most memory in use at once, in MiB."""
    device = pipe.networks.device
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**20
    import resource  # Unix only

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, KiB elsewhere


class _Sheet:
    """The portrait and frames evenly spaced over the video, in one picture; holds only those frames."""

    def __init__(self, portrait: Tensor, size: int, frames: int) -> None:
        count = min(frames, SHEET_COLUMNS * SHEET_ROWS - 1)
        self._wanted = set(np.linspace(0, frames - 1, count).round().astype(int).tolist())
        self._seen = 0
        self._size = size
        self._tiles = [_pixels(to_square(portrait, size))[0]]

    def add(self, frames: Tensor) -> None:
        """Take note of the next frames, (n, 3, size, size) in -1..1."""
        rows = [i for i in range(len(frames)) if self._seen + i in self._wanted]
        self._tiles += list(_pixels(frames[rows]))
        self._seen += len(frames)

    def save(self, path: Path) -> None:
        columns = min(len(self._tiles), SHEET_COLUMNS)
        rows = -(-len(self._tiles) // columns)
        sheet = Image.new("RGB", (columns * self._size, rows * self._size), "white")
        for i, tile in enumerate(self._tiles):
            sheet.paste(Image.fromarray(tile), (i % columns * self._size, i // columns * self._size))
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)


def _pixels(images: Tensor) -> np.ndarray:
    """(n, 3, h, w) in -1..1 as (n, h, w, 3) uint8."""
    return ((images.permute(0, 2, 3, 1).float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()


if __name__ == "__main__":
    sys.exit(main())
