"""Command: a portrait and a recording become a talking video; or a list of such jobs, shared by several processes.

python -m fada_core.generate --image portrait.png --audio speech.wav --out talking.mp4
accelerate launch -m fada_core.generate --jobs jobs.jsonl
"""

from __future__ import annotations

import json
import logging
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import FrameType
from typing import Literal

import numpy as np
import torch
import tyro
from accelerate import PartialState
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from . import __version__
from .errors import FadaError
from .jobs import Accepted, Job, read_jobs, run_jobs
from .media.audio import SAMPLE_RATE, listen, load_audio
from .media.face import FaceRegion, crop, find_face
from .media.face_detect import installed_detector, load_detector
from .media.face_identity import identity_embedding
from .media.face_paste import PasteBack
from .media.image import load_image, to_bytes, to_uint8
from .media.video import VideoWriter, contact_sheet
from .pipeline import LiveFrames, Pipeline, load
from .sampling.ahead import Behind, decode_ahead
from .sampling.chain import clip_count

SHEET_COLUMNS, SHEET_ROWS = 6, 3
STDIO = "-"  #: as a path: the standard input or output
SAMPLING = ("mode", "steps", "ref_cfg", "audio_cfg", "seed", "solver", "guidance_interval", "batch_branches")
"""Settings that are the sampler's."""
MODEL_FOLDER = Path("models", "fada")  #: where a face detector is looked for, besides the checkpoint's folder


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How videos are made."""

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
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Part of the schedule, 0 (clean) to 1 (noise), in which the two scales apply; elsewhere there is one pass."""
    solver: Literal["ddim", "dpm++", "unipc"] = "ddim"
    batch_branches: bool = True
    """Compute the guidance branches together; alone, they take less memory and more time."""
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
    compute: Literal["auto", "eager", "compile", "graph"] = "auto"
    """How the networks run: compiled (a minute or two at first), as a CUDA graph, or as they are. auto compiles long
    jobs on CUDA."""
    offload: bool = False
    """Keep what does not run in every step in host memory: slower, with less of the device's memory."""
    face_box: tuple[int, int, int, int] | None = None
    """The face in the portrait: left, top, right, bottom in pixels of the upright picture (default: looked for)."""
    face_model: Path | None = None
    """A face detector, face_landmarker.task or YuNet .onnx (default: one beside the checkpoint or in models/fada; else
    the middle of the picture is used)."""
    identity_model: Path | None = None
    """An ArcFace network as .onnx, for models that take an identity embedding (default: zeros)."""
    paste_back: bool = False
    """Put the animated square back into the portrait: the video has the portrait's size."""
    json: bool = False
    """Print one line of JSON for each video and nothing else to stdout."""


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(Settings):
    """Make a talking video from a portrait and a recording of speech."""

    image: Path
    """The portrait: head and shoulders, facing the camera."""
    audio: Path
    """The recording: any file with sound; -: speech as it arrives on the standard input, raw, 16 bit, mono, 16 kHz."""
    out: Path
    """The video: .mp4, .webm or .gif; without a suffix, a folder of PNG frames and audio.wav; -: mp4 to the standard
    output, for a player that shows it as it comes."""
    sheet: Path | None = None
    """Also write a picture of the portrait and of frames from the whole video."""


PATHS = ("image", "audio", "out", "sheet")  #: settings of a job that are paths
JOB: Accepted = {
    **dict.fromkeys(PATHS, str),
    "mode": str,
    "steps": int,
    "ref_cfg": (int, float),
    "audio_cfg": (int, float),
    "seed": int,
    "start": (int, float),
    "duration": (int, float),
    "face_box": list,
    "paste_back": bool,
}
"""What a job of a list may say of itself; the rest is the same for all, so that the model is loaded once."""


@dataclass(frozen=True, kw_only=True)
class JobsConfig(Settings):
    """Make many talking videos. Start again to go on: what is done, as the results say, is not done again.

    Under `accelerate launch` the processes share the list, each on a GPU of its own.
    """

    jobs: Path
    """A file with one JSON object a line: image, audio, out, and any of sheet, mode, steps, ref_cfg, audio_cfg, seed,
    start, duration, face_box, paste_back. Paths are relative to it. Results go to NAME.results.jsonl beside it."""


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


