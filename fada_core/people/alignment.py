"""A recording and its words -> its phonemes, by pocketsphinx: with it any speech in English gives mouth truth."""

import re
from functools import cache
from typing import Any

import numpy as np

from ..errors import FadaError
from .phones import ARPABET, SAMPLE_RATE, Phoneme
from .speech import Speech

STEP_S = 0.01


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
    words = re.findall(r"[a-z][a-z'.]*[a-z']|[a-z]", text.lower().replace("’", "'"))
    unknown = [w for w in words if decoder.lookup_word(w) is None]
    if unknown or not words:
        what = f"the word '{unknown[0]}'" if unknown else "a text without words"
        raise FadaError(f"pocketsphinx cannot align {what}: write English words, numbers spelled out.")
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
