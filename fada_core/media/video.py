"""Writing of videos with sound, clip by clip; reading of frames and facts; contact sheets."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import imageio.v3 as iio
import numpy as np
from torch import Tensor

from ..errors import FadaError
from .containers import decoded, existing_file, opened, packets
from .image import to_uint8
from .outputs import STDOUT, Format, check_folder, check_place, format_of, held
from .sinks import ContainerSink, FolderSink, Sink
from .soundtrack import Soundtrack

MACROBLOCKS = 8704  #: largest frame, in blocks of 16x16 pixels, that plays everywhere: H.264's level 4.2 (table A-1)


def playable_size(width: int, height: int, format: Format) -> tuple[int, int]:
    """Width and height of a video for frames of this size: the same, or smaller where many players would fail."""
    if format == "png" or -(-width // 16) * -(-height // 16) <= MACROBLOCKS:
        return width, height
    scale = (MACROBLOCKS * 256 / (width * height)) ** 0.5
    # The longer side is a whole number of macroblocks; it is reduced until their count is right for the shape.
    longer = max(16, int(max(width, height) * scale) // 16 * 16)
    while True:
        shrink = longer / max(width, height)
        size = max(2, int(width * shrink) // 2 * 2), max(2, int(height * shrink) // 2 * 2)
        if -(-size[0] // 16) * -(-size[1] // 16) <= MACROBLOCKS:
            return size
        longer -= 16


class VideoWriter:
    """Writes frames and their sound as they arrive; a context manager.

    Formats are `.mp4` (H.264, AAC), `.webm` (VP9, Opus) and `.gif` (no sound, no metadata). A path without suffix, or
    of an existing folder, is a folder of PNG pictures with `audio.wav`; `-` is MP4 to the standard output, in fragments
    that a player can show as they arrive. Parent folders are created. An existing file is replaced when the first frame
    is written; a folder has to be empty or left by an interrupted run of the same job. Other processes of FADA cannot
    write there at the same time. Sound is written up to the time of the last frame and padded with silence where it is
    shorter. The output stays playable however the process ends; if it is killed, a few frames are missing. An exception
    in the `with` block finishes the file, too.

    MP4 and WebM have colours at half resolution and need even sides: of an odd side the last row or column is repeated.

    Args:
        path: of the output.
        width, height: of the frames, in pixels.
        fps: frames per second; numbers like 29.97 are rounded to a fraction with a denominator up to 1001.
        audio: (samples,) or (channels, samples) with one or two channels, float in -1..1, to which `hear` may append;
            or the original sound of a recording; or None for a file without sound.
        audio_rate: of `audio` as a tensor, in Hz.
        metadata: names and texts that are stored in the file, such as `{"comment": ...}`.
        crf: quality of MP4 and WebM as in H.264, 0 (lossless) to 51; 18 is visually lossless.
        format: "mp4", "webm", "gif" or "png" (a folder); by default from the suffix.
        job: a text that identifies the content of a folder; by default the metadata and the frames' size and rate.

    Raises:
        FadaError: an unknown suffix, a wrong shape of audio or frames, a file that cannot be written or is being
            written by another process, a folder that is not empty, a full disk, or no frame by the end of the block.
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        fps: float,
        audio: Tensor | Soundtrack | None = None,
        *,
        audio_rate: int = 16000,
        metadata: Mapping[str, str] | None = None,
        crf: int = 18,
        format: Format | None = None,
        job: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.frames = 0  #: number of frames written so far
        self.format = format_of(path, format)  #: mp4, webm, gif, or png for a folder
        self._piped = str(path) == STDOUT
        if width < 1 or height < 1 or not 0 < fps <= 1000:
            raise FadaError(
                f"A video of {width}x{height} pixels at {fps:g} fps is not possible; give positive numbers."
            )
        self._size = height, width
        self._pad = (height % 2, width % 2) if self.format in ("mp4", "webm") else (0, 0)
        self._fps = Fraction(fps).limit_denominator(1001)
        self._more: Iterator[np.ndarray] = iter(())
        self._sound: tuple[int, int] | None = None  # rate and channels
        self._audio = np.zeros((0, 1), np.float32)  # (samples, channels) that are not yet written
        if isinstance(audio, Soundtrack):
            self._sound, self._more = (audio.rate, audio.channels), audio.pieces
            self._audio = np.zeros((0, audio.channels), np.float32)
        elif audio is not None:
            if audio.ndim > 2 or (audio.ndim == 2 and audio.shape[0] not in (1, 2)):
                raise FadaError(f"The audio has the shape {tuple(audio.shape)}; give (samples,) or (1 or 2, samples).")
            self._audio = np.atleast_2d(audio.detach().float().cpu().numpy()).T
            self._sound = audio_rate, self._audio.shape[1]
        self._sounded = 0  # samples written so far
        self._metadata = metadata or {}
        self._crf = crf
        self._job = job if job is not None else json.dumps([self._metadata, self._size, str(self._fps)])
        self._sink: Sink | None = None
        self._held = ExitStack()

    def __enter__(self) -> VideoWriter:
        folder = self.format == "png"
        if self._piped:
            return self
        check_place(self.path, folder=folder)
        self._new = not os.path.lexists(self.path)
        try:
            self._held.enter_context(held(self.path, folder=folder))
        except OSError as error:
            raise self._failure(error) from error
        if folder:
            try:
                check_folder(self.path, self._job)
            except FadaError:
                self._held.close()
                raise
        return self

    def _opened(self) -> Sink:
        """The sink, created with the first frame, so that an existing file is not lost without a new one."""
        if self._sink is None:
            made: dict[str, Any] = {"sound": self._sound, "metadata": self._metadata}
            if self.format == "png":
                self._sink = FolderSink(self.path, self._fps, **made, job=self._job)
            else:
                height, width = (side + extra for side, extra in zip(self._size, self._pad, strict=True))
                path = None if self._piped else self.path
                self._sink = ContainerSink(path, self.format, width, height, self._fps, crf=self._crf, **made)
        return self._sink

    def hear(self, samples: Tensor) -> None:
        """Append sound (samples,) or (channels, samples), with the same number of channels as at the beginning."""
        more = np.atleast_2d(samples.detach().float().cpu().numpy()).T
        self._audio = np.concatenate([self._audio, more])

    def write(self, frames: Tensor | np.ndarray) -> None:
        """Write the next frames: float (n, 3, h, w) in -1..1, or uint8 (n, h, w, 3).

        Raises:
            FadaError: another shape, values that are not finite, or a file that cannot be written.
        """
        if isinstance(frames, Tensor):
            frames = (to_uint8(frames) if frames.is_floating_point() else frames.cpu()).numpy()
        if frames.dtype != np.uint8 or frames.shape[1:] != (*self._size, 3):
            height, width = self._size
            raise FadaError(
                f"Frames of the shape {tuple(frames.shape)} do not fit; give (n, 3, {height}, {width}) floats "
                f"or (n, {height}, {width}, 3) bytes."
            )
        try:
            sink = self._opened()
            for frame in frames:
                padded = np.pad(frame, ((0, self._pad[0]), (0, self._pad[1]), (0, 0)), mode="edge")
                sink.video(padded)
                self.frames += 1
                self._sound_until_now()
        except (OSError, av.FFmpegError) as error:
            raise self._failure(error) from error

    def _sound_until_now(self) -> None:
        if self._sound is None:
            return
        wanted = round(self.frames / self._fps * self._sound[0]) - self._sounded
        while len(self._audio) < wanted and (piece := next(self._more, None)) is not None:
            self._audio = np.concatenate([self._audio, piece])
        block, self._audio = np.split(self._audio, [wanted])
        self._opened().sound(np.pad(block, ((0, wanted - len(block)), (0, 0))))
        self._sounded += wanted

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # After an error of writing, such as a full disk, the file cannot be finished, but is playable as it is.
        unfinished = isinstance(error, FadaError) and isinstance(error.__cause__, (OSError, av.FFmpegError))
        with self._held:
            if self._sink is not None:
                try:
                    self._sink.close(whole=error is None)
                except (OSError, av.FFmpegError) as failure:
                    if not unfinished:
                        raise self._failure(failure) from failure
            elif not self._piped and self._new:
                self.path.rmdir() if self.format == "png" else self.path.unlink()
        if not self.frames and error is None:
            raise FadaError(f"No frame was written to '{self.path}'; give at least one.")

    def _failure(self, error: OSError | av.FFmpegError) -> FadaError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return FadaError(
                f"The disk is full: '{self.path}' stays playable, with up to {self.frames} frames; "
                "free some space or write elsewhere."
            )
        return FadaError(f"'{self.path}' cannot be written ({error.strerror}); choose another place.")


