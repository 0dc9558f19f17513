"""What the command takes: settings for every video, one video's, a list's."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from ..face.region import MARGIN
from ..records import FLAG, choice, number, several, text
from ..settings import Compute, SamplingOptions

STDIO = "-"  #: as a path: the standard input or output


@dataclass(frozen=True, kw_only=True)
class Settings(SamplingOptions):
    """How videos are made."""

    compute: Compute = "auto"
    model: str = "tiny"
    """A shipped model's name, or the path of a checkpoint."""
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
    offload: bool = False
    """Keep what does not run in every step in host memory: slower, with less of the device's memory."""
    face_box: tuple[int, int, int, int] | None = None
    """The face in the portrait: left, top, right, bottom in pixels of the upright picture (default: looked for)."""
    face_model: Path | None = None
    """A face detector of others, face_landmarker.task or YuNet .onnx (default: the project's own; where that finds no
    face, the middle of the picture is used, with a warning)."""
    margin: float = MARGIN
    """Room around the face on each side, as a part of its longer side; models of drawn faces want 0.62."""
    identity_model: Path | None = None
    """An ArcFace network as .onnx, for models that take an identity embedding (default: zeros)."""
    square: bool = False
    """The plain square around the face that the model makes. Else it goes back into the whole picture, whose own detail
    stays where nothing moved; the video has the picture's size, up to two megapixels, which play everywhere, and a
    folder of frames has all of it."""
    json: bool = False
    """Print one line of JSON for each video and nothing else to stdout."""


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(Settings):
    """Make a talking video from a portrait and a recording of speech."""

    image: Path
    """The portrait: head and shoulders, facing the camera."""
    audio: Path
    """The recording: any file with sound; -: speech as it arrives on the standard input, such a file or raw samples (16
    bit, mono, 16 kHz)."""
    out: Path
    """The video: .mp4, .webm or .gif; without a suffix, a folder of PNG frames and audio.wav; -: mp4 to the standard
    output, for a player that shows it as it comes."""
    sheet: Path | None = None
    """Also write a picture of the portrait and of frames from the whole video."""


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
"""What a job of a list may say of itself; the rest is the same for all, so that the model is loaded once."""


HOW_IT_IS_MADE = ("json", "device", "compute", "offload", "batch_branches")
"""Settings with which the same video comes out."""


@dataclass(frozen=True, kw_only=True)
class JobsConfig(Settings):
    """Make many talking videos. Start again to go on: what is done, as the results say, is not done again.

    Under `accelerate launch` the processes share the list, each on a GPU of its own.
    """

    jobs: Path
    """A file with one JSON object a line: image, audio, out, and any of sheet, mode, steps, ref_cfg, audio_cfg, seed,
    start, duration, face_box, square. Paths are relative to it. Results go to NAME.results.jsonl beside it."""


def plain(settings: Settings) -> dict[str, Any]:
    """The settings that make a video another one, as JSON has them."""
    shared = {f.name: getattr(settings, f.name) for f in fields(Settings) if f.name not in HOW_IT_IS_MADE}
    return json.loads(json.dumps(shared, default=str))
