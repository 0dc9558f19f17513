"""Speech from a pipe as it arrives: raw samples, or a recording with a recognisable header."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from io import BufferedReader
from queue import Empty, Queue
from threading import Thread

import numpy as np
import torch
from torch import Tensor

from ..errors import FadaError
from .audio import Resampler, blocks, full_scale, mono_weights
from .containers import Readable, decoded, opened

log = logging.getLogger("fada.media")

_NAME = "The standard input"
_PIECE_BYTES, _PIECES = 1 << 14, 64  # bytes per piece (half a second of raw samples), pieces that are buffered
_MAGIC = (
    (0, b"RIFF"), (0, b"RIFX"), (0, b"RF64"), (0, b"riff\x2e\x91\xcf\x11"), (0, b"ID3"), (0, b"fLaC"), (0, b"OggS"),
    (0, b"\x1a\x45\xdf\xa3"), (4, b"ftyp"), (4, b"moov"), (4, b"mdat"), (0, b"#!AMR"), (0, b"FORM"), (0, b"caff"),
    (0, b".snd"), (0, b"MAC "), (0, b"wvpk"), (0, b"TTA1"), (0, b"MPCK"), (0, b"FLV\x01"), (0, b"\x00\x00\x01\xba"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"), (0, b"\x06\x0e\x2b\x34"),
)  # fmt: skip
"""Signatures of the containers in `containers.FORMATS`, with their offsets in the file."""
_MP3_KBITS = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Bit rates in kbit/s by (is MPEG-1, layer) (ISO 11172-3, 2.4.2.3; ISO 13818-3, 2.4.2.3)."""


def listen(source: BufferedReader, patience: float) -> Iterator[Tensor]:
    """Speech as it arrives, in pieces (samples,) float32 mono in -1..1 at 16 kHz, until the end of the source.

    A source with the header of a sound or video file is decoded; anything else is read as raw samples, 16-bit
    little-endian mono at 16 kHz. After `patience` seconds without data an empty piece is given. A source that is faster
    than the consumer is made to wait.

    Raises:
        FadaError: a recording without sound, or one that cannot be decoded as it arrives.
    """
    pieces: Queue[np.ndarray | FadaError | None] = Queue(_PIECES)

    def read() -> None:
        try:
            head, container = _beginning(source)
            for piece in _decoded(source, head) if container else _raw(source, head):
                pieces.put(piece)
        except FadaError as error:
            pieces.put(error)
        except (OSError, ValueError) as error:  # the source was closed
            pieces.put(FadaError(f"The standard input cannot be read ({error}); start the command again."))
        pieces.put(None)

    Thread(target=read, daemon=True).start()  # daemon, because it may wait for the source forever
    while True:
        try:
            piece = pieces.get(timeout=patience)
        except Empty:
            yield torch.zeros(0)
            continue
        if piece is None:
            return
        if isinstance(piece, FadaError):
            raise piece
        yield torch.from_numpy(piece)


def _beginning(source: BufferedReader) -> tuple[bytes, bool]:
    """Read as many bytes as `begins_container` needs; returns them and its answer."""
    head = b""
    while True:
        verdict = begins_container(head)
        if verdict is not None:
            return head, verdict
        more = source.read1(_PIECE_BYTES)
        if not more:
            return head, False
        head += more


def begins_container(head: bytes) -> bool | None:
    """Whether a stream with these first bytes is a known container, not raw samples; None: more bytes are needed."""
    for at, magic in _MAGIC:
        if head[at : at + len(magic)] == magic:
            return True
    if len(head) < 16:
        return None
    for lengths, tells in ((_frame_length, 2), (_packet_length, 4)):
        at = 0
        for _ in range(tells):  # raw samples may look like one header, but hardly like several at the right distances
            if len(head) < at + 8:
                return None
            length = lengths(head[at : at + 8])
            if not length:
                break
            at += length
        else:
            return True
    return False


def _frame_length(header: bytes) -> int:
    """Length in bytes of a frame of AAC (ADTS) or MPEG audio with this header; 0 where it is not such a header."""
    if header[0] != 0xFF or header[1] < 0xE0:
        return 0
    if header[1] & 0xF6 == 0xF0:  # ADTS: ISO 13818-7, 6.2
        length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
        return length if length > 7 else 0
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)  # 3: MPEG-1, 2: MPEG-2, 0: MPEG-2.5
    kbits, rates = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer == 4 or kbits in (0, 15) or rates == 3:
        return 0
    rate = (44100, 48000, 32000)[rates] // {3: 1, 2: 2, 0: 4}[version]
    bits, padding = 1000 * _MP3_KBITS[version == 3, layer][kbits - 1], header[2] >> 1 & 1
    if layer == 1:
        return (12 * bits // rate + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // rate + padding


def _packet_length(header: bytes) -> int:
    """Length in bytes of an MPEG transport packet with this header; 0 where it is not such a header."""
    return 188 if header[0] == 0x47 else 0


def _raw(source: BufferedReader, head: bytes) -> Iterator[np.ndarray]:
    rest, piece = b"", head
    while piece:
        whole = rest + piece
        rest = whole[len(whole) // 2 * 2 :]
        yield np.frombuffer(whole, "<i2", len(whole) // 2).astype(np.float32) / 2**15
        piece = source.read1(_PIECE_BYTES)


def _decoded(source: BufferedReader, head: bytes) -> Iterator[np.ndarray]:
    resample, scale = Resampler(), 1.0
    file: Readable = _Rewound(source, head)
    if source.seekable():  # a file, whose index may be at its end
        source.seek(-len(head), 1)
        file = source
    with opened(file, _NAME, "sound") as container:
        for planes, rate, names in blocks(decoded(container, "sound", _NAME), _NAME):
            if scale == 1:
                scale = full_scale(float(np.abs(planes).max(initial=0.0)), _NAME)
            piece = resample(mono_weights(names) @ planes / np.float32(scale), rate)
            if len(piece):
                yield piece
        yield resample.finish()


class _Rewound:
    """A pipe whose first bytes were already read. `read` returns data as soon as there is some."""

    def __init__(self, source: BufferedReader, head: bytes) -> None:
        self._source, self._head = source, head

    def read(self, size: int) -> bytes:
        if self._head:
            given, self._head = self._head[:size], self._head[size:]
            return given
        return self._source.read1(size)