def generate(config: GenerateConfig, check: Callable[[], None] | None = None, pipe: Pipeline | None = None) -> Report:
    """Make the video, clip by clip, in memory that does not grow with its length; progress goes to stderr.

    However it ends, the frames finished until then are in a playable file.

    Args:
        check: called after every denoising step; whatever it raises ends the work.
        pipe: to work with, in place of one that is loaded as `config` says.

    Raises:
        FadaError: any of the user's mistakes that portrait, recording, checkpoint, options and output can hold.
    """
    _check_outputs(config)
    portrait = load_image(config.image)
    speech = None if str(config.audio) == STDIO else load_audio(config.audio, config.start, config.duration)
    pipe = pipe or open_pipeline(config)
    size, fps = pipe.config.size, pipe.config.fps
    origin = {"comment": f"generated by FADA {__version__}, model {pipe.config.name}, seed {config.seed}"}
    region = _region(config, portrait)
    height, width = portrait.shape[-2:] if config.paste_back else (size, size)
    sound = torch.zeros(0) if speech is None else speech
    writer = VideoWriter(config.out, width, height, fps, sound, metadata=origin)
    started = time.perf_counter()
    identity = identity_embedding(portrait, region, config.identity_model) if config.identity_model else None
    who = {"region": region, "identity": identity}
    sheet = _Sheet(crop(portrait, region, size), 0 if speech is None else math.ceil(len(speech) * fps / SAMPLE_RATE))
    paste = PasteBack(portrait, region) if config.paste_back else None
    how = {name: getattr(config, name) for name in SAMPLING}

    def write(frames: Tensor) -> None:
        sheet.add(frames if paste is None else to_uint8(frames))
        # A pasted frame may be many times larger: one at a time.
        for part in [frames] if paste is None else map(paste, frames.split(1)):
            writer.write(part)

    # Both ways to sample check their arguments at once, before the writer replaces a file.
    with ExitStack() as stack:
        behind = Behind()
        finish = to_bytes if paste is None else Tensor.float
        if speech is None:
            pipe.accelerate(config.compute)
            arriving = listen(sys.stdin.buffer, pipe.config.clip_frames / fps)
            clips = _live(
                pipe.stream(portrait, arriving, **who, **how), lambda sound: behind(writer.hear, sound), check
            )
            videos = (finish(frames).cpu() for frames in clips)
        else:
            cond = pipe.encode(portrait, speech, config.fps, **who)
            pipe.accelerate(config.compute, clip_count(cond.frames, pipe.config.clip_frames))
            bar = stack.enter_context(_progress(cond.frames))

            def advance(step: int, steps: int, latents: Tensor) -> None:
                bar.update(cond.frames * step / steps - bar.n)
                if check:
                    check()

            videos = decode_ahead(pipe.decode, pipe.sample(cond, callback=advance, **how), pipe.device, finish)
        stack.enter_context(writer)
        stack.enter_context(behind)
        for frames in videos:
            behind(write, frames)
    if config.sheet:
        sheet.save(config.sheet)
    seconds = time.perf_counter() - started
    return Report(
        out=str(config.out),
        frames=pipe.stats.frames,
        fps=fps,
        width=width,
        height=height,
        nfe_per_clip=pipe.stats.nfe_per_clip,
        clips=pipe.stats.clips,
        seconds=round(seconds, 3),
        realtime_factor=round(seconds * fps / pipe.stats.frames, 3),
        peak_memory_mb=round(_peak_memory(pipe), 1),
        seed=config.seed,
    )


def _live(
    parts: Iterator[LiveFrames], hear: Callable[[Tensor], None], check: Callable[[], None] | None
) -> Iterator[Tensor]:
    """The frames, after the sound that belongs to them was passed on."""
    for part in parts:
        hear(part.samples)
        yield part.frames
        if check:
            check()


