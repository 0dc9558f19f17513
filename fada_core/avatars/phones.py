"""Phonemes: their times, their alphabets, and the mouth shape of each sound.

Targets and dominances are our choice, adjusted by looking at rendered mouths. They follow the usual viseme classes and
the descriptions of lips, jaw and tongue in the handbook of the International Phonetic Association.
"""

from dataclasses import dataclass
from typing import NamedTuple

SAMPLE_RATE = 16_000  # of every waveform here


@dataclass(frozen=True)
class Phoneme:
    """A phoneme: `start` and `end` in seconds, `symbol` in IPA (with its stress mark; empty for a pause).

    A stop lasts from its closure to the end of its burst.
    """

    start: float
    end: float
    symbol: str


#: ARPAbet without its stress digits (flite, pocketsphinx) -> IPA.
ARPABET = {
    "AA": "ɑ", "AE": "æ", "AH": "ʌ", "AO": "ɔ", "AW": "aʊ", "AX": "ə", "AXR": "ɚ", "AY": "aɪ", "B": "b", "CH": "tʃ",
    "D": "d", "DH": "ð", "DX": "ɾ", "EH": "ɛ", "EL": "əl", "EM": "m", "EN": "n", "ER": "ɜ", "EY": "eɪ", "F": "f",
    "G": "ɡ", "HH": "h", "IH": "ɪ", "IX": "ɪ", "IY": "i", "JH": "dʒ", "K": "k", "L": "l", "M": "m", "N": "n",
    "NG": "ŋ", "OW": "oʊ", "OY": "ɔɪ", "P": "p", "R": "ɹ", "S": "s", "SH": "ʃ", "T": "t", "TH": "θ", "UH": "ʊ",
    "UW": "u", "V": "v", "W": "w", "Y": "j", "Z": "z", "ZH": "ʒ",
}  # fmt: skip
#: Letters of misaki's alphabet (hibari) that differ from IPA -> IPA.
MISAKI = {
    "A": "eɪ",
    "I": "aɪ",
    "W": "aʊ",
    "O": "oʊ",
    "Y": "ɔɪ",
    "Q": "əʊ",
    "ʤ": "dʒ",
    "ʧ": "tʃ",
    "ᵊ": "ə",
    "ᵻ": "ɪ",
    "T": "ɾ",
}
STRESS, WEAK_STRESS, LONG = "ˈ", "ˌ", "ː"
BILABIAL = frozenset("pbmɓʙ")  # the lips meet
LABIODENTAL = frozenset("fvɱ")  # the lower lip meets the upper teeth
VOICELESS_STOPS = frozenset("ptkcqʈʔ")
VOWELS = frozenset("aɑɐʌæɛeəɜɚɘiɪɨoɔɒuʊʉɯɤyʏøœɵɞɶ")


class Shape(NamedTuple):
    """Mouth targets of a sound, each 0..1, where 1 is a lively speaker's.

    `jaw` lowers the jaw, `upper` raises the upper lip off the teeth, `lower` lowers the lower lip, `spread` draws the
    corners apart, `purse` draws them together and the lips forward, `funnel` turns the lips outward around an opening,
    `tuck` folds the lower lip in, `tongue` brings the tip of the tongue between the teeth.
    """

    jaw: float = 0.0
    upper: float = 0.0
    lower: float = 0.0
    spread: float = 0.0
    purse: float = 0.0
    funnel: float = 0.0
    tuck: float = 0.0
    tongue: float = 0.0


#: Dominance of a sound over its neighbours: levels for `Sound`.
FREE, LOOSE, FIRM, WHOLE = 0.06, 0.25, 0.6, 1.0


@dataclass(frozen=True)
class Sound:
    """A shape and its dominance over its neighbours in `jaw`, lip `opening`, `corners` (width) and `tongue`."""

    shape: Shape
    jaw: float
    opening: float
    corners: float
    tongue: float = FIRM


def _sounds(
    letters: str, jaw: float, opening: float, corners: float, tongue: float = FIRM, /, **shape: float
) -> dict[str, Sound]:
    return {letter: Sound(Shape(**shape), jaw, opening, corners, tongue) for letter in letters}


