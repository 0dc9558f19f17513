"""espeak-ng through ctypes: speech in many languages and voices, with the time of every phoneme."""

import _ctypes
import contextlib
import ctypes
import sys
from collections.abc import Iterator

import numpy as np
import soxr

from ..errors import FadaError
from .phones import SAMPLE_RATE, VOICELESS_STOPS, Phoneme

#: Voice variants that sound female and male.
#: Without the breathy variants (f2, f3, f5, Alicia): espeak-ng seeds their noise with the time of day.
FEMALE = ("f1", "f4", "Annie", "anika", "steph", "belinda", "linda")
MALE = (
    *("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "Andy", "adam", "david", "Michael", "Lee", "edward", "pablo"),
    "Hugo",
)

# Constants and structures of espeak-ng's speak_lib.h.
_SYNCHRONOUS, _PHONEME_EVENTS_IPA, _CHARS_UTF8 = 2, 0b11, 1
_EVENT_END, _EVENT_PHONEME = 0, 7
_RATE, _PITCH, _RANGE = 1, 3, 4
_WORDS_A_MINUTE = 165


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


@contextlib.contextmanager
def _library() -> Iterator[tuple[ctypes.CDLL, int]]:
    """A freshly loaded espeak-ng and its sample rate. Raises `FadaError` where it is missing or does not start.

    The library keeps hidden state from one utterance to the next, even through `espeak_Terminate`. The same text gives
    the same samples only if the library is unloaded in between, which costs some 10 ms.
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
        if sys.platform == "win32":
            _ctypes.FreeLibrary(library._handle)
        else:
            _ctypes.dlclose(library._handle)


def _with_closures(phonemes: list[Phoneme], audio: np.ndarray) -> list[Phoneme]:
    """Extend p, t and k by their closures.

    espeak-ng places their start at the burst and counts the silent closure before it as part of the previous sound.
    """
    step = SAMPLE_RATE // 200
    frames = audio[: len(audio) // step * step].reshape(-1, step)
    levels = np.sqrt((frames**2).mean(1)) if len(frames) else np.zeros(1)
    out = list(phonemes)
    for i in range(1, len(out)):
        here, before = out[i], out[i - 1]
        if not set(here.symbol[:2]) & VOICELESS_STOPS:
            continue
        start = here.start
        if not before.symbol:
            start = max(before.start, start - 0.06)
        else:
            frame = int(start * 200) - 1
            around = levels[max(0, frame - 40) : frame + 1].max(initial=0.0)
            earliest = max(before.start + 0.4 * (before.end - before.start), start - 0.09)
            while frame >= earliest * 200 and levels[min(frame, len(levels) - 1)] < 0.15 * around:
                start = frame / 200
                frame -= 1
        out[i] = Phoneme(start, here.end, here.symbol)
        out[i - 1] = Phoneme(before.start, start, before.symbol)
    return out


def speak(
    text: str, voice: str = "en-us", rate: float = 1.0, pitch: float = 1.0, liveliness: float = 1.0
) -> tuple[np.ndarray, list[Phoneme]]:
    """Speak `text` with `voice`, a language code with a variant such as en-us+f3.

    `rate`, `pitch` and `liveliness` (range of the pitch) are multiples of the voice's own. Returns the waveform
    (samples,) float32 at 16 kHz and its phonemes. espeak-ng has one global state in a process: call this from one
    thread at a time. Raises `FadaError` where espeak-ng is missing or does not know the voice.
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
        settings = (
            (_RATE, round(np.clip(_WORDS_A_MINUTE * rate, 80, 400))),
            (_PITCH, round(np.clip(50 + 50 * np.log2(pitch), 0, 99))),
            (_RANGE, round(np.clip(50 * liveliness, 0, 99))),
        )
        for parameter, value in settings:
            library.espeak_SetParameter(parameter, value, 0)
        library.espeak_Synth(data, len(data) + 1, 0, 0, 0, _CHARS_UTF8, None, None)
        library.espeak_Synchronize()
    audio = np.concatenate(blocks).astype(np.float32) / 32768
    audio = soxr.resample(audio, native_rate, SAMPLE_RATE)
    length = len(audio) / SAMPLE_RATE
    ends = [start for start, _ in marks[1:]] + [length]
    phonemes = [
        Phoneme(min(start, length), min(end, length), symbol) for (start, symbol), end in zip(marks, ends, strict=True)
    ]
    return audio, _with_closures(phonemes, audio)
