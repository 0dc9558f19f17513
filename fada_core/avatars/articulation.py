"""Visible speech: phonemes -> face units of every frame, with co-articulation and lip contacts.

Neighbouring sounds overlap by dominance (Cohen and Massaro, Modeling coarticulation in synthetic visual speech, 1993):
each sound pulls every feature of the mouth towards its target, at full strength within the sound and fading before and
after it; rounding fades over a longer time than opening. Such averages would miss lip contacts, so these are enforced
last, from the geometry of an average head: the lips meet in p, b, m, the lower lip touches the teeth in f, v, and the
mouth is shut in a pause, whatever the jaw and the expression do.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.ndimage import gaussian_filter1d

from . import assets
from .assets import UNITS, unit_index, units
from .head import Body, FaceShape, Head
from .phones import (
    BILABIAL,
    LABIODENTAL,
    REST,
    SAMPLE_RATE,
    STRESS,
    VOICELESS_STOPS,
    VOWELS,
    WEAK_STRESS,
    Phoneme,
    Shape,
    Sound,
    sounds,
)

GRID_HZ = 200
LEAD_S = 0.015  # the mouth moves ahead of the sound
SMOOTH_S = 0.018
#: Seconds over which dominance fades before and after a sound, for four groups: jaw, lip opening, corners, tongue.
FADE_BEFORE = (0.055, 0.05, 0.11, 0.04)
FADE_AFTER = (0.06, 0.05, 0.075, 0.04)
#: The group of each feature of `Shape`, as an index of FADE_BEFORE and FADE_AFTER.
GROUP = {"jaw": 0, "upper": 1, "lower": 1, "spread": 2, "purse": 2, "funnel": 2, "tuck": 1, "tongue": 3}
#: Face units of each feature of `Shape` at full strength.
FEATURES = {
    "jaw": units(jawOpen=1.0),
    "upper": units(mouthUpperUp=1.0),
    "lower": units(mouthLowerDown=1.0),
    "spread": units(mouthStretch=0.45, mouthSmile=0.3),
    "purse": units(mouthPucker=1.0),
    "funnel": units(mouthFunnel=1.0),
    "tuck": units(mouthRollLower=0.5),
    "tongue": units(tongueOut=1.0),
}
PRESS = units(mouthRollLower=0.12, mouthRollUpper=0.1, mouthPress=0.06)  # lips pressed together in p, b, m
#: Lip distances in decimetres: pressed together, resting on each other, lower lip at the teeth, wide open.
PRESSED, RESTING, AT_TEETH, WIDE = -0.06, -0.045, 0.015, 0.2
MIDDLE = ((520, 521), (523, 540))  # vertices of hm08 in the middle of the inner lip edges, upper and lower
CORNERS = (7272, 3737)


@dataclass(frozen=True)
class Habits:
    """A person's manner of speaking.

    Factors, 1 is average: `strength` scales all mouth movement; `jaw` the opening by the jaw, with less by the lips;
    `corners` spreading and rounding; `speed` is low for slurred and high for crisp speech. `asymmetry`: -0.3 (the right
    side is stronger) .. 0.3 (the left). `teeth`: weight of mouthUpperUp, which bares the upper teeth while speaking.
    """

    strength: float = 1.0
    jaw: float = 1.0
    corners: float = 1.0
    speed: float = 1.0
    asymmetry: float = 0.0
    teeth: float = 0.0


def sample_habits(rng: np.random.Generator) -> Habits:
    """Random habits, from mumbling to speech that could be lip-read."""
    draw = rng.normal(0, 1, 6).clip(-2, 2)
    return Habits(
        strength=float(1.12 * np.exp(0.17 * draw[0])),
        jaw=float(1 + 0.17 * draw[1]),
        corners=float(1 + 0.15 * draw[2]),
        speed=float(1 + 0.1 * draw[3]),
        asymmetry=float(0.11 * draw[4]),
        teeth=float(max(0.0, 0.1 + 0.1 * draw[5])),
    )


@cache
def _geometry() -> np.ndarray:
    """Lip distance, mouth width and lip protrusion (3, 53) in dm: the change by each unit, then the value at rest."""
    average = Body(0.35, 0.5, (1 / 3, 1 / 3, 1 / 3), FaceShape())
    data = assets.load()
    upper, lower = map(data.rows, MIDDLE)
    left, right = data.rows(CORNERS)
    moves = np.concatenate([data.unit_deltas, Head(average).neutral[None]])
    gap = moves[:, upper, 1].mean(1) - moves[:, lower, 1].mean(1)
    return np.stack([gap, moves[:, left, 0] - moves[:, right, 0], moves[:, upper + lower, 2].mean(1)])


def lip_gap(face: np.ndarray) -> np.ndarray:
    """Lip distance (n,) in decimetres of an average head with units (n, 52); negative where the lips overlap."""
    change = _geometry()[0]
    return face @ change[:-1] + change[-1]


def mouth(face: np.ndarray) -> dict[str, np.ndarray]:
    """Mouth measures of units (n, 52), each (n,) in 0..1: `openness` (1 is 2 cm), `width` (0.5 at rest), `rounding`."""
    _, wide, forward = _geometry()
    return {
        "openness": (lip_gap(face) / WIDE).clip(0, 1).astype(np.float32),
        "width": (0.5 + (face @ wide[:-1]) / 0.24).clip(0, 1).astype(np.float32),
        "rounding": ((face @ forward[:-1] - face @ wide[:-1]) / 0.2).clip(0, 1).astype(np.float32),
    }


def loudness(waveform: np.ndarray, n: int, fps: float) -> np.ndarray:
    """Root mean square (n,) of `waveform` (samples,) at 16 kHz in each frame, 1 for the loudest; zeros for silence."""
    edges = np.minimum(np.arange(n + 1) / fps * SAMPLE_RATE, len(waveform)).astype(int)
    power = np.concatenate([[0.0], np.cumsum(waveform.astype(np.float64) ** 2)])
    rms = np.sqrt(np.maximum(power[edges[1:]] - power[edges[:-1]], 0) / (SAMPLE_RATE / fps))
    return (rms / max(rms.max(initial=0.0), 1e-4)).astype(np.float32)


@dataclass(frozen=True)
class _Segment:
    start: float
    end: float
    letter: str
    sound: Sound
    effort: float = 1.0


def _efforts(phonemes: list[Phoneme], waveform: np.ndarray) -> list[float]:
    """Factor for the mouth opening of each phoneme, from its stress and its loudness relative to the loudest."""
    levels = []
    for p in phonemes:
        part = waveform[max(0, int(p.start * SAMPLE_RATE)) : int(p.end * SAMPLE_RATE) + 1]
        levels.append(10 * np.log10(float(np.mean(part**2)) + 1e-9) if len(part) else -90.0)
    top = np.percentile(levels, 90) if levels else 0.0
    marked = any(STRESS in p.symbol for p in phonemes)  # alignments have no stress marks
    plain = 0.88 if marked else 1.0
    stresses = [1.08 if STRESS in p.symbol else 0.98 if WEAK_STRESS in p.symbol else plain for p in phonemes]
    return [s * float(np.clip(1 + (v - top) / 60, 0.75, 1.1)) for s, v in zip(stresses, levels, strict=True)]


def _segments(phonemes: list[Phoneme], waveform: np.ndarray, seconds: float) -> list[_Segment]:
    """Sounds and rests that cover 0 .. `seconds` without gaps."""
    spoken: list[_Segment] = []
    for p, effort in zip(phonemes, _efforts(phonemes, waveform), strict=True):
        at = p.start
        for letter, share, sound in sounds(p.symbol):
            end = at + share * (p.end - p.start)
            spoken.append(_Segment(at - LEAD_S, end - LEAD_S, letter, sound, effort if letter in VOWELS else 1.0))
            at = end
    out: list[_Segment] = []
    time = -1.0
    for s in spoken:
        if s.start > time + 0.004:
            out.append(_Segment(time, s.start, "", REST))
        out.append(s)
        time = s.end
    return [*out, _Segment(time, max(seconds, time) + 1.0, "", REST)]


def _plateau(times: np.ndarray, start: float, end: float, rise: float, fall: float) -> np.ndarray:
    """Curve (t,): 1 between start and end, with smooth flanks of `rise` and `fall` seconds outside."""
    x = np.minimum((times - start) / rise, (end - times) / fall).clip(-1, 0) + 1
    return x * x * (3 - 2 * x)


def _contacts(segments: list[_Segment], times: np.ndarray, speed: float) -> np.ndarray:
    """Contacts (3, t) 0..1: both lips in p, b, m; lower lip and teeth in f, v; both lips in a rest."""
    out = np.zeros((3, len(times)))
    for s in segments:
        length = s.end - s.start
        if s.letter in BILABIAL or s.letter in LABIODENTAL:
            # Lips touch already within the flanks, so that a contact is seen for at least some 50 ms. A voiceless stop
            # opens with its burst, before its segment ends.
            end = s.end - (0.35 * length if s.letter in VOICELESS_STOPS else 0.015)
            start = min(s.start + 0.02, end - 0.05)
            row = 0 if s.letter in BILABIAL else 1
            curve = _plateau(times, start, end, 0.055 / speed, 0.055 / speed)
        elif s.sound is REST and length > 0.16:
            row = 2
            curve = min(1.0, (length - 0.16) / 0.12) * _plateau(times, s.start + 0.1, s.end - 0.05, 0.1, 0.08)
        else:
            continue
        out[row] = np.maximum(out[row], curve)
    return out


def _features(
    segments: list[_Segment], times: np.ndarray, habits: Habits, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Each feature of `Shape` (t,) by dominance, before contacts."""
    middle = np.array([(s.start, s.end) for s in segments])
    length = middle[:, 1] - middle[:, 0]
    core = np.stack([middle[:, 0] + 0.25 * length, middle[:, 1] - 0.3 * length], 1)
    rests = np.array([s.sound is REST for s in segments])
    core[rests] = middle[rests] + np.where(length[rests] > 0.12, 0.05, 0.0)[:, None] * [1, -1]
    before = np.maximum(core[:, :1] - times, 0)
    after = np.maximum(times - core[:, 1:], 0)
    effort = np.array([s.effort for s in segments])
    slips = rng.normal(1, 0.05, (len(segments), len(Shape._fields))).clip(0.85, 1.15)
    strengths = np.array([(s.sound.jaw, s.sound.opening, s.sound.corners, s.sound.tongue) for s in segments])
    pulls = [
        np.exp(-((before * habits.speed / FADE_BEFORE[g] + after * habits.speed / FADE_AFTER[g]) ** 1.3))
        * strengths[:, g : g + 1]
        for g in range(4)
    ]
    out = {}
    for i, name in enumerate(Shape._fields):
        target = np.array([s.sound.shape[i] for s in segments]) * slips[:, i]
        if name in ("jaw", "upper", "lower"):
            target = target * effort
        pull = pulls[GROUP[name]]
        out[name] = (target @ pull) / (pull.sum(0) + 1e-9)
    return out


