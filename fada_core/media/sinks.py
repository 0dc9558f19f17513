"""Sinks for frames and sound: a video container, or a folder of pictures.

At any time, the file or folder on the disk can be opened, and holds all but the last moments.
"""

from __future__ import annotations

import logging
import sys
import wave
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, cast

import av
import numpy as np
import soxr
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..atomic import whole_file
from ..errors import FadaError
from .outputs import UNFINISHED, Format, check_folder

log = logging.getLogger("fada.media")

_SOUND_RATE = 48000  # supported by Opus and by every AAC decoder
# delay_moov: the header then accounts for AAC's 1024 samples of priming; otherwise sound is 21 ms late.
_FRAGMENTS = "delay_moov+default_base_moof+use_metadata_tags"
_OF_THE_FILE = ("major_brand", "minor_version", "compatible_brands", "encoder")  # added to the metadata by FFmpeg
_SOUND_CODECS = {"mp4": "aac", "webm": "libopus"}


class Sink(Protocol):
    """Receives the frames and the sound of a video in order."""

    def video(self, frame: np.ndarray) -> None:
        """Write the next frame (h, w, 3) uint8."""

    def sound(self, samples: np.ndarray) -> None:
        """Write the next samples (samples, channels) float32; a format without sound drops them."""

    def close(self, whole: bool) -> None:
        """Finish the output. `whole`: the video is complete, not interrupted."""


class ContainerSink:
    """MP4 (H.264, AAC), WebM (VP9, Opus) or GIF (a palette per frame, looped; no sound, no metadata).

    Encoders have no lookahead. MP4 is written in fragments, which are so short in a file that little is lost if the
    process is killed; `close` rewrites the file without fragments and with its index first.

    Args:
        path: of the file; None: the standard output.
        crf: quality of MP4 and WebM as in H.264, 0..51.
        sound: rate in Hz and number of channels; None: no sound.
    """

    def __init__(
        self,
        path: Path | None,
        format: Format,
        width: int,
        height: int,
        fps: Fraction,
        *,
        crf: int,
        sound: tuple[int, int] | None,
        metadata: Mapping[str, str],
    ) -> None:
        self._path, self._format = path, format
        self._count = 0
        self._time_base = 1 / fps
        self._sound = None
        options = {
            # Fragments of a frame or two cost some hundred bytes each, which the final file does not keep.
            "mp4": {"movflags": _FRAGMENTS, "frag_duration": "40000"},
            "webm": {"cluster_time_limit": "40"},
            "gif": {"loop": "0"},
        }[format]
        # PyAV does not close a stream that is passed in. With the protocol, a colon in a name is not taken for one.
        if path is None:
            options = {"movflags": f"{_FRAGMENTS}+frag_keyframe"}
        file: Any = sys.stdout.buffer if path is None else f"file:{path.absolute()}"
        self._container = av.open(file, mode="w", format=format, options={"flush_packets": "1", **options})
        group = str(max(1, round(fps / 2)))
        codec, pixels, settings = {
            "mp4": ("libx264", "yuv420p", {"crf": str(crf), "tune": "zerolatency"}),
            # VP9's quality is 0..63, H.264's 0..51.
            "webm": (
                "libvpx-vp9",
                "yuv420p",
                {"crf": str(round(crf * 63 / 51)), "b": "0", "cpu-used": "5", "row-mt": "1", "lag-in-frames": "0"},
            ),
            # Without flags: the encoder's optimisations compare palette indices, but each frame has its own palette.
            "gif": ("gif", "pal8", {"gifflags": "0"}),
        }[format]
        made = self._container.add_stream(codec, rate=fps, options={"g": group, **settings})
        self._stream = cast(av.VideoStream, made)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, pixels
        self._stream.time_base = self._time_base
        self._reformatter = VideoReformatter()  # reused, because creating one takes longer than a small frame
        if format != "gif":
            self._container.metadata.update(metadata)
            # Without tags players guess the colour matrix from the size. The matrix is BT.601, because readers that
            # ignore tags (such as PyAV's arrays before version 17) assume it.
            context = self._stream.codec_context
            context.colorspace, context.color_range = 6, 1  # SMPTE 170M, limited
            context.color_primaries = context.color_trc = 1  # BT.709, as in sRGB
            if sound is not None:
                rate, channels = sound
                self._sound = _SoundTrack(self._container, _SOUND_CODECS[format], rate, channels)
        self._container.start_encoding()

    def video(self, frame: np.ndarray) -> None:
        if self._stream.pix_fmt == "pal8":
            picture = _paletted(frame)
        else:
            rgb = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture = self._reformatter.reformat(
                rgb, format="yuv420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.MPEG
            )
        picture.pts, picture.time_base = self._count, self._time_base
        self._count += 1
        for packet in self._stream.encode(picture):
            packet.duration = round(self._time_base / packet.time_base)  # fragments do not store the last one
            self._container.mux(packet)

    def sound(self, samples: np.ndarray) -> None:
        if self._sound is not None:
            self._sound.write(samples)

    def close(self, whole: bool) -> None:
        self._container.mux(self._stream.encode(None))
        if self._sound is not None:
            self._sound.finish()
        self._container.close()
        if self._format == "mp4" and self._path is not None:
            try:
                _index_first(self._path)
            except (FadaError, av.FFmpegError) as error:  # for example a full disk; the fragmented file plays, too
                log.warning("'%s' stays in fragments: some players do not show its length (%s)", self._path, error)


