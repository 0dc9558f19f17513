"""Speech with the time of every phoneme: `synthesize` for the voices of all engines, `talk` for several sentences."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import soxr

from ..errors import FadaError
from . import espeak, flite, hibari
from .phones import SAMPLE_RATE, Phoneme
from .texts import LANGUAGES, sentence

__all__ = ["SAMPLE_RATE", "Phoneme", "Speech", "Voice", "fitted", "sample_voice", "synthesize", "talk"]

Engine = Literal["espeak", "hibari", "flite"]
ENGLISH_SHARE = 0.6  #: share of voices that speak English where espeak-ng may be drawn
#: espeak-ng's accents of English.
ACCENTS = ("en-us", "en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-029")


@dataclass(frozen=True)
class Voice:
    """A voice. `name`: its name in the engine, such as en-us+f3 (espeak), slt (flite), heart (hibari).

    `rate` of speaking, `pitch`, `spectrum` (formants; above 1 for a smaller head) and `liveliness` (range of the pitch)
    are multiples of the engine's own.
    """

    engine: Engine
    name: str
    language: str = "en"
    rate: float = 1.0
    pitch: float = 1.0
    spectrum: float = 1.0
    liveliness: float = 1.0


@dataclass(frozen=True)
class Speech:
    """Speech: `waveform` (samples,) float32 mono 16 kHz, its phonemes in order, its words and the name of the voice."""

    waveform: np.ndarray
    phonemes: list[Phoneme]
    text: str
    voice: str


def synthesize(text: str, voice: Voice | str = "en-us", seed: int = 0) -> Speech:
    """Speak `text`. `voice`: a `Voice`, or the name of a voice of espeak-ng; `seed`: for the noise in hibari's sound.

    Raises `FadaError` where the engine is missing or does not know the voice.
    """
    if isinstance(voice, str):
        voice = Voice("espeak", voice)
    if voice.engine == "hibari":
        audio, phonemes = hibari.speak(text, voice.rate, voice.pitch, voice.spectrum, voice.liveliness, seed)
        return Speech(audio, phonemes, text, "hibari:heart")
    # Playing the sound faster raises its formants, but also pitch and rate, which are lowered beforehand.
    engine = {"espeak": espeak, "flite": flite}[voice.engine]
    audio, phonemes = engine.speak(
        text, voice.name, voice.rate / voice.spectrum, voice.pitch / voice.spectrum, voice.liveliness
    )
    if voice.spectrum != 1:
        audio = soxr.resample(audio, SAMPLE_RATE * voice.spectrum, SAMPLE_RATE)
        phonemes = [Phoneme(p.start / voice.spectrum, p.end / voice.spectrum, p.symbol) for p in phonemes]
    return Speech(audio.astype(np.float32), phonemes, text, f"{voice.engine}:{voice.name}")


def sample_voice(rng: np.random.Generator, age: float, sex: float, engines: tuple[Engine, ...] | None = None) -> Voice:
    """A random voice for `age` (0: 5 years .. 1: 85 years) and `sex` (0 female .. 1 male).

    `engines`: those to choose from (None: espeak, and the others where they are installed); flite and hibari speak only
    English. Raises `FadaError` where `engines` has none of the three.
    """
    male = sex > 0.5
    child = age < 0.12
    known: tuple[Engine, ...] = ("espeak", "flite", "hibari")
    usable = [e for e in known if engines is None or e in engines]
    if engines is None:
        usable = [e for e in usable if e == "espeak" or {"flite": flite, "hibari": hibari}[e].available()]
    if not usable:
        raise FadaError("There is no engine to draw a voice from: name espeak, flite or hibari.")
    old = float(np.clip((age - 0.65) / 0.35, 0, 1))
    rate = float(rng.uniform(0.8, 1.25)) * (1 - 0.12 * old)
    liveliness = float(rng.uniform(0.6, 1.5))
    chosen: Engine = "espeak"
    if "espeak" not in usable or rng.random() < ENGLISH_SHARE:
        weights = np.array([{"espeak": 0.3, "flite": 0.25, "hibari": 0.45}[e] for e in usable])
        chosen = usable[rng.choice(len(usable), p=weights / weights.sum())]
        language = "en"
    else:
        language = str(rng.choice([k for k in LANGUAGES if k != "en"]))
    if chosen == "hibari":  # a female voice, varied in ranges that stay intelligible
        pitch, spectrum = (
            (rng.uniform(0.52, 0.66), rng.uniform(0.82, 0.89))
            if male
            else (rng.uniform(0.82, 1.1), rng.uniform(0.93, 1.04))
        )
        if child:
            pitch, spectrum = rng.uniform(1.1, 1.2), rng.uniform(1.05, 1.1)
        return Voice("hibari", "heart", "en", rate, float(pitch), float(spectrum), liveliness)
    if chosen == "flite":
        name = str(rng.choice(flite.MALE if male and not child else flite.FEMALE))
    else:
        accent = str(rng.choice(ACCENTS)) if language == "en" else LANGUAGES[language]
        name = f"{accent}+{rng.choice(espeak.MALE if male and not child else espeak.FEMALE)}"
    pitch = float(np.clip(rng.normal(1, 0.1), 0.8, 1.25)) * (1 - 0.06 * old if not male else 1 + 0.05 * old)
    spectrum = float(np.clip(rng.normal(1, 0.05), 0.9, 1.12))
    if child:
        pitch, spectrum = pitch * 1.2, spectrum * 1.12
    if name in flite.FIXED:
        pitch, liveliness = spectrum, 1.0
    return Voice(chosen, name, language, rate, pitch, spectrum, liveliness)


def fitted(speech: Speech, samples: int) -> Speech:
    """Cut speech or pad it with silence to `samples`; phonemes are cut, too."""
    waveform = np.zeros(samples, np.float32)
    waveform[: len(speech.waveform)] = speech.waveform[:samples]
    seconds = samples / SAMPLE_RATE
    phonemes = [Phoneme(p.start, min(p.end, seconds), p.symbol) for p in speech.phonemes if p.start < seconds]
    return replace(speech, waveform=waveform, phonemes=phonemes)


def talk(seconds: float, voice: Voice, rng: np.random.Generator) -> Speech:
    """Random sentences in the voice's language with pauses, exactly `seconds` long, with a peak of 0.9."""
    waveform = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    phonemes: list[Phoneme] = []
    said: list[str] = []
    name = ""
    at = float(rng.uniform(0.05, 0.5))
    while not said or at < seconds - 0.4:
        spoken = synthesize(sentence(rng, voice.language), voice, int(rng.integers(2**31)))
        start = round(at * SAMPLE_RATE)
        heard = spoken.waveform[: max(0, len(waveform) - start)]
        waveform[start : start + len(heard)] = heard
        phonemes += [Phoneme(p.start + at, p.end + at, p.symbol) for p in spoken.phonemes]
        said.append(spoken.text)
        name = spoken.voice
        at += len(spoken.waveform) / SAMPLE_RATE + float(rng.uniform(0.05, 0.7))
    peak = max(float(np.abs(waveform).max()), 1e-3)
    return fitted(Speech(waveform * np.float32(0.9 / peak), phonemes, " ".join(said), name), len(waveform))