def seal(face: np.ndarray, contacts: np.ndarray) -> np.ndarray:
    """Enforce contacts (3, n), as from `track`, on units (n, 52): sets mouthClose so that the lip distance fits."""
    lips, teeth, rest = contacts
    close = unit_index("mouthClose")
    face = face.copy()
    face[:, close] = 0
    held = np.maximum(lips, rest)[:, None]
    for name in ("mouthUpperUp", "mouthLowerDown", "mouthFunnel"):
        columns = [i for i, unit in enumerate(UNITS) if unit.startswith(name)]
        face[:, columns] *= 1 - (0.75 if name == "mouthFunnel" else 1.0) * held
    face += PRESS * lips[:, None]
    gap = wanted = lip_gap(face)
    for contact, distance in ((teeth, AT_TEETH), (lips, PRESSED), (rest, RESTING)):
        wanted = wanted + contact * (np.minimum(wanted, distance) - wanted)
    face[:, close] = ((gap - wanted) / -_geometry()[0, close]).clip(0, 1)
    return face.astype(np.float32)


def track(
    phonemes: list[Phoneme],
    waveform: np.ndarray,
    n: int,
    fps: float,
    habits: Habits,
    rng: np.random.Generator,
    expression: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Mouth movement, sampled in the middle of each of `n` frames.

    Args:
        waveform: (samples,) at 16 kHz; louder vowels open wider.
        expression: (52,) or (n, 52) units of the rest of the face and of the mood, to which speech is added.

    Returns:
        `units` (n, 52); the measures of `mouth`, (n,) each; and `contacts` (3, n) 0..1: how far the lips in p, b, m,
        the lower lip in f, v, and the lips in a rest are in place.
    """
    times = np.arange(int(n / fps * GRID_HZ) + 2) / GRID_HZ
    segments = _segments(phonemes, np.asarray(waveform, np.float32), n / fps)
    features = _features(segments, times, habits, rng)
    features["upper"] = features["upper"] + habits.teeth * (features["jaw"] / 0.12).clip(0, 1)
    gains = {"jaw": habits.jaw, "upper": 1.5 - 0.5 * habits.jaw, "lower": 1.5 - 0.5 * habits.jaw}
    gains |= {"spread": habits.corners, "purse": habits.corners, "funnel": habits.corners}
    wave = sum(
        features[name][:, None] * FEATURES[name] * gains.get(name, 1.0) * (habits.strength if name != "tuck" else 1.0)
        for name in Shape._fields
    )
    left = np.array([1.0 if u.endswith("Left") else -1.0 if u.endswith("Right") else 0.0 for u in UNITS])
    wave = gaussian_filter1d(wave * (1 + habits.asymmetry * left), SMOOTH_S * GRID_HZ / habits.speed, axis=0)
    contacts = gaussian_filter1d(_contacts(segments, times, habits.speed), 0.006 * GRID_HZ, axis=1)
    at = (np.arange(n) + 0.5) / fps * GRID_HZ
    low = at.astype(int)
    part = (at - low)[:, None]
    face = wave[low] * (1 - part) + wave[low + 1] * part
    contacts = contacts[:, low] * (1 - part[:, 0]) + contacts[:, low + 1] * part[:, 0]
    if expression is not None:
        mood = np.broadcast_to(expression, face.shape)
        both = face + mood
        for name in ("mouthSmile", "mouthStretch"):  # a smile has already drawn the corners apart
            for side in ("Left", "Right"):
                i = unit_index(name + side)
                both[:, i] = np.maximum(face[:, i], mood[:, i]) + 0.35 * np.minimum(face[:, i], mood[:, i])
        face = both.clip(0, 1)
    face = seal(face, contacts)
    return {"units": face, "contacts": contacts.astype(np.float32), **mouth(face)}
