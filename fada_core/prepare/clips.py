"""Cuts one video into clips on disk: square videos with sound, tensors of the face, scores, entries of the manifest."""

from __future__ import annotations

import hashlib
import json
import re
import statistics
from collections import defaultdict
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from ..data.quality import speech_activity
from ..data.sync import SyncNet
from ..errors import FadaError
from ..face.detect import Detector, Face
from ..face.identity import Embedder
from ..face.masks import MASK_SIDE, Box
from ..face.region import FaceRegion, find_face
from ..media.audio import SAMPLE_RATE
from ..media.image import from_frame, to_square
from ..media.sinks import pcm, wav_file
from ..media.video import VideoWriter
from ..records import OBJECT, Kind, RecordError, check, number, optional, read_json, several, text
from .footage import analyse, frames_at, sound_of
from .measures import Thresholds, light, yaw
from .tracks import Track, cut_up, find_tracks, union

_MEASURED = 5  # light is measured every so many frames, because it changes slowly
_EYE_REACH = 0.45, 0.3  # half width and half height of an eye's box, relative to the distance between the eyes


@dataclass(frozen=True)
class Settings:
    """Settings of the clips; videos that were processed with other settings are processed again."""

    size: int
    fps: float
    min_seconds: float
    max_seconds: float
    margin: float
    detect_every: int
    test_share: float
    thresholds: Thresholds
    face_model: Path | None
    syncnet: Path | None
    identity_model: Path | None = None