class _SoundTrack:
    """Resamples and encodes samples as they arrive."""

    def __init__(self, container: av.container.OutputContainer, codec: str, rate: int, channels: int) -> None:
        self._container = container
        self._layout = "mono" if channels == 1 else "stereo"
        self._resampler = soxr.ResampleStream(rate, _SOUND_RATE, channels, dtype="float32")
        self._stream = cast(av.AudioStream, container.add_stream(codec, rate=_SOUND_RATE, layout=self._layout))
        self._count = 0
        self._channels = channels

    def write(self, samples: np.ndarray, last: bool = False) -> None:
        planes = self._resampler.resample_chunk(np.ascontiguousarray(samples), last=last).reshape(-1, self._channels).T
        if not planes.shape[1]:
            return
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(planes), format="fltp", layout=self._layout)
        frame.sample_rate, frame.pts, frame.time_base = _SOUND_RATE, self._count, Fraction(1, _SOUND_RATE)
        self._count += planes.shape[1]
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        self.write(np.zeros((0, self._channels), np.float32), last=True)
        self._container.mux(self._stream.encode(None))


def _index_first(path: Path) -> None:
    """Rewrite a fragmented MP4 as one with its index first, so that players can start before they have all of it."""
    with (
        whole_file(path, size=path.stat().st_size) as partial,
        av.open(f"file:{path.absolute()}") as fragments,
        av.open(
            f"file:{partial.absolute()}", "w", format="mp4", options={"movflags": "faststart+use_metadata_tags"}
        ) as plain,
    ):
        kept = {name: text for name, text in fragments.metadata.items() if name not in _OF_THE_FILE}
        plain.metadata.update(kept)
        streams = {stream.index: plain.add_stream_from_template(stream) for stream in fragments.streams}
        for packet in fragments.demux():
            if packet.dts is not None:  # skips the empty packet at the end
                packet.stream = streams[packet.stream_index]
                plain.mux(packet)


def _paletted(frame: np.ndarray) -> av.VideoFrame:
    image = Image.fromarray(frame).quantize(256)
    palette = np.full((256, 4), 255, np.uint8)
    colours = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    palette[: len(colours), 1:] = colours  # alpha, red, green, blue
    # PyAV's types lack the pair of indices and palette.
    return av.VideoFrame.from_ndarray((np.asarray(image), palette), format="pal8")  # type: ignore[arg-type]


def wav_file(path: Path, rate: int, channels: int) -> wave.Wave_write:
    """Open a new WAV file with 16-bit samples."""
    file = wave.open(str(path), "wb")  # noqa: SIM115 - closed by the caller
    file.setnchannels(channels)
    file.setsampwidth(2)
    file.setframerate(rate)
    return file


def pcm(samples: np.ndarray) -> bytes:
    """Samples in -1..1 as 16-bit integers."""
    return (samples.clip(-1, 1) * 32767).round().astype("<i2").tobytes()


class FolderSink:
    """A folder of lossless pictures `frame_00000.png`, ... and `audio.wav` (16 bit). Metadata is text in the first one.

    Until it is complete, the folder holds a file that names its job. The same job may then start again in it, which
    deletes the frames and the sound.
    """

    def __init__(
        self, folder: Path, fps: Fraction, *, sound: tuple[int, int] | None, metadata: Mapping[str, str], job: str
    ) -> None:
        check_folder(folder, job)
        for left in (*folder.glob("frame_*.png"), folder / "audio.wav"):
            left.unlink(missing_ok=True)
        (folder / UNFINISHED).write_text(job, encoding="utf-8")
        self._folder = folder
        self._texts = PngInfo()
        for name, text in ({**metadata, "fps": str(fps)}).items():
            self._texts.add_text(name, text)
        self._count = 0
        self._wave = None if sound is None else wav_file(folder / "audio.wav", *sound)

    def video(self, frame: np.ndarray) -> None:
        texts = None if self._count else self._texts
        Image.fromarray(frame).save(self._folder / f"frame_{self._count:05d}.png", pnginfo=texts, compress_level=1)
        self._count += 1

    def sound(self, samples: np.ndarray) -> None:
        if self._wave is not None:
            self._wave.writeframes(pcm(samples))  # also updates the header, so that the file is valid at any time

    def close(self, whole: bool) -> None:
        if self._wave is not None:
            self._wave.close()
        if whole:
            (self._folder / UNFINISHED).unlink()
