"""Recordings from outside, opened in one place: known formats only, nothing but the file itself, damage left out.

Playlists and the like, which name other files or addresses, are no format here; FFmpeg gets no other protocol than a
file's (it runs by its content, not by the suffix). Packets that cannot be decoded are skipped, as players do.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import av

from ..errors import FadaError

log = logging.getLogger("fada.media")

FORMATS = (
    "3gp", "aac", "ac3", "aiff", "amr", "amrnb", "amrwb", "ape", "asf", "au", "avi", "caf", "dts", "dv", "eac3", "flac",
    "flv", "gif", "gsm", "iamf", "matroska", "mov", "mp3", "mp4", "mpc", "mpc8", "mpeg", "mpegts", "mxf", "nut", "ogg",
    "rm", "tta", "voc", "w64", "wav", "webm", "wv",
)  # fmt: skip
"""Names of FFmpeg's demuxers. None of them opens a second file."""
MIN_RATE, MAX_RATE = 1000, 1_000_000  #: samples a second; below, a small file claims to be days of sound
MAX_SIDE, MAX_PIXELS = 16384, 50_000_000  #: of a video's pictures
_HOPELESS = 1000  #: pieces in a row that cannot be read, after which nothing more is expected

Kind = Literal["sound", "video"]


def existing_file(path: str | Path, what: str) -> Path:
    """The path, if there is such a file; `what` is expected there, for the error: "a picture"."""
    path = Path(path)
    if not os.path.isfile(path):  # unlike Path's own, False for names that no disk takes and folders that are closed
        raise FadaError(f"There is no file '{path}'; give the path of {what}.")
    return path


@contextmanager
def opened(source: Path | BinaryIO, name: str, kind: Kind) -> Iterator[av.container.InputContainer]:
    """A recording, whose first stream of a kind is there and within the limits.

    Args:
        source: a file that exists, or what can be read from and, better, sought in.
        name: at the beginning of errors: "'speech.wav'".

    Raises:
        FadaError: no recording, not a format from the list, no such stream, or one beyond the limits. What FFmpeg says
            inside of the block is told in the same way.
    """
    # Absolute, and with the protocol: a colon in the name would be taken for one.
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
                raise FadaError(f"{name} is of a kind that nothing here decodes; {give}.")
            if kind == "video" and not _fits(streams[0]):
                size = f"{streams[0].width}x{streams[0].height}"
                raise FadaError(f"{name} has pictures of {size} pixels; give a smaller video.")
            yield container
    except FadaError:  # a ValueError, too
        raise
    except av.FFmpegError as error:
        what = "read as sound" if kind == "sound" else "read as a video"
        reason = error.strerror
        if isinstance(error, av.ArgumentError):  # FFmpeg's word for a format that is not on the list
            reason = "not a format that is read here"
        raise FadaError(f"{name} cannot be {what} ({reason}); {give}.") from error
    except (ValueError, OverflowError, MemoryError) as error:  # PyAV's own, of figures that cannot be
        raise FadaError(f"{name} cannot be used ({error}); {give}.") from error


def _fits(stream: av.video.stream.VideoStream) -> bool:
    width, height = stream.width, stream.height
    return 0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS


def packets(container: av.container.InputContainer, *streams: av.stream.Stream) -> Iterator[av.Packet | av.FFmpegError]:
    """The packets of some streams in the order of the file; where one cannot be read, the error in its place."""
    found, hopeless = container.demux(*streams), 0
    while hopeless < _HOPELESS:
        try:
            packet = next(found, None)
        except av.EOFError:
            return
        except av.FFmpegError as error:
            hopeless += 1
            found = container.demux(*streams)  # the old one ended with its error
            yield error
            continue
        if packet is None:
            return
        hopeless = 0
        yield packet


def decoded(container: av.container.InputContainer, kind: Kind, name: str, *, tell: bool = True) -> Iterator[Any]:
    """The frames of the first stream of a kind; what cannot be read is left out and, with `tell`, counted in a line of
    log.

    Raises:
        av.FFmpegError: nothing at all can be read; `opened` makes a FadaError of it.
    """
    stream = (container.streams.audio if kind == "sound" else container.streams.video)[0]
    first: av.FFmpegError | None = None
    damaged, found = 0, False
    for packet in packets(container, stream):
        try:
            if isinstance(packet, av.FFmpegError):
                raise packet
            # Half a picture is worse than none, half a sound better.
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
