"""Video out, clip by clip with its sound, and back in: frames, facts about a file, contact sheets."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import imageio.v3 as iio
import numpy as np
from torch import Tensor

from ..errors import FadaError
from .containers import decoded, existing_file, opened, packets
from .image import to_uint8
from .sinks import STDOUT, SUFFIXES, ContainerSink, FolderSink, Sink


class VideoWriter:
    """Writes frames and the sound that belongs to them as they arrive; a context manager.

    The file's format follows from its suffix: `.mp4` (H.264, AAC), `.webm` (VP9, Opus), `.gif` (no sound, no metadata);
    a path without suffix, or of an existing folder, is a folder of PNG pictures with `audio.wav` beside them; `-` is
    MP4 to the standard output, in fragments that a player shows as they come. The
    parent folder is created, an existing file replaced. Sound is written up to the time of the last frame, padded with
    silence where it is shorter. What was written so far stays playable however the process ends; of a killed one, about
    the last half second is missing. Leaving the `with` block by an exception finishes the file like any other end.

    MP4 and WebM store colours at half resolution and need even sides: an odd side repeats its last row or column.

    Args:
        path: where to.
        width, height: of the frames that will come, pixels.
        fps: frames per second; fractions like 29.97 are taken as the nearest with a denominator up to 1001.
        audio: (samples,) or (channels, samples) with one or two channels, float in -1..1; None: a silent file. More
            may follow by `hear`.
        audio_rate: of `audio`, Hz.
        metadata: names and texts stored in the file, e.g. `{"comment": ...}`.
        crf: quality of MP4 and WebM as H.264 counts it, 0 (lossless) to 51; 18 shows no loss to the eye.

    Raises:
        FadaError: unknown suffix, wrong shape of audio or frames, a file that cannot be written, a full disk, or no
            frame at all by the end of the block.
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        fps: float,
        audio: Tensor | None = None,
        *,
        audio_rate: int = 16000,
        metadata: Mapping[str, str] | None = None,
        crf: int = 18,
    ) -> None:
        self.path = Path(path)
        self.frames = 0  #: written so far
        self._piped = str(path) == STDOUT
        self._folder = not self._piped and (str(path).endswith("/") or self.path.is_dir() or not self.path.suffix)
        if not self._folder and not self._piped and self.path.suffix.lower() not in SUFFIXES:
            allowed = ", ".join(SUFFIXES)
            raise FadaError(f"'{self.path.suffix}' is no video format here; use {allowed}, or a folder for PNG frames.")
        if width < 1 or height < 1 or not 0 < fps <= 1000:
            raise FadaError(f"A video of {width}x{height} pixels at {fps:g} fps cannot be; give positive numbers.")
        if audio is not None and (audio.ndim > 2 or (audio.ndim == 2 and audio.shape[0] not in (1, 2))):
            raise FadaError(f"The audio has the shape {tuple(audio.shape)}; give (samples,) or (1 or 2, samples).")
        self._size = height, width
        self._pad = (0, 0) if self._folder or self.path.suffix.lower() == ".gif" else (height % 2, width % 2)
        self._fps = Fraction(fps).limit_denominator(1001)
        self._audio = None if audio is None else np.atleast_2d(audio.detach().float().cpu().numpy()).T
        self._audio_rate = audio_rate
        self._sounded = 0  # samples written so far; `_audio` holds what comes after them
        self._metadata = metadata or {}
        self._crf = crf
        self._sink: Sink

    def __enter__(self) -> VideoWriter:
        sound = None if self._audio is None else (self._audio_rate, self._audio.shape[1])
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self._folder:
                self._sink = FolderSink(self.path, self._fps, sound=sound, metadata=self._metadata)
            else:
                height, width = (side + extra for side, extra in zip(self._size, self._pad, strict=True))
                made = {"crf": self._crf, "sound": sound, "metadata": self._metadata}
                self._sink = ContainerSink(self.path, width, height, self._fps, **made)
        except (OSError, av.FFmpegError) as error:
            raise self._failure(error) from error
        return self

    def hear(self, samples: Tensor) -> None:
        """More sound, of as many channels as there was in the beginning, to follow what is there."""
        more = np.atleast_2d(samples.detach().float().cpu().numpy()).T
        self._audio = np.concatenate([self._audio, more])

    def write(self, frames: Tensor | np.ndarray) -> None:
        """The next frames: float (n, 3, h, w) in -1..1, or uint8 (n, h, w, 3)."""
        if isinstance(frames, Tensor):
            frames = (to_uint8(frames) if frames.is_floating_point() else frames.cpu()).numpy()
        if frames.dtype != np.uint8 or frames.shape[1:] != (*self._size, 3):
            height, width = self._size
            raise FadaError(
                f"Frames of the shape {tuple(frames.shape)} do not fit; give (n, 3, {height}, {width}) floats "
                f"or (n, {height}, {width}, 3) bytes."
            )
        try:
            for frame in frames:
                padded = np.pad(frame, ((0, self._pad[0]), (0, self._pad[1]), (0, 0)), mode="edge")
                self._sink.video(padded)
                self.frames += 1
                self._sound_until_now()
        except (OSError, av.FFmpegError) as error:
            raise self._failure(error) from error

    def _sound_until_now(self) -> None:
        if self._audio is None:
            return
        end = round(self.frames / self._fps * self._audio_rate)
        block, self._audio = np.split(self._audio, [end - self._sounded])
        silence = end - self._sounded - len(block)
        self._sink.sound(np.pad(block, ((0, silence), (0, 0))))
        self._sounded = end

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, FadaError) and isinstance(error.__cause__, (OSError, av.FFmpegError)):
            # The disk is full, say: the file cannot be finished, and is playable as it is.
            with suppress(OSError, av.FFmpegError):
                self._sink.close()
            return
        try:
            self._sink.close()
        except (OSError, av.FFmpegError) as failure:
            raise self._failure(failure) from failure
        if not self.frames:
            if not self._folder and not self._piped:
                self.path.unlink()
            if error is None:
                raise FadaError(f"No frame was written to '{self.path}'; give at least one.")

    def _failure(self, error: OSError | av.FFmpegError) -> FadaError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return FadaError(
                f"The disk is full: what '{self.path}' holds of the first {self.frames} frames stays playable; "
                "free some space or write elsewhere."
            )
        return FadaError(f"'{self.path}' cannot be written ({error.strerror}); choose another place.")