@dataclass(frozen=True)
class VideoFacts:
    """Facts about a video file; durations in seconds."""

    width: int
    height: int
    fps: float
    frames: int
    duration: float
    audio_rate: int | None  #: None: no sound
    audio_duration: float


def probe(path: str | Path) -> VideoFacts:
    """Facts about a video, computed from its packets and not from its header, so that unfinished files work, too.

    Raises:
        FadaError: the file is missing, not a video of a known format, or beyond the limits of `containers`.
    """
    path = existing_file(path, "a video")
    with opened(path, f"'{path.name}'", "video") as container:
        video, sound = container.streams.video[0], next(iter(container.streams.audio), None)
        if not video.average_rate:
            raise FadaError(f"'{path.name}' does not state its frame rate; convert it to MP4.")
        frames, ends = 0, {video.index: 0.0, **({sound.index: 0.0} if sound else {})}
        for packet in packets(container, *(stream for stream in (video, sound) if stream)):
            # Skip errors, the empty packet at the end, and truncated packets.
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
    """Yield the frames of a video, (h, w, 3) uint8 RGB; of an unfinished file those that are complete.

    Raises:
        FadaError: as in `probe`.
    """
    path = existing_file(path, "a video")
    name = f"'{path.name}'"
    with opened(path, name, "video") as container:
        for frame in decoded(container, "video", name):
            yield frame.to_ndarray(format="rgb24")


def contact_sheet(frames: Sequence[np.ndarray] | np.ndarray | Tensor, columns: int, path: str | Path) -> None:
    """Write frames (n, h, w, 3) uint8, at least one, row by row to a picture file; unused places are white."""
    tiles = np.stack([np.asarray(frame) for frame in frames])
    count, height, width, _ = tiles.shape
    rows = -(-count // columns)
    filled = np.full((rows * columns, height, width, 3), 255, np.uint8)
    filled[:count] = tiles
    sheet = filled.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    iio.imwrite(path, sheet)
