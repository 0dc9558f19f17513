"""hibari-tts: a natural English voice (numpy and onnxruntime), varied into many speakers, with phoneme times.

The package's interface gives only sound. Its network also computes the duration of every phoneme, and pitch and spectra
from which the waveform is synthesised: durations are read, and pitch and spectra are changed, at that point.
"""

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from ..errors import FadaError
from .phones import MISAKI, SAMPLE_RATE, STRESS, VOWELS, WEAK_STRESS, Phoneme

DURATIONS = "/Cast_32_output_0"  # node of hibari-tts 0.2.1's network: duration of every phoneme, in steps
STEP_S = 0.025
ONSET_S = 0.1  # a first phoneme may start this much earlier than the network says
SPACE_S = 0.09  # a longer space is a pause
LATE_S = 0.06  # delay of the network's boundaries relative to those of an aligner
_PAUSES = frozenset(" .,;:!?-—…()\"'“”")


def available() -> bool:
    """Whether hibari-tts and onnxruntime are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("hibari", "onnxruntime"))


def _field(number: int, payload: bytes) -> bytes:
    """One length-delimited field of a protobuf message."""
    size, length = len(payload), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + payload


@cache
def _voice() -> tuple[Any, Any]:
    """The package's speaker (for its phonemizer), and an onnxruntime session that also outputs durations."""
    try:
        import onnxruntime
        from hibari import Hibari, voices
        from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph, InvalidProtobuf
    except ImportError as error:
        raise FadaError("This voice needs hibari-tts: run `pip install hibari-tts==0.2.1` and try again.") from error
    # Concatenated protobuf messages are merged, so these bytes after the model add an output to its graph.
    int64 = _field(1, bytes([1 << 3, 7]))
    output = _field(7, _field(12, _field(1, DURATIONS.encode()) + _field(2, int64)))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    model = Path(voices.voice_path("heart")).read_bytes() + output
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except (InvalidGraph, InvalidProtobuf, Fail) as error:
        raise FadaError("This hibari-tts contains another network: run `pip install hibari-tts==0.2.1`.") from error
    return Hibari(voice="heart"), session


def _warp(spectrum: np.ndarray, factor: float) -> np.ndarray:
    """Scale the frequencies of a spectrum (bins, frames) by `factor`, which shifts its formants."""
    at = np.arange(len(spectrum)) / factor
    low = at.astype(int).clip(0, len(spectrum) - 2)
    part = (at - low).clip(0, 1).astype(np.float32)[:, None]
    return spectrum[low] * (1 - part) + spectrum[low + 1] * part


def _phonemes(symbols: str, ends: np.ndarray, audio: np.ndarray, rate: int) -> list[Phoneme]:
    """Phonemes from misaki's letters and their `ends` (n,) in seconds.

    The time of stress marks and of short spaces between words is divided between their neighbours.
    """
    seconds = len(audio) / rate
    out: list[Phoneme] = []
    stress, start = "", 0.0
    for letter, end in zip(symbols, ends, strict=True):
        end = float(np.clip(end, start, seconds))
        if letter in (STRESS, WEAK_STRESS):
            stress = letter
        between = letter == " " and end - start < SPACE_S or letter in (STRESS, WEAK_STRESS)
        if between and out and out[-1].symbol:
            out[-1] = Phoneme(out[-1].start, start + 0.5 * (end - start), out[-1].symbol)
            start = out[-1].end
        elif end > start and letter not in (STRESS, WEAK_STRESS):
            symbol = "" if letter in _PAUSES else MISAKI.get(letter, letter)
            if set(symbol) & VOWELS:
                symbol, stress = stress + symbol, ""
            out.append(Phoneme(start, end, symbol))
            start = end
    # The network counts the silence after a word as part of its last phoneme, and starts the first phoneme too late.
    level = np.abs(audio) / max(float(np.abs(audio).max(initial=0.0)), 1e-6)
    for i, p in enumerate(out):
        if p.symbol and (i + 1 == len(out) or not out[i + 1].symbol):
            heard = np.flatnonzero(level[int(p.start * rate) : int(p.end * rate)] > 0.03)
            end = p.start + max(0.06, (heard[-1] + 1) / rate if len(heard) else 0.0)
            out[i] = p = Phoneme(p.start, min(end, p.end), p.symbol)
        if p.symbol and i and not out[i - 1].symbol and p.start - out[i - 1].start > 0.15:
            heard = np.flatnonzero(level[int((p.start - ONSET_S) * rate) : int(p.start * rate)] > 0.012)
            start = float(p.start - ONSET_S + heard[0] / rate) if len(heard) else p.start
            out[i - 1], out[i] = Phoneme(out[i - 1].start, start, ""), Phoneme(start, p.end, p.symbol)
    return out


def speak(
    text: str, rate: float = 1.0, pitch: float = 1.0, spectrum: float = 1.0, liveliness: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, list[Phoneme]]:
    """Speak English `text`: the waveform (samples,) float32 at 16 kHz, and its phonemes.

    `rate`, `pitch`, `spectrum` (formants) and `liveliness` (range of the pitch) are multiples of the voice's own; pitch
    0.55 with spectrum 0.84 sounds male. Raises `FadaError` where hibari-tts is missing or has another network.
    """
    speaker, session = _voice()
    from hibari import dsp

    rng = np.random.default_rng(seed)
    parts: list[np.ndarray] = []
    phonemes: list[Phoneme] = []
    at = 0.0
    for symbols in speaker.phonemize(text):
        symbols = "".join(s for s in symbols if s in speaker.vocab)
        ids = np.asarray([speaker.ids(symbols)], np.int64)
        *sound, durations = session.run(
            [o.name for o in session.get_outputs()], {"ids": ids, "speed": np.asarray([rate], np.float32)}
        )
        lh, th, ln, lr, phi, f0 = (o[0] for o in sound)
        if spectrum != 1:
            lh, th, ln, lr, phi = (_warp(o, spectrum) for o in (lh, th, ln, lr, phi))
        voiced = f0 > 40
        middle = np.exp(np.log(f0[voiced]).mean()) if voiced.any() else 1.0
        f0 = np.where(voiced, np.maximum(middle * pitch * (np.maximum(f0, 1) / middle) ** liveliness, 45), 0)
        audio = dsp.synth(lh, th, ln, lr, phi, f0.astype(np.float32), rng)
        seconds = len(audio) / dsp.SR
        ends = np.cumsum(durations.ravel()) * STEP_S - LATE_S
        ends[-1] = seconds
        made = _phonemes("." + symbols + ".", ends, audio, dsp.SR)
        phonemes += [Phoneme(p.start + at, p.end + at, p.symbol) for p in made]
        parts.append(audio)
        at += seconds
    whole = np.concatenate(parts) if parts else np.zeros(1, np.float32)
    return soxr.resample(whole, dsp.SR, SAMPLE_RATE).astype(np.float32), phonemes
