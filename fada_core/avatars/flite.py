"""CMU's flite through ctypes: English speech with the exact time of every phone.

Its shared libraries have to be installed (Debian: apt-get install flite).
"""

import ctypes
import sys
from functools import cache

import numpy as np
import soxr

from ..errors import FadaError
from .phones import ARPABET, SAMPLE_RATE, STRESS, VOWELS, Phoneme

FEMALE = ("slt",)
MALE = ("rms", "awb", "kal16")
STRESSED = b"R:SylStructure.parent.stress"  # feature path from a phone to the stress of its syllable
FIXED = ("rms",)  # voices whose pitch cannot be set
#: Mean and standard deviation of the voices' pitch in hertz, measured on their own speech.
PITCH = {"slt": (170.0, 25.0), "awb": (133.0, 23.0), "kal16": (95.0, 11.0)}


class _Voice(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("features", ctypes.c_void_p)]


class _Wave(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    ]


@cache
def _load(name: str) -> ctypes.CDLL | None:
    """The shared library lib`name`, or None where it is missing.

    It is loaded with local symbols, because pocketsphinx has symbols of the same names.
    """
    suffix = ".1.dylib" if sys.platform == "darwin" else ".so.1"
    try:
        return ctypes.CDLL(f"lib{name}{suffix}")
    except OSError:
        return None


def available() -> bool:
    """Whether flite's libraries are installed."""
    return all(_load(name) is not None for name in ("flite", "flite_usenglish", "flite_cmulex", "flite_cmu_us_slt"))


@cache
def _library() -> ctypes.CDLL:
    if not available():
        raise FadaError("This voice needs flite: run `apt-get install flite`, or choose a voice of espeak-ng.")
    library = _load("flite")
    assert library is not None  # noqa: S101 - `available` has loaded it
    pointer = ctypes.c_void_p
    signatures = {
        "flite_init": (ctypes.c_int, []),
        "flite_feat_set_float": (None, [pointer, ctypes.c_char_p, ctypes.c_float]),
        "flite_synth_text": (pointer, [ctypes.c_char_p, pointer]),
        "utt_wave": (ctypes.POINTER(_Wave), [pointer]),
        "utt_relation": (pointer, [pointer, ctypes.c_char_p]),
        "relation_head": (pointer, [pointer]),
        "item_next": (pointer, [pointer]),
        "item_feat_float": (ctypes.c_float, [pointer, ctypes.c_char_p]),
        "flite_ffeature_string": (ctypes.c_char_p, [pointer, ctypes.c_char_p]),
        "item_feat_string": (ctypes.c_char_p, [pointer, ctypes.c_char_p]),
        "delete_utterance": (None, [pointer]),
    }
    for function, (result, arguments) in signatures.items():
        getattr(library, function).restype = result
        getattr(library, function).argtypes = arguments
    library.flite_init()
    return library


@cache
def _voice(name: str) -> "ctypes._Pointer[_Voice]":
    _library()
    library = _load(f"flite_cmu_us_{name}") if name in FEMALE + MALE else None
    if library is None:
        raise FadaError(f"flite has no voice '{name}': use one of {', '.join(FEMALE + MALE)}.")
    register = getattr(library, f"register_cmu_us_{name}")
    register.restype, register.argtypes = ctypes.POINTER(_Voice), [ctypes.c_char_p]
    return register(None)


def speak(
    text: str, voice: str = "slt", rate: float = 1.0, pitch: float = 1.0, liveliness: float = 1.0
) -> tuple[np.ndarray, list[Phoneme]]:
    """Speak English `text`: the waveform (samples,) float32 at 16 kHz, and its phonemes.

    `rate`, `pitch` and `liveliness` (range of the pitch) are multiples of the voice's own. Raises `FadaError` where
    flite is missing, does not know the voice, or cannot change its pitch.
    """
    library, speaker = _library(), _voice(voice)
    settings = {b"duration_stretch": 1 / rate}
    if voice not in FIXED:
        mean, deviation = PITCH[voice]
        settings |= {b"int_f0_target_mean": mean * pitch, b"int_f0_target_stddev": deviation * pitch * liveliness}
    elif abs(pitch - 1) > 1e-6 or liveliness != 1:
        raise FadaError(f"flite's voice {voice} keeps its pitch: give pitch the value of spectrum, and liveliness 1.")
    for feature, value in settings.items():
        library.flite_feat_set_float(speaker.contents.features, feature, value)
    ctypes.CDLL(None).srand(0)  # flite's noise comes from the C library's rand()
    utterance = library.flite_synth_text(text.encode("ascii", "ignore"), speaker)
    try:
        wave = library.utt_wave(utterance).contents
        audio = np.ctypeslib.as_array(wave.samples, (wave.num_samples,)).astype(np.float32) / 32768
        native_rate, seconds = wave.sample_rate, wave.num_samples / wave.sample_rate
        phonemes: list[Phoneme] = []
        start = 0.0
        item = library.relation_head(library.utt_relation(utterance, b"Segment"))
        while item:
            end = min(float(library.item_feat_float(item, b"end")), seconds)
            name = library.item_feat_string(item, b"name").decode().upper()
            if end > start:
                symbol = ARPABET.get(name, "")
                if set(symbol) & VOWELS and library.flite_ffeature_string(item, STRESSED) == b"1":
                    symbol = STRESS + symbol
                phonemes.append(Phoneme(start, end, symbol))
                start = end
            item = library.item_next(item)
    finally:
        library.delete_utterance(utterance)
    if native_rate != SAMPLE_RATE:
        audio = soxr.resample(audio, native_rate, SAMPLE_RATE)
    return audio, phonemes