@dataclass(frozen=True)
class VideoFacts:
    """What is in a video file; times in seconds from its beginning."""

    width: int
    height: int
    fps: float
    frames: int
    duration: float
    audio_rate: int | None  #: None: no sound
    audio_duration: float


def probe(path: str | Path) -> VideoFacts:
    """Facts about a video, counted from its packets rather than its header, so that unfinished files work too.

    Raises:
        FadaError: no such file, no video of a known format, or one beyond the limits of `containers`.
    """
    path = existing_file(path, "a video")
    with opened(path, f"'{path.name}'", "video") as container:
        video, sound = container.streams.video[0], next(iter(container.streams.audio), None)
        if not video.average_rate:
            raise FadaError(f"'{path.name}' does not say how many frames a second has; convert it to MP4.")
        frames, ends = 0, {video.index: 0.0, **({sound.index: 0.0} if sound else {})}
        for packet in packets(container, *(stream for stream in (video, sound) if stream)):
            # An error, the flushing packet after the last one, one that was cut off
            if isinstance(packet, av.FFmpegError) or packet.pts is None or packet.is_corrupt:
                continue
            frames += packet.stream is video
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            ends[packet.stream.index] = max(ends[packet.stream.index], end)
        return VideoFacts(
            width=video.width,
            height=video.height,
            fps=float(video.average_rate),
            frames=frames,
            duration=ends[video.index],
            audio_rate=sound.rate if sound else None,
            audio_duration=ends[sound.index] if sound else 0.0,
        )


def read_video(path: str | Path) -> Iterator[np.ndarray]:
    """The frames of a video one after the other, (h, w, 3) uint8 RGB; of an unfinished file those that are whole.

    Raises:
        FadaError: as `probe`.
    """
    path = existing_file(path, "a video")
    name = f"'{path.name}'"
    with opened(path, name, "video") as container:
        for frame in decoded(container, "video", name):
            yield frame.to_ndarray(format="rgb24")


def contact_sheet(frames: Sequence[np.ndarray] | np.ndarray | Tensor, columns: int, path: str | Path) -> None:
    """Frames (n, h, w, 3) uint8, at least one, row by row in one picture file; unused places stay white."""
    tiles = np.stack([np.asarray(frame) for frame in frames])
    count, height, width, _ = tiles.shape
    rows = -(-count // columns)
    filled = np.full((rows * columns, height, width, 3), 255, np.uint8)
    filled[:count] = tiles
    sheet = filled.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    iio.imwrite(path, sheet)
