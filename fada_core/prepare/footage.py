"""Reads any video as frames at a constant rate with its sound in sync, and finds its shots and faces."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import torch.nn.functional as F
from torch import Tensor, from_numpy

from ..errors import FadaError
from ..face.detect import Detector, Face
from ..media.audio import SAMPLE_RATE, load_audio
from ..media.containers import decoded, existing_file, opened

CUT_DIFFERENCE = 0.08  #: smallest mean change of a thumbnail (values 0..1) at a cut
CUT_RATIO = 4.0  #: smallest ratio of that change to the mean of the changes before, which ignores a moving camera
_CUT_MEMORY = 12  # number of changes in that mean
_THUMBNAIL = 32  # side in pixels
_LONGEST_GAP = 600.0  # largest gap in seconds between two frames, or between the first frame and the first sound
_DETECTION_SIDE = 1280  # pixels; larger pictures are shrunk for the detector


def frames_at(path: Path, fps: float) -> Iterator[np.ndarray]:
    """Yield the frames of a video at exactly `fps`, (h, w, 3) uint8 RGB, upright: at each time the nearest frame.

    Frames are dropped or repeated, never blended. Variable frame rates are handled by their timestamps.

    Raises:
        FadaError: not a readable video, or one with gaps in its times or frames of different sizes.
    """
    path = existing_file(path, "a video")
    name = f"'{path.name}'"
    with opened(path, name, "video") as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        rate = float(stream.average_rate or fps)
        tick, first = 0, 0.0
        last: tuple[float, np.ndarray] | None = None  # time and pixels of the frame before
        for count, frame in enumerate(decoded(container, "video", name)):
            now = count / rate if frame.time is None else frame.time
            first = now if last is None else first
            time = now - first
            pixels = _upright(frame)
            if last is not None and time - last[0] > _LONGEST_GAP:
                raise FadaError(f"{name} has no frame for {time - last[0]:.0f} s; convert it to MP4.")
            if last is not None and pixels.shape != last[1].shape:
                raise FadaError(f"{name} changes the size of its frames; split it there.")
            while tick / fps <= time + 1e-6:
                yield pixels if last is None or time - tick / fps <= tick / fps - last[0] else last[1]
                tick += 1
            last = time, pixels
        # The last frame lasts as long as the others, at most 1 s.
        while last is not None and tick / fps < last[0] + min(1.0, 1 / rate) - 1e-6:
            yield last[1]
            tick += 1


def _upright(frame: av.VideoFrame) -> np.ndarray:
    # Phones store pictures as seen by the sensor, with their rotation in degrees counterclockwise.
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))


def sound_of(path: Path) -> Tensor:
    """The sound of a video, (samples,) float32 mono 16 kHz, starting at the time of the first frame.

    Raises:
        FadaError: there is no sound, it cannot be read, or it starts long before or after the pictures.
    """
    waveform = load_audio(path)
    name = f"'{path.name}'"
    with opened(path, name, "sound") as container:
        heard = next((frame.time for frame in decoded(container, "sound", name, tell=False)), None)
    with opened(path, name, "video") as container:
        seen = next((frame.time for frame in decoded(container, "video", name, tell=False)), None)
    late = (heard or 0.0) - (seen or 0.0)
    if abs(late) > _LONGEST_GAP:
        raise FadaError(f"{name} has {late:.0f} s between its first frame and its first sound; convert it to MP4.")
    return F.pad(waveform, (round(late * SAMPLE_RATE), 0))  # negative padding cuts


@dataclass
class Analysis:
    """Results of the first pass over a video."""

    width: int = 0
    height: int = 0
    frames: int = 0
    cuts: list[int] = field(default_factory=list)  #: first frames of all shots but the first
    faces: dict[int, list[Face]] | None = None  #: by frame, for every few frames; None: without a detector

    def shots(self) -> list[tuple[int, int]]:
        """(first frame, last frame + 1) of every shot."""
        edges = [0, *self.cuts, self.frames]
        return [(a, b) for a, b in zip(edges, edges[1:], strict=False) if a < b]


def analyse(path: Path, fps: float, detector: Detector | None, every: int) -> Analysis:
    """Find cuts in the frames at `fps`, and faces in every `every`-th frame and after each cut.

    Raises:
        FadaError: not a readable video, or one without frames.
    """
    found = Analysis(faces=None if detector is None else {})
    finder = CutFinder()
    for index, pixels in enumerate(frames_at(path, fps)):
        found.height, found.width = pixels.shape[:2]
        found.frames = index + 1
        cut = finder.is_cut(pixels)
        if cut:
            found.cuts.append(index)
        if detector is not None and found.faces is not None and (cut or index % every == 0):
            found.faces[index] = detect(pixels, detector)
    if not found.frames:
        raise FadaError(f"'{path.name}' has no complete frame; give another file.")
    return found


class CutFinder:
    """Finds cuts by sudden changes of a thumbnail; pass every frame in order."""

    def __init__(self) -> None:
        self._last: Tensor | None = None
        self._changes: deque[float] = deque(maxlen=_CUT_MEMORY)

    def is_cut(self, pixels: np.ndarray) -> bool:
        """Whether this frame (h, w, 3) uint8 begins a new shot."""
        step = max(1, min(pixels.shape[:2]) // (4 * _THUMBNAIL))
        sampled = from_numpy(np.ascontiguousarray(pixels[::step, ::step])).permute(2, 0, 1).float() / 255
        thumbnail = F.adaptive_avg_pool2d(sampled, _THUMBNAIL)
        if self._last is None:
            self._last = thumbnail
            return False
        change = float((thumbnail - self._last).abs().mean())
        self._last = thumbnail
        # For the second frame of a shot there is no mean yet, so it never counts as a cut.
        usual = sum(self._changes) / len(self._changes) if self._changes else change
        cut = change > CUT_DIFFERENCE and change > CUT_RATIO * usual
        if cut:
            self._changes.clear()
        else:
            self._changes.append(change)
        return cut


def detect(pixels: np.ndarray, detector: Detector) -> list[Face]:
    """Faces in a picture (h, w, 3) uint8, in its own pixels, detected in a copy of at most _DETECTION_SIDE pixels."""
    height, width = pixels.shape[:2]
    step = -(-max(height, width) // _DETECTION_SIDE)
    if step == 1:
        return detector(pixels)
    small = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(width // step, height // step, "rgb24")
    x, y = width / small.width, height / small.height
    return [
        Face(face.box.scaled(x, y), face.lips.scaled(x, y), tuple((px * x, py * y) for px, py in face.points))
        for face in detector(small.to_ndarray())
    ]