REST = Sound(Shape(), WHOLE, WHOLE, FIRM, WHOLE)
#: An unknown sound: its neighbours shape the mouth.
NEUTRAL = Sound(Shape(jaw=0.16, upper=0.2, lower=0.2), FREE, FREE, FREE, LOOSE)
SOUNDS: dict[str, Sound] = {
    # Open vowels: shaped by the jaw.
    **_sounds("aɑɐ", WHOLE, FIRM, FIRM, jaw=0.48, upper=0.42, lower=0.25),
    **_sounds("ʌ", FIRM, FIRM, LOOSE, jaw=0.35, upper=0.3, lower=0.22),
    **_sounds("æɶ", WHOLE, FIRM, WHOLE, jaw=0.4, upper=0.46, lower=0.3, spread=0.55),
    **_sounds("ɛ", FIRM, FIRM, FIRM, jaw=0.29, upper=0.4, lower=0.32, spread=0.55),
    **_sounds("e", FIRM, WHOLE, WHOLE, jaw=0.2, upper=0.42, lower=0.4, spread=0.8),
    **_sounds("əɘɤ", LOOSE, LOOSE, FREE, jaw=0.17, upper=0.14, lower=0.18),
    **_sounds("ɜɚɞ", FIRM, FIRM, FIRM, jaw=0.21, upper=0.18, lower=0.2, purse=0.15, funnel=0.22),
    # Spread vowels: shaped by the corners.
    **_sounds("i", FIRM, WHOLE, WHOLE, jaw=0.11, upper=0.45, lower=0.6, spread=1.0),
    **_sounds("ɪɨ", FIRM, FIRM, FIRM, jaw=0.15, upper=0.35, lower=0.38, spread=0.6),
    **_sounds("ɯ", FIRM, FIRM, FIRM, jaw=0.1, upper=0.25, lower=0.3, spread=0.3),
    # Rounded vowels.
    **_sounds("o", WHOLE, FIRM, WHOLE, jaw=0.25, upper=0.05, lower=0.1, purse=0.75, funnel=0.36),
    **_sounds("ɔ", WHOLE, FIRM, WHOLE, jaw=0.38, upper=0.08, lower=0.1, purse=0.5, funnel=0.38),
    **_sounds("ɒ", WHOLE, FIRM, FIRM, jaw=0.43, upper=0.2, lower=0.15, purse=0.1, funnel=0.35),
    **_sounds("uʉ", WHOLE, FIRM, WHOLE, jaw=0.14, purse=1.0, funnel=0.4),
    **_sounds("ʊ", FIRM, FIRM, WHOLE, jaw=0.14, upper=0.05, lower=0.1, purse=0.65, funnel=0.36),
    **_sounds("yʏ", WHOLE, FIRM, WHOLE, jaw=0.13, lower=0.05, purse=1.0, funnel=0.38),
    **_sounds("øœɵ", WHOLE, FIRM, WHOLE, jaw=0.17, upper=0.05, lower=0.1, purse=0.75, funnel=0.36),
    # Lips. `articulation` enforces the contacts of p, b, m and f, v.
    **_sounds("pbmɓʙ", FIRM, FIRM, FREE, jaw=0.05),
    **_sounds("βɸ", FIRM, WHOLE, LOOSE, jaw=0.05, upper=0.05, lower=0.05),
    **_sounds("fvɱ", WHOLE, WHOLE, LOOSE, jaw=0.06, upper=0.5, tuck=1.0),
    **_sounds("ʋ", FIRM, FIRM, LOOSE, jaw=0.09, upper=0.35, tuck=0.6),
    **_sounds("wʍ", WHOLE, FIRM, WHOLE, jaw=0.1, purse=1.0, funnel=0.34),
    **_sounds("ɥ", WHOLE, FIRM, WHOLE, jaw=0.1, purse=1.0, funnel=0.34),
    # Tip and blade of the tongue.
    **_sounds("θð", FIRM, FIRM, FREE, WHOLE, jaw=0.13, upper=0.35, lower=0.25, tongue=0.62),
    **_sounds("tdn", FIRM, LOOSE, FREE, jaw=0.1, upper=0.24, lower=0.38),
    **_sounds("ʈɖɳɾɽcɟɲ", LOOSE, LOOSE, FREE, jaw=0.12, upper=0.22, lower=0.3),
    **_sounds("lɫɬɭʎɮ", LOOSE, LOOSE, FREE, WHOLE, jaw=0.17, upper=0.25, lower=0.25, tongue=0.3),
    **_sounds("szɕʑ", WHOLE, WHOLE, LOOSE, jaw=0.05, upper=0.45, lower=0.65, spread=0.4),
    **_sounds("ʃʒʂʐɧ", WHOLE, WHOLE, WHOLE, jaw=0.05, upper=0.2, lower=0.2, purse=0.45, funnel=0.5),
    **_sounds("ɹɻɺ", FIRM, LOOSE, FIRM, jaw=0.1, upper=0.1, lower=0.12, purse=0.4, funnel=0.35),
    **_sounds("r", LOOSE, LOOSE, FREE, jaw=0.15, upper=0.2, lower=0.25),
    **_sounds("jʝ", FIRM, FIRM, FIRM, jaw=0.08, upper=0.35, lower=0.4, spread=0.75),
    # Back of the tongue and throat: the neighbours shape the lips.
    **_sounds("kɡgŋɣxqɢɴχʁʀçħʕɰ", LOOSE, LOOSE, FREE, jaw=0.15, upper=0.15, lower=0.25),
    **_sounds("hɦʔ", FREE, FREE, FREE, LOOSE, jaw=0.2, upper=0.16, lower=0.2),
}
#: Share of the first sound in a phoneme of two: affricates and falling diphthongs.
FIRST_SHARE = 0.55


def sounds(symbol: str) -> list[tuple[str, float, Sound]]:
    """The sounds of an IPA symbol in order, as (letter, share of the time, sound); none for a pause.

    A length mark lengthens the letter before it. A symbol of unknown letters gives one neutral sound.
    """
    letters: list[str] = []
    weights: list[float] = []
    for character in symbol:
        if character in SOUNDS:
            letters.append(character)
            weights.append(1.0)
        elif character == LONG and letters:
            weights[-1] *= 1.7
    if not letters:
        return [("", 1.0, NEUTRAL)] if symbol.strip(STRESS + WEAK_STRESS + LONG + "_:|‖ ") else []
    if len(letters) == 2 and weights[1] == 1:
        weights[0] *= FIRST_SHARE / (1 - FIRST_SHARE)
    total = sum(weights)
    return [(letter, weight / total, SOUNDS[letter]) for letter, weight in zip(letters, weights, strict=True)]
