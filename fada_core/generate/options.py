"""Options of the command: settings for all videos, for a single video, and for a list of jobs."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from ..face.region import MARGIN
from ..records import FLAG, choice, number, several, text
from ..settings import Compute, SamplingOptions

STDIO = "-"  #: a path that stands for the standard input or output


@dataclass(frozen=True, kw_only=True)
class Settings(SamplingOptions):
    """Settings that apply to all videos of a run."""

    compute: Compute = "auto"
    model: str = "portrait"
    """A shipped model's name, or the path of a checkpoint."""
    seed: int = 0
    """Seed of the noise; the same seed on the same machine gives the same video."""
    start: float = 0.0
    """Start within the recording, in seconds."""
    duration: float | None = None
    """Length of the recording to use, in seconds (default: to its end)."""
    device: str | None = None
    """cpu, cuda, mps ... (default: the accelerator if there is one, else cpu)."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Precision of the networks (default: bfloat16 on CUDA devices that support it, else float32)."""
    offload: bool = False
    """Keep the networks that do not run in every step in host memory: slower, but takes less device memory."""
    face_box: tuple[int, int, int, int] | None = None
    """The face in the portrait: left, top, right, bottom in pixels of the upright picture (default: detected)."""
    face_model: Path | None = None
    """Another face detector, face_landmarker.task or YuNet .onnx (default: the built-in one; if it finds no face, the
    middle of the picture is used, with a warning)."""
    margin: float = MARGIN
    """Room around the face on each side, as a part of its longer side."""
    identity_model: Path | None = None
    """An ArcFace network as .onnx, for models that take an identity embedding (default: zeros)."""
    square: bool = False
    """Write only the square around the face that the model generates. By default it is pasted into the whole picture,
    which keeps its detail where nothing moves. The video then has the picture's size, but at most two megapixels, which
    all players support; a folder of frames has the full size."""
    json: bool = False
    """Print one line of JSON per video to stdout, and nothing else."""


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(Settings):
    """Make a talking video from a portrait and a recording of speech."""

    image: Path
    """The portrait: head and shoulders, facing the camera."""
    audio: Path
    """The recording: any file with sound. -: speech that arrives on the standard input, as such a file or as raw
    samples (16 bit, mono, 16 kHz)."""
    out: Path
    """The video: .mp4, .webm or .gif; without a suffix, a folder of PNG frames and audio.wav. -: mp4 to the standard
    output, for a player that shows it while it arrives."""
    sheet: Path | None = None
    """Also write a contact sheet: one picture of the portrait and of frames from the whole video."""


PATHS = ("image", "audio", "out", "sheet")  #: settings of a job that are paths
JOB = {
    **dict.fromkeys(PATHS, text(r"(?s:.+)", "a path")),
    "mode": choice("teacher", "balanced", "fast"),
    "steps": number(1, 1000, whole=True),
    "ref_cfg": number(),
    "audio_cfg": number(),
    "seed": number(whole=True),
    "start": number(0),
    "duration": number(0),
    "face_box": several(number(), 4, 4),
    "square": FLAG,
}
"""Entries that a job of a list may have; all other settings are the same for all jobs, so the model is loaded once."""


HOW_IT_IS_MADE = ("json", "device", "compute", "offload", "batch_branches")
"""Settings that do not affect the video."""


@dataclass(frozen=True, kw_only=True)
class JobsConfig(Settings):
    """Make many talking videos. To resume, start again: jobs that are done according to the results are skipped.

    Under `accelerate launch` the processes share the list, each with its own GPU.
    """

    jobs: Path
    """A file with one JSON object per line: image, audio, out, and any of sheet, mode, steps, ref_cfg, audio_cfg, seed,
    start, duration, face_box, square. Paths are relative to the file's folder; results are written there to
    NAME.results.jsonl."""


def plain(settings: Settings) -> dict[str, Any]:
    """The settings that affect the video, as JSON values."""
    shared = {f.name: getattr(settings, f.name) for f in fields(Settings) if f.name not in HOW_IT_IS_MADE}
    return json.loads(json.dumps(shared, default=str))
