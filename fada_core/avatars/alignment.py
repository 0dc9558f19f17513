"""A recording and its words -> its phonemes, by pocketsphinx: with it any speech in English gives mouth truth."""

import re
from functools import cache
from typing import Any

import numpy as np

from ..errors import FadaError
from . import espeak
from .phones import ARPABET, SAMPLE_RATE, SOUNDS, Phoneme
from .speech import Speech
from .texts import number_words

STEP_S = 0.01
#: IPA -> the ARPAbet of pocketsphinx's model, with near sounds for those that it has not.
_ARPABET = {
    **{ipa: name for name, ipa in ARPABET.items() if name not in ("AX", "AXR", "DX", "EL", "EM", "EN", "IX")},
    **{
        "ə": "AH",
        "ɐ": "AH",
        "ɚ": "ER",
        "e": "EH",
        "a": "AA",
        "ɒ": "AA",
        "o": "OW",
        "ɾ": "D",
        "r": "R",
        "g": "G",
        "ʔ": "T",
    },
}


def pronounced(word: str) -> str:
    """An English word in ARPAbet as espeak-ng says it. Raises `FadaError` for one without sounds."""
    phones = []
    for phoneme in espeak.speak(word)[1]:
        symbol = "".join(c for c in phoneme.symbol if c in SOUNDS)
        for part in (symbol,) if symbol in _ARPABET else symbol:
            phones += [_ARPABET[part]] if part in _ARPABET else []
    if not phones:
        raise FadaError(f"pocketsphinx cannot align '{word}': espeak-ng finds no sounds in it.")
    return " ".join(phones)


@cache
def _decoder() -> Any:
    try:
        from pocketsphinx import Decoder
    except ImportError as error:
        raise FadaError("Alignment needs pocketsphinx: run `pip install pocketsphinx` and try again.") from error
    # Wide beams, and no second search over words: both lose phones that the text asks for.
    return Decoder(
        samprate=SAMPLE_RATE,
        lm=None,
        loglevel="FATAL",
        cmn="batch",
        bestpath=False,
        beam=1e-80,
        pbeam=1e-80,
        wbeam=1e-60,
    )


def align(waveform: np.ndarray, text: str, voice: str = "recording") -> Speech:
    """Find the phonemes of `text` (English words) in `waveform` (samples,) at 16 kHz.

    Raises `FadaError` where pocketsphinx is missing, does not know a word, or does not find the words in the sound.
    """
    decoder = _decoder()
    spelled = re.sub(
        r"\d+", lambda number: f" {number_words(int(number[0]))} " if len(number[0]) < 5 else number[0], text
    )
    if re.search(r"\d", spelled):
        raise FadaError("pocketsphinx aligns words, and numbers up to 9999: spell longer ones out.")
    words = re.findall(r"[a-z][a-z'.]*[a-z']|[a-z]", spelled.lower().replace("’", "'"))
    if not words:
        raise FadaError(
            "pocketsphinx has nothing to align in a text without English words: give the words that are said."
        )
    for word in set(words):
        if decoder.lookup_word(word) is None:
            decoder.add_word(word, pronounced(word), True)
    samples = (np.clip(waveform, -1, 1) * 32767).astype("<i2").tobytes()
    decoder.set_align_text(" ".join(words))
    try:
        for by_phones in (False, True):
            if by_phones:
                decoder.set_alignment()
            decoder.start_utt()
            decoder.process_raw(samples, full_utt=True)
            decoder.end_utt()
    except RuntimeError as error:
        raise FadaError(
            "pocketsphinx does not find these words in the recording: check that the text is what is said."
        ) from error
    phonemes = []
    for word in decoder.get_alignment():
        for phone in word:
            start, end = phone.start * STEP_S, (phone.start + phone.duration) * STEP_S
            phonemes.append(Phoneme(start, end, ARPABET.get(phone.name, "")))
    return Speech(np.asarray(waveform, np.float32), phonemes, text, voice)
