"""Opens sound and video files safely: known formats only, no access to other files, damaged packets left out.

FFmpeg detects a format by the content, not by the suffix. Playlists and other formats that name files or addresses are
not on the list, and FFmpeg may use no protocol other than `file`. Packets that cannot be decoded are skipped, as in
players.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import av

from ..errors import FadaError

log = logging.getLogger("fada.media")

FORMATS = (
    "3gp", "aac", "ac3", "aiff", "amr", "amrnb", "amrwb", "ape", "asf", "au", "avi", "caf", "dts", "dv", "eac3", "flac",
    "flv", "gif", "gsm", "iamf", "matroska", "mov", "mp3", "mp4", "mpc", "mpc8", "mpeg", "mpegts", "mxf", "nut", "ogg",
    "rm", "tta", "voc", "w64", "wav", "webm", "wv",
)  # fmt: skip
"""Names of FFmpeg's demuxers. None of them opens a second file."""
MIN_RATE, MAX_RATE = 1000, 1_000_000  #: samples per second; with a lower rate a small file could be days long
MAX_SIDE, MAX_PIXELS = 16384, 50_000_000  #: of a video's frames
_HOPELESS = 1000  #: number of unreadable packets in a row after which reading ends

Kind = Literal["sound", "video"]


class Readable(Protocol):
    """A binary file object."""

    def read(self, size: int, /) -> bytes: ...


def existing_file(path: str | Path, what: str) -> Path:
    """The path of an existing file. `what`: the expected content, for the error, such as "a picture".

    Raises `FadaError` where there is no such file.
    """
    path = Path(path)
    if not os.path.isfile(path):  # unlike Path.is_file, never raises, even for invalid names and closed folders
        raise FadaError(f"There is no file '{path}'; give the path of {what}.")
    return path


@contextmanager
def opened(source: Path | Readable, name: str, kind: Kind) -> Iterator[av.container.InputContainer]:
    """Open a recording that has a stream of `kind` within the limits.

    Args:
        source: an existing file, or a binary file object, if possible seekable.
        name: beginning of error messages, such as "'speech.wav'".

    Raises:
        FadaError: not a recording, not a format from the list, no such stream, or a stream beyond the limits. Errors of
            FFmpeg within the `with` block become a `FadaError`, too.
    """
    # An absolute path with a protocol, because FFmpeg would take a colon in the name for the end of a protocol.
    file: Any = f"file:{source.absolute()}" if isinstance(source, Path) else source
    options = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}
    give = "convert it to WAV" if kind == "sound" else "give another file"
    try:
        with av.open(file, options=options, metadata_errors="ignore") as container:
            streams = container.streams.audio if kind == "sound" else container.streams.video
            if not streams and kind == "sound":
                raise FadaError(f"{name} has no sound; give a file with speech in it.")
            if not streams:
                raise FadaError(f"{name} has no picture; give a video file.")
            if streams[0].codec_context is None:
                raise FadaError(f"{name} has a codec that is not supported; {give}.")
            if kind == "video" and not _fits(streams[0]):
                size = f"{streams[0].width}x{streams[0].height}"
                raise FadaError(f"{name} has frames of {size} pixels; give a smaller video.")
            yield container
    except FadaError:  # before ValueError, which it is, too
        raise
    except av.FFmpegError as error:
        what = "read as sound" if kind == "sound" else "read as a video"
        reason = error.strerror
        if isinstance(error, av.ArgumentError):  # FFmpeg's error for a format that is not on the list
            reason = "not a supported format"
        raise FadaError(f"{name} cannot be {what} ({reason}); {give}.") from error
    except (ValueError, OverflowError, MemoryError) as error:  # raised by PyAV for invalid numbers
        raise FadaError(f"{name} cannot be used ({error}); {give}.") from error


def _fits(stream: av.video.stream.VideoStream) -> bool:
    width, height = stream.width, stream.height
    return 0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS


def packets(container: av.container.InputContainer, *streams: av.stream.Stream) -> Iterator[av.Packet | av.FFmpegError]:
    """The packets of some streams in the order of the file; where one cannot be read, the error instead."""
    found, hopeless = container.demux(*streams), 0
    while hopeless < _HOPELESS:
        try:
            packet = next(found, None)
        except av.EOFError:
            return
        except av.FFmpegError as error:
            hopeless += 1
            found = container.demux(*streams)  # the old generator has ended with the error
            yield error
            continue
        if packet is None:
            return
        hopeless = 0
        yield packet


def decoded(container: av.container.InputContainer, kind: Kind, name: str, *, tell: bool = True) -> Iterator[Any]:
    """The frames of the first stream of a kind. Unreadable packets are left out and, with `tell`, counted in the log.

    Raises:
        av.FFmpegError: nothing at all can be read; `opened` turns it into a `FadaError`.
    """
    stream = (container.streams.audio if kind == "sound" else container.streams.video)[0]
    first: av.FFmpegError | None = None
    damaged, found = 0, False
    for packet in packets(container, stream):
        try:
            if isinstance(packet, av.FFmpegError):
                raise packet
            # Corrupt packets are dropped from video, but are still useful in sound.
            frames = [] if packet.is_corrupt and kind == "video" else packet.decode()
        except av.FFmpegError as error:
            first, damaged = first or error, damaged + 1
            continue
        found = found or bool(frames)
        yield from frames
    if first is not None and not found:
        raise first
    if damaged and tell:
        log.warning("%s is damaged: %d pieces of it could not be read and were left out.", name, damaged)
