"""Synthetic speech with the time of every phoneme, from the espeak-ng library through ctypes."""

import _ctypes
import contextlib
import ctypes
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import librosa
import numpy as np
import torch

from ..errors import FadaError

SAMPLE_RATE = 16_000
#: espeak-ng voices: a language, then a variant of the speaker.
LANGUAGES = (
    "en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-us", "de", "fr", "es", "it", "pt-br", "nl", "sv", "pl", "ro",
)  # fmt: skip
VARIANTS = (
    "f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "Annie", "Alicia", "anika", "steph",
    "belinda", "linda", "Andy", "adam", "david", "Michael", "Lee", "edward", "pablo", "Hugo",
)  # fmt: skip

# Constants and structures of espeak-ng's speak_lib.h.
_SYNCHRONOUS, _PHONEME_EVENTS_IPA, _CHARS_UTF8 = 2, 0b11, 1
_EVENT_END, _EVENT_PHONEME = 0, 7
_RATE, _PITCH, _RANGE = 1, 3, 4


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass
class Phoneme:
    """One sound: `start` and `end` in seconds, `symbol` in IPA (with its stress mark; empty for a pause)."""

    start: float
    end: float
    symbol: str


@dataclass
class Speech:
    """A recording: `waveform` (samples,) float32 mono 16 kHz, its phonemes in order, the words and the voice."""

    waveform: torch.Tensor
    phonemes: list[Phoneme]
    text: str
    voice: str


@contextlib.contextmanager
def _library() -> Iterator[tuple[ctypes.CDLL, int]]:
    """A freshly loaded espeak-ng and its sample rate.

    The library carries hidden state from one utterance to the next, which even `espeak_Terminate` leaves behind; only
    unloading it makes the same text sound the same, sample by sample. That costs some 10 ms.
    """
    try:
        import espeakng_loader
    except ImportError as error:
        raise FadaError(
            "Speech for the avatars needs espeak-ng: run `pip install espeakng-loader` and try again."
        ) from error
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    try:
        path = espeakng_loader.get_data_path().encode()
        sample_rate = library.espeak_Initialize(_SYNCHRONOUS, 0, path, _PHONEME_EVENTS_IPA)
        if sample_rate <= 0:
            raise FadaError("espeak-ng did not start: run `pip install --force-reinstall espeakng-loader`.")
        yield library, sample_rate
        library.espeak_Terminate()
    finally:
        (_ctypes.FreeLibrary if sys.platform == "win32" else _ctypes.dlclose)(library._handle)


def synthesize(text: str, voice: str = "en-us", rate: int = 165, pitch: int = 50, pitch_range: int = 50) -> Speech:
    """Speak `text`; `rate` in words a minute (80..400), `pitch` and `pitch_range` 0..100.

    espeak-ng keeps one global state in a process: call this from one thread at a time.
    Raises `FadaError` where espeak-ng is missing or does not know the voice.
    """
    blocks: list[np.ndarray] = []
    marks: list[tuple[float, str]] = []

    def receive(samples: "ctypes._Pointer[ctypes.c_short]", count: int, events: "ctypes._Pointer[_Event]") -> int:
        if count > 0:
            blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type != _EVENT_END:
            if events[index].type == _EVENT_PHONEME:
                symbol = bytes(events[index].id.string).decode("utf-8", "ignore")
                if not symbol.startswith("("):  # "(en)" only announces a change of language
                    marks.append((events[index].audio_position / 1000, symbol))
            index += 1
        return 0

    callback = _Callback(receive)
    data = text.encode()
    with _library() as (library, native_rate):
        library.espeak_SetSynthCallback(callback)
        if library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise FadaError(
                f"espeak-ng has no voice '{voice}': use a language code such as en-us, de or fr, with +f1 .. +m8."
            )
        for parameter, value in ((_RATE, rate), (_PITCH, pitch), (_RANGE, pitch_range)):
            library.espeak_SetParameter(parameter, value, 0)
        library.espeak_Synth(data, len(data) + 1, 0, 0, 0, _CHARS_UTF8, None, None)
        library.espeak_Synchronize()
    audio = np.concatenate(blocks).astype(np.float32) / 32768
    length = len(audio) / native_rate
    audio = librosa.resample(audio, orig_sr=native_rate, target_sr=SAMPLE_RATE, res_type="soxr_hq")
    ends = [start for start, _ in marks[1:]] + [length]
    phonemes = [
        Phoneme(min(start, length), min(end, length), symbol) for (start, symbol), end in zip(marks, ends, strict=True)
    ]
    return Speech(torch.from_numpy(audio), phonemes, text, voice)
