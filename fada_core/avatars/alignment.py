"""Forced alignment with pocketsphinx: phonemes of an English recording whose words are known."""

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
#: IPA -> ARPAbet of pocketsphinx's acoustic model. A sound that the model lacks is mapped to a similar one.
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
    """ARPAbet of an English word as espeak-ng pronounces it. Raises `FadaError` for a word without sounds."""
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
    # Narrow beams and the second pass (bestpath) can drop phones that the text contains.
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
    """Find the phonemes of `text` (English words) in `waveform` (samples,) mono at 16 kHz.

    `voice` becomes the name of the result's voice.

    Raises:
        FadaError: pocketsphinx is missing, the text has no English words or a number above 9999, a word has no sounds,
            or pocketsphinx does not find the words in the sound.
    """
    decoder = _decoder()
    spelled = re.sub(
        r"\d+", lambda number: f" {number_words(int(number[0]))} " if len(number[0]) < 5 else number[0], text
    )
    if re.search(r"\d", spelled):
        raise FadaError("pocketsphinx aligns words, and numbers up to 9999: spell out larger numbers.")
    words = re.findall(r"[a-z][a-z'.]*[a-z']|[a-z]", spelled.lower().replace("’", "'"))
    if not words:
        raise FadaError(
            "pocketsphinx has nothing to align in a text without English words: give the words of the recording."
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
            "pocketsphinx does not find these words in the recording: check that the text matches what is said."
        ) from error
    phonemes = []
    for word in decoder.get_alignment():
        for phone in word:
            start, end = phone.start * STEP_S, (phone.start + phone.duration) * STEP_S
            phonemes.append(Phoneme(start, end, ARPABET.get(phone.name, "")))
    return Speech(np.asarray(waveform, np.float32), phonemes, text, voice)
