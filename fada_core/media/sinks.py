"""Where frames and sound go one after the other: a video container, or a folder of pictures.

Both leave, at any time, something on the disk that opens and holds all but the last moments.
"""

from __future__ import annotations

import sys
import wave
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
import numpy as np
import soxr
from av.video.reformatter import VideoReformatter
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..errors import FadaError

STDOUT = "-"  #: as a path: MP4 to the standard output
SUFFIXES = (".mp4", ".webm", ".gif")
_SOUND_RATE = 48000  # the one rate that Opus and every AAC decoder takes
# delay_moov: the header then knows of AAC's 1024 samples of lead-in, without which everything comes 21 ms late.
_PIPED_MP4_FLAGS = _MP4_FLAGS = "frag_keyframe+delay_moov+default_base_moof+use_metadata_tags"
if av.library_versions["libavformat"] >= (62, 12):  # FFmpeg 7 and 8.0 end such files with a wrong index
    _MP4_FLAGS += "+hybrid_fragmented"
_SOUND_CODECS = {".mp4": "aac", ".webm": "libopus"}


class Sink(Protocol):
    def video(self, frame: np.ndarray) -> None:
        """The next frame, (h, w, 3) uint8."""

    def sound(self, samples: np.ndarray) -> None:
        """The next samples, (samples, channels) float32; dropped by a format that has no sound."""

    def close(self) -> None: ...


class ContainerSink:
    """MP4 (H.264, AAC), WebM (VP9, Opus) or GIF (a palette for each frame, endless; no sound, no metadata).

    Encoders look at no future frame, and half a second is closed on its own: that much may be lost when the process is
    killed. MP4 is written in fragments and, from FFmpeg 8.1 on, turned into a plain file by `close`: of such a file,
    players show the length at once.
    """

    def __init__(
        self,
        path: Path,
        width: int,
        height: int,
        fps: Fraction,
        *,
        crf: int,
        sound: tuple[int, int] | None,
        metadata: Mapping[str, str],
    ) -> None:
        piped = str(path) == STDOUT
        suffix = ".mp4" if piped else path.suffix.lower()
        self._count = 0
        self._time_base = 1 / fps
        self._sound = None
        options = {
            ".mp4": {"movflags": _PIPED_MP4_FLAGS if piped else _MP4_FLAGS},
            ".webm": {"cluster_time_limit": "500"},
            ".gif": {"loop": "0"},
        }[suffix]
        # PyAV only writes to the stream; it is ours to leave open.
        target = {"file": sys.stdout.buffer, "format": "mp4"} if piped else {"file": str(path)}
        self._container = av.open(**target, mode="w", options={"flush_packets": "1", **options})
        group = str(max(1, round(fps / 2)))
        codec, pixels, settings = {
            ".mp4": ("libx264", "yuv420p", {"crf": str(crf), "tune": "zerolatency"}),
            # VP9 counts its quality to 63 where H.264 counts to 51.
            ".webm": (
                "libvpx-vp9",
                "yuv420p",
                {"crf": str(round(crf * 63 / 51)), "b": "0", "cpu-used": "5", "row-mt": "1", "lag-in-frames": "0"},
            ),
            # Without flags: the encoder's savings compare palette indices, but each frame has its own palette.
            ".gif": ("gif", "pal8", {"gifflags": "0"}),
        }[suffix]
        self._stream = self._container.add_stream(codec, rate=fps, options={"g": group, **settings})
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, pixels
        self._stream.time_base = self._time_base
        self._reformatter = VideoReformatter()  # kept, as making one takes longer than a small frame
        if suffix != ".gif":
            self._container.metadata.update(metadata)
            # Without tags players guess the colours from the size; the matrix is BT.601, because readers that look at
            # no tags (PyAV's arrays before version 17 among them) take that one.
            context = self._stream.codec_context
            context.colorspace, context.color_range = 6, 1  # SMPTE 170M, limited
            context.color_primaries = context.color_trc = 1  # BT.709, as sRGB's
            if sound is not None:
                rate, channels = sound
                self._sound = _SoundTrack(self._container, _SOUND_CODECS[suffix], rate, channels)
        self._container.start_encoding()

    def video(self, frame: np.ndarray) -> None:
        if self._stream.pix_fmt == "pal8":
            picture = _paletted(frame)
        else:
            rgb = av.VideoFrame.from_ndarray(frame, format="rgb24")
            colours = {"dst_colorspace": "ITU601", "dst_color_range": "MPEG"}
            picture = self._reformatter.reformat(rgb, format="yuv420p", **colours)
        picture.pts, picture.time_base = self._count, self._time_base
        self._count += 1
        self._container.mux(self._stream.encode(picture))

    def sound(self, samples: np.ndarray) -> None:
        if self._sound is not None:
            self._sound.write(samples)

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        if self._sound is not None:
            self._sound.finish()
        self._container.close()


class _SoundTrack:
    """Resamples and encodes what arrives."""

    def __init__(self, container: av.container.OutputContainer, codec: str, rate: int, channels: int) -> None:
        self._container = container
        self._layout = "mono" if channels == 1 else "stereo"
        self._resampler = soxr.ResampleStream(rate, _SOUND_RATE, channels, dtype="float32")
        self._stream = container.add_stream(codec, rate=_SOUND_RATE, layout=self._layout)
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


def _paletted(frame: np.ndarray) -> av.VideoFrame:
    image = Image.fromarray(frame).quantize(256)
    palette = np.full((256, 4), 255, np.uint8)
    colours = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    palette[: len(colours), 1:] = colours  # alpha, red, green, blue
    return av.VideoFrame.from_ndarray((np.asarray(image), palette), format="pal8")


class FolderSink:
    """Lossless pictures `frame_00000.png`, ... and `audio.wav` (16 bit) beside them; metadata is text in the first one.

    Raises:
        FadaError: there are frames in the folder already, which would end up in the same sequence.
    """

    def __init__(
        self, folder: Path, fps: Fraction, *, sound: tuple[int, int] | None, metadata: Mapping[str, str]
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if next(folder.glob("frame_*.png"), None) is not None:
            raise FadaError(f"The folder '{folder}' has frames in it already; choose an empty one.")
        self._folder = folder
        self._texts = PngInfo()
        for name, text in ({**metadata, "fps": str(fps)}).items():
            self._texts.add_text(name, text)
        self._count = 0
        self._wave = None
        if sound is not None:
            self._wave = wave.open(str(folder / "audio.wav"), "wb")  # noqa: SIM115 - closed by close()
            self._wave.setnchannels(sound[1])
            self._wave.setsampwidth(2)
            self._wave.setframerate(sound[0])

    def video(self, frame: np.ndarray) -> None:
        texts = None if self._count else self._texts
        Image.fromarray(frame).save(self._folder / f"frame_{self._count:05d}.png", pnginfo=texts, compress_level=1)
        self._count += 1

    def sound(self, samples: np.ndarray) -> None:
        if self._wave is not None:
            # Also corrects the header, so that the file is whole at any time.
            self._wave.writeframes((samples.clip(-1, 1) * 32767).round().astype("<i2").tobytes())

    def close(self) -> None:
        if self._wave is not None:
            self._wave.close()