def open_pipeline(settings: Settings) -> Pipeline:
    """The model that the settings ask for, where and how precisely they say."""
    return load(
        settings.model, settings.device, settings.dtype and getattr(torch, settings.dtype), offload=settings.offload
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, 2 after a user's mistake, 128 + signal after Ctrl-C or SIGTERM."""
    arguments = sys.argv[1:] if arguments is None else arguments
    many = any(argument.partition("=")[0] == "--jobs" for argument in arguments)
    config = tyro.cli(
        JobsConfig if many else GenerateConfig,
        args=arguments,
        prog="python -m fada_core.generate",
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    stop = _Stop()

    def tell(report: Report) -> None:
        stream = sys.stderr if report.out == STDIO else sys.stdout
        stream.write(f"{json.dumps(asdict(report)) if config.json else _sentence(report)}\n")
        stream.flush()

    try:
        with stop:
            if isinstance(config, JobsConfig):
                return 0 if _do_jobs(config, tell, stop.check) else 2
            tell(generate(config, stop.check))
    except FadaError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        where = "their files" if isinstance(config, JobsConfig) else str(config.out)
        sys.stderr.write(f"stopped; the clips finished until then, if any, are in {where}\n")
        return 128 + stop.number
    return 0


def _do_jobs(config: JobsConfig, tell: Callable[[Report], None], check: Callable[[], None]) -> bool:
    """This process's share of a list; returns whether all of it succeeded."""
    folder = config.jobs.parent
    jobs = read_jobs(config.jobs, JOB, ("image", "audio", "out"))
    shared = {f.name: getattr(config, f.name) for f in fields(Settings)}

    def work() -> Callable[[Job], dict[str, object]]:
        state = PartialState()
        pipe = open_pipeline(replace(config, device=str(state.device)) if state.num_processes > 1 else config)

        def make(job: Job) -> dict[str, object]:
            paths = {name: folder / job[name] for name in PATHS if name in job}
            report = generate(GenerateConfig(**shared | job | paths), check, pipe)
            tell(report)
            return asdict(report)

        return make

    return run_jobs(config.jobs, jobs, work)


def _region(config: GenerateConfig, portrait: Tensor) -> FaceRegion:
    """Where the face is, by what the user gave or has."""
    if config.face_box is not None:
        if config.face_model is not None:
            raise FadaError("--face-box says where the face is, --face-model looks for it; give one of the two.")
        return find_face(portrait, box=config.face_box)
    path = config.face_model or installed_detector([Path(config.model).parent, MODEL_FOLDER])
    return find_face(portrait, detector=path and load_detector(path), required=config.face_model is not None)


def _check_outputs(config: GenerateConfig) -> None:
    """What would only come to light after the work, or be lost by it."""
    if str(config.audio) == STDIO and (config.sheet or config.start or config.duration or config.fps):
        raise FadaError("Speech from the standard input has no end yet: leave out --sheet, --start, --duration, --fps.")
    if config.sheet and config.sheet.suffix.lower() not in Image.registered_extensions():
        raise FadaError(f"'{config.sheet.suffix}' is no picture format, so --sheet cannot be written; use .png.")
    for source in (config.image, config.audio):
        for target in (config.out, config.sheet):
            if target and str(target) != STDIO and target.resolve() == source.resolve():
                raise FadaError(f"'{source}' would be overwritten by the result; give --out and --sheet other names.")


class _Stop:
    """Ctrl-C and SIGTERM end the work the same way: by KeyboardInterrupt, at once.

    An exception that a signal raises inside a library's callback can be swallowed there; `check` raises it again.
    """

    number = 0  #: of the signal that came

    def __enter__(self) -> None:
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        raise KeyboardInterrupt

    def check(self) -> None:
        if self.number:
            raise KeyboardInterrupt


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
    """The portrait's square and frames evenly spaced over the video, in one picture; holds only those frames."""

    def __init__(self, portrait: Tensor, frames: int) -> None:
        count = min(frames, SHEET_COLUMNS * SHEET_ROWS - 1)
        self._wanted = set(np.linspace(0, frames - 1, count).round().astype(int).tolist())
        self._seen = 0
        self._tiles = [to_uint8(portrait)[0]]

    def add(self, frames: Tensor) -> None:
        """Take note of the next frames, (n, size, size, 3) uint8."""
        self._tiles += [frame.clone() for i, frame in enumerate(frames, self._seen) if i in self._wanted]
        self._seen += len(frames)

    def save(self, path: Path) -> None:
        try:
            contact_sheet(self._tiles, SHEET_COLUMNS, path)
        except OSError as error:
            raise FadaError(f"'{path}' cannot be written ({error.strerror}); choose another place.") from error


if __name__ == "__main__":
    sys.exit(main())