@dataclass
class Record:
    """Results of a video; kept as JSON, so that it is processed only once."""

    video: str  #: path relative to the folder of videos
    digest: str  #: of the file and the settings
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)  #: entries of the manifest
    dropped: list[dict[str, Any]] = field(default_factory=list)  #: `id`, `reason` and `quality` of clips left out
    error: str | None = None  #: reason why there are no clips at all

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read a record.

        Raises:
            FadaError: the file is damaged.
        """
        facts = read_json(path, "the record")
        try:
            check(facts, _RECORD, ("video", "digest"), only=True)
        except RecordError as error:
            raise FadaError(f"The record '{path}' is damaged: {error}; delete it.") from error
        return cls(**facts)


_RECORD: dict[str, Kind] = {
    "video": text(),
    "digest": text(),
    "seconds": number(0),
    "rows": several(OBJECT, 0, 10**6),
    "dropped": several(OBJECT, 0, 10**6),
    "error": optional(text()),
}


def digest(video: Path, settings: Settings) -> str:
    """A text that changes with the file's size or time, or with the settings."""
    facts = video.stat()
    text = json.dumps([asdict(settings), facts.st_size, facts.st_mtime_ns], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def name_of(video: str) -> str:
    """A name for a video's clips with characters for any file system; a hash of the path makes it unique."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(video).stem).strip("-")[:60]
    return f"{stem}-{hashlib.sha256(video.encode()).hexdigest()[:8]}"


def make_clips(
    folder: Path,
    video: str,
    out: Path,
    settings: Settings,
    detector: Detector | None = None,
    sync: SyncNet | None = None,
    embed: Embedder | None = None,
) -> Record:
    """Write all clips of `folder`/`video` to `out`/clips.

    Memory does not grow with the length of the video, except for its sound (230 MB per hour). A video that cannot be
    used gives a record with `error`.
    """
    path = folder / video
    record = Record(video, digest(path, settings))
    for old in (out / "clips").glob(f"{name_of(video)}-*"):  # from other settings or an interrupted run
        old.unlink()
    shortest, longest = (round(value * settings.fps) for value in (settings.min_seconds, settings.max_seconds))
    try:
        sound = sound_of(path)
        analysis = analyse(path, settings.fps, detector, settings.detect_every)
        record.seconds = round(analysis.frames / settings.fps, 2)
        heard = int(len(sound) / SAMPLE_RATE * settings.fps)
        found = [track.part(track.start, min(track.end, heard)) for track in find_tracks(analysis)]
        tracks = [part for track in found for part in cut_up(track, shortest, longest)]
        if not tracks:
            what = "shot" if detector is None else "face"
            raise FadaError(f"No {what} with sound lasts for {settings.min_seconds:g} s.")
        writers = []
        for number, track in enumerate(tracks):
            name = f"{name_of(video)}-{number:04d}"
            try:
                size = analysis.width, analysis.height
                writers.append(_Clip(name, track, *size, out / "clips", sound, settings, embed))
            except FadaError as error:  # for example a face of a few pixels
                record.dropped.append({"id": name, "reason": str(error), "quality": {}})
        _write(path, writers, settings.fps)
    except FadaError as error:
        record.error = str(error)
        return record
    # Drawn for each video, so that no video is in both splits.
    drawn = int(hashlib.sha256(video.encode()).hexdigest(), 16) % 10_000
    split = "test" if drawn < settings.test_share * 10_000 else "train"
    for clip in writers:
        quality = clip.quality() | (sync(clip.video) if sync is not None else {})
        pool, reason = settings.thresholds.pool(quality)
        quality = {name: round(value, 4) for name, value in quality.items()}
        if pool is None:
            clip.delete()
            record.dropped.append({"id": clip.name, "reason": reason, "quality": quality})
        else:
            facts = {"split": split, "pool": pool, "quality": quality, "source": video, "why_not_high": reason}
            record.rows.append(clip.entry(out) | facts)
    return record


def _write(path: Path, clips: list[_Clip], fps: float) -> None:
    """Write the clips in one pass over the video; clips of several faces may overlap."""
    waiting = sorted(clips, key=lambda clip: clip.track.start, reverse=True)
    running: list[_Clip] = []
    try:
        for index, pixels in enumerate(frames_at(path, fps)):
            while waiting and waiting[-1].track.start == index:
                running.append(waiting.pop())
                running[-1].open()
            for clip in running:
                clip.add(index, pixels)
            for clip in [clip for clip in running if clip.track.end == index + 1]:
                running.remove(clip)
                clip.close()
    finally:
        for clip in running:
            clip.close()


class _Clip:
    """A clip while it is written, with its measurements."""

    def __init__(
        self,
        name: str,
        track: Track,
        width: int,
        height: int,
        folder: Path,
        sound: Tensor,
        settings: Settings,
        embed: Embedder | None,
    ) -> None:
        self.name, self.track, self._settings, self._embed = name, track, settings, embed
        self._identity: Tensor | None = None
        self.video, self._wav, self._boxes = (folder / f"{name}.{kind}" for kind in ("mp4", "wav", "safetensors"))
        start, end = (round(frame / settings.fps * SAMPLE_RATE) for frame in (track.start, track.end))
        self._sound = sound[start:end]
        self._region = _region(track, width, height, settings.margin)
        self._scale = settings.size / self._region.side
        self._measured: defaultdict[str, list[float]] = defaultdict(list)

    def open(self) -> None:
        size = self._settings.size
        self.video.parent.mkdir(parents=True, exist_ok=True)
        self._writer = VideoWriter(self.video, size, size, self._settings.fps, self._sound, crf=14)
        self._writer.__enter__()

    def add(self, index: int, pixels: np.ndarray) -> None:
        """Add frame `index` of the footage, (h, w, 3) uint8."""
        region, position = self._region, index - self.track.start
        cut = pixels[region.top : region.top + region.side, region.left : region.left + region.side]
        image = to_square(from_frame(cut), self._settings.size)
        self._writer.write(image)
        if position == 0 and self._embed is not None and self.track.faces is not None:  # the portrait
            face = replace(region, points=self.track.faces[0].points)
            self._identity = self._embed(from_frame(pixels), face)[0]
        if position % _MEASURED == 0:
            box = None if self.track.faces is None else self._inside(self.track.faces[position].box)
            for name, value in light(image[0], box).items():
                self._measured[name].append(value)

    def close(self) -> None:
        self._writer.__exit__(None, None, None)
        with wav_file(self._wav, SAMPLE_RATE, 1) as file:
            file.writeframes(pcm(self._sound.numpy()))
        if self.track.faces is not None:
            known = {} if self._identity is None else {"identity": self._identity}
            save_file(self._face_tensors(self.track.faces) | known, self._boxes)

    def delete(self) -> None:
        for path in (self.video, self._wav, self._boxes):
            path.unlink(missing_ok=True)

    def quality(self) -> dict[str, float]:
        """Scores by their names in the manifest; most are medians over the clip."""
        scores = {name: statistics.median(values) for name, values in self._measured.items()}
        scores["speech"] = speech_activity(self._sound)
        if self.track.faces is not None:
            sides = [max(face.box.width, face.box.height) for face in self.track.faces]
            scores["face_pixels"] = statistics.median(sides)
            scores["face"] = scores["face_pixels"] / self._region.side
            scores["yaw"] = statistics.median(abs(yaw(face.points)) for face in self.track.faces)
        return scores

    def entry(self, root: Path) -> dict[str, Any]:
        """Entry of the manifest without pool, split and quality; paths are relative to `root`."""
        boxes = None if self.track.faces is None else self._boxes.relative_to(root).as_posix()
        return {
            "id": self.name,
            "video": self.video.relative_to(root).as_posix(),
            "audio": self._wav.relative_to(root).as_posix(),
            "fps": self._settings.fps,
            "frames": self.track.end - self.track.start,
            "start": round(self.track.start / self._settings.fps, 3),
            "bbox": None,
            "boxes": boxes,
            "identity": None if self._identity is None else boxes,
        }

    def _inside(self, box: Box) -> Box:
        """Convert a box of the footage to pixels of the clip."""
        size = self._settings.size
        return box.shifted(-self._region.left, -self._region.top).scaled(self._scale, self._scale).clipped(size, size)

    def _face_tensors(self, faces: Any) -> dict[str, Tensor]:
        """Tensors of the face in pixels of the clip: `face`, `mouth`, `eyes` (n, 4) x0 y0 x1 y1 and `points` (n, 5, 2)
        per frame, and `masks` (3, 64, 64) uint8 of the three audio regions for the whole clip."""
        corner = torch.tensor([self._region.left, self._region.top])
        boxes = {"face": [f.box for f in faces], "mouth": [f.lips for f in faces], "eyes": [_eyes(f) for f in faces]}
        masks = torch.stack(self._region.attention_masks([MASK_SIDE])[0]).view(3, MASK_SIDE, MASK_SIDE)
        return {
            **{name: torch.tensor([self._inside(box) for box in values]) for name, values in boxes.items()},
            "points": (torch.tensor([face.points for face in faces]) - corner) * self._scale,
            "masks": (masks * 255).round().to(torch.uint8),
        }


def _region(track: Track, width: int, height: int, margin: float) -> FaceRegion:
    """One square for the whole clip that contains the face in all frames, so that the model learns how heads move."""
    size_only = torch.empty(1, 3, 1, 1).expand(1, 3, height, width)
    if track.faces is None:
        return find_face(size_only)
    region = find_face(size_only, box=union([face.box for face in track.faces]), margin=margin)
    return replace(region, lips=union([face.lips for face in track.faces]))


def _eyes(face: Face) -> Box:
    """A box around both eyes."""
    (x0, y0), (x1, y1) = face.points[:2]
    distance = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
    side, up = (reach * distance for reach in _EYE_REACH)
    return Box(min(x0, x1) - side, min(y0, y1) - up, max(x0, x1) + side, max(y0, y1) + up)
