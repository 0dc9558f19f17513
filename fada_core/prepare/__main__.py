"""Command: turn a folder of videos into a data set for training. Start again to resume.

python -m fada_core.prepare --videos footage --out data --face-model face_landmarker.task
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, fields
from multiprocessing import get_context
from pathlib import Path

import torch
from accelerate import Accelerator
from tqdm import tqdm

from ..atomic import only_worker, whole_file
from ..checkpoint import load_checkpoint
from ..command import run_command
from ..data.manifest import ManifestSet
from ..data.samples import encode_clips
from ..data.shards import write_shards
from ..data.sync import SyncNet, load_syncnet
from ..errors import FadaError
from ..face.detect import Detector, load_detector
from ..face.identity import Embedder, load_identity
from ..face.region import MARGIN
from ..records import shortened
from .clips import Record, Settings, digest, make_clips, name_of
from .measures import Thresholds
from .report import write_report

log = logging.getLogger("fada.prepare")

SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv")


@dataclass(frozen=True)
class PrepareConfig:
    """Cut real footage into square clips of one face, measure them, and write manifest.jsonl and report.html."""

    videos: Path
    """Folder of videos, including its subfolders."""
    out: Path
    """Folder for clips, manifest, report and shards."""
    size: int = 512
    """Side of the clips in pixels."""
    fps: float = 25.0
    min_seconds: float = 2.0
    """Shorter pieces are left out."""
    max_seconds: float = 10.0
    """Longer pieces are split."""
    face_model: Path | None = None
    """Model file of a face detector (face_landmarker.task or a YuNet .onnx); without one, the centre square of the
    picture is used, and faces are not measured."""
    margin: float = MARGIN
    """Room on each side of the face, relative to its longer side."""
    detect_every: int = 5
    """Interval of face detection, in frames."""
    identity_model: Path | None = None
    """An ArcFace network as .onnx, to store each clip's face embedding for models with identity tokens (Hallo)."""
    syncnet: Path | None = None
    """syncnet_v2.model, with sfd_face.pth in the same folder, to measure the synchronisation of lips and sound."""
    thresholds: Thresholds = field(default_factory=Thresholds)
    test_share: float = 0.02
    """Share of the videos for the split "test", 0..1."""
    workers: int = max(1, (os.cpu_count() or 2) // 2)
    """Number of videos to process in parallel, each in its own process; 1: in the main process."""
    shards: bool = False
    """Also encode the clips of the split "train" with `model` and pack them into shards/*.tar."""
    model: str = "portrait"
    """Name of a shipped model, or a checkpoint, whose encoders are used for shards."""


def prepare(config: PrepareConfig) -> list[Record]:
    """Process the videos that are not done yet, write manifest and report, and return the records of all videos.

    Raises:
        FadaError: settings out of range, no videos, a model that cannot be loaded, or no usable clip at all.
    """
    _check(config)
    if not config.videos.is_dir():
        raise FadaError(f"There is no folder '{config.videos}'; give a folder of videos.")
    begun = any((config.out / name).exists() for name in ("lock", "videos"))
    if config.out.exists() and not begun and not _is_empty(config.out):
        raise FadaError(f"'{config.out}' is not empty, and not from an earlier run; give --out another name.")
    with only_worker(config.out):
        return _prepare(config)


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # surrogates, with which Python represents bytes of a name that are not UTF-8
        return False
    return True


def _prepare(config: PrepareConfig) -> list[Record]:
    out = config.out.resolve()
    videos = sorted(
        path.relative_to(config.videos).as_posix()
        for path in config.videos.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.resolve().is_relative_to(out)
    )
    for video in [video for video in videos if not _is_text(video)]:
        log.warning("left out %s: its name is not UTF-8; rename the file", shortened(video, 200))
        videos.remove(video)
    if not videos:
        raise FadaError(f"There is no video in '{config.videos}'; known suffixes are {', '.join(SUFFIXES)}.")
    settings = _settings(config)
    _tools(settings)  # so that a model that cannot be loaded is reported once, before the work
    if settings.face_model is None:
        log.info("no face detector: the centre square of each picture is used")
    kept, missing = {}, []
    for video in videos:
        record = _finished(config, settings, video)
        if record is None:
            missing.append(video)
        else:
            kept[video] = record
    if kept:
        log.info("%d videos are already done", len(kept))
    for record in tqdm(_made(config, settings, missing), total=len(missing), desc="videos", mininterval=2):
        kept[record.video] = record
        _write_text(_record_path(config, record.video), json.dumps(asdict(record)))
    records = [kept[video] for video in videos]
    for record in records:
        if record.error is not None:
            log.warning("left out %s: %s", record.video, record.error)
    rows = [row for record in records for row in record.rows]
    write_report(config.out / "report.html", records, settings.thresholds, config.out)
    if not rows:
        raise FadaError(f"None of the {len(videos)} videos gave a clip; see {config.out / 'report.html'} for reasons.")
    _write_text(config.out / "manifest.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    if config.shards:
        _shards(config)
    return records


def _check(config: PrepareConfig) -> None:
    if config.size < 32 or config.size % 2 or config.fps <= 0 or config.detect_every < 1 or config.workers < 1:
        raise FadaError("size must be even and at least 32, fps above 0, detect_every and workers at least 1.")
    if not 1 / config.fps <= config.min_seconds <= config.max_seconds:
        raise FadaError("min_seconds must be a frame or more, and max_seconds no less than it; correct one of them.")
    if config.identity_model is not None and config.face_model is None:
        raise FadaError("identity_model needs the place of the face; give face_model, too.")
    if not 0 <= config.test_share <= 1:
        raise FadaError(f"test_share is {config.test_share:g}; give a number between 0 and 1.")


def _settings(config: PrepareConfig) -> Settings:
    return Settings(**{field.name: getattr(config, field.name) for field in fields(Settings)})


def _record_path(config: PrepareConfig, video: str) -> Path:
    return config.out / "videos" / f"{name_of(video)}.json"


def _finished(config: PrepareConfig, settings: Settings, video: str) -> Record | None:
    """The record of a video from an earlier run, if file and settings are the same and it did not fail."""
    path = _record_path(config, video)
    if not path.exists():
        return None
    try:
        record = Record.read(path)
    except FadaError as error:  # damaged, for example by a full disk
        log.info("%s is processed again: %s", video, error)
        return None
    same = record.error is None and record.digest == digest(config.videos / video, settings)
    return record if same else None


def _made(config: PrepareConfig, settings: Settings, videos: Sequence[str]) -> Iterator[Record]:
    """Process videos; yields their records as they are finished, in any order."""
    config.out.mkdir(parents=True, exist_ok=True)
    if config.workers == 1:
        tools = _tools(settings)
        for video in videos:
            yield make_clips(config.videos, video, config.out, settings, *tools)
        return
    # Spawned, because the threads of torch and of the detectors do not survive a fork.
    count = min(config.workers, max(1, len(videos)))
    with ProcessPoolExecutor(count, get_context("spawn"), _start_worker, (settings,)) as pool:
        jobs = [pool.submit(_in_worker, config.videos, video, config.out, settings) for video in videos]
        try:
            yield from (job.result() for job in as_completed(jobs))
        except BrokenProcessPool as error:
            raise FadaError(
                "The system ended a process that was cutting a video, probably for lack of memory; lower --workers, "
                "and start again to resume."
            ) from error
        finally:
            for job in jobs:  # after an error or Ctrl-C, only running jobs are finished
                job.cancel()


_Tools = tuple[Detector | None, SyncNet | None, Embedder | None]
_worker_tools: _Tools = (None, None, None)


def _start_worker(settings: Settings) -> None:
    global _worker_tools
    torch.set_num_threads(1)
    _worker_tools = _tools(settings)


def _in_worker(folder: Path, video: str, out: Path, settings: Settings) -> Record:
    return make_clips(folder, video, out, settings, *_worker_tools)


def _tools(settings: Settings) -> _Tools:
    detector = None if settings.face_model is None else load_detector(settings.face_model)
    embed = None if settings.identity_model is None else load_identity(settings.identity_model)
    if settings.syncnet is None:
        return detector, None, embed
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return detector, load_syncnet(settings.syncnet, settings.syncnet.with_name("sfd_face.pth"), device), embed


def _shards(config: PrepareConfig) -> None:
    accelerator = Accelerator()
    networks, _ = load_checkpoint(config.model, device=accelerator.device)
    source = ManifestSet(config.out / "manifest.jsonl", networks.config.size, networks.config.fps)
    clips = encode_clips(source, networks, accelerator, config.out / "cache")
    for path in write_shards(clips, config.out / "shards"):
        log.info("wrote %s", path)


def _write_text(path: Path, text: str) -> None:
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _sentence(config: PrepareConfig, records: Iterable[Record]) -> str:
    records = list(records)
    pools = Counter(row["pool"] for record in records for row in record.rows)
    dropped = sum(len(record.dropped) for record in records)
    failed = sum(record.error is not None for record in records)
    return (
        f"{config.out / 'manifest.jsonl'}: {pools['high']} clips of the high and {pools['moderate']} of the moderate "
        f"pool from {len(records)} videos; {dropped} clips and {failed} videos left out ({config.out / 'report.html'})"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    logging.getLogger("fada.face").setLevel(logging.WARNING)  # it would repeat the same message for every clip

    def work(config: PrepareConfig) -> None:
        sys.stdout.write(f"{_sentence(config, prepare(config))}\n")

    return run_command(work, PrepareConfig, "prepare", arguments)


if __name__ == "__main__":
    sys.exit(main())
