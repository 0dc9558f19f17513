"""The performance of a clip, before rendering: person, speech, and the motion of face and head."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy.ndimage import gaussian_filter1d

from ..errors import FadaError
from . import sound
from .accessories import PROP_AWAY, prop_motion
from .articulation import loudness, mouth, seal, track
from .behaviour import behave, idle, portrait_units, sample_mood
from .person import Person, sample_person
from .phones import SAMPLE_RATE
from .render import Motion
from .speech import Speech, fitted, sample_voice, talk

Pool = Literal["high", "moderate"]
SPEECHLESS = 0.12  #: share of clips in which nobody speaks, so that a model learns to keep the mouth closed
CALM = 0.6  #: share of the clips in which the head hardly moves
PURPOSES = ("person", "scene", "camera", "words", "acting", "style", "lens", "recording", "others", "defects")
_RESTING = np.array([[0.0], [0.0], [1.0]])  # contacts of resting lips, as in `articulation.track`


def generator(seed: int, pool: Pool, purpose: str) -> np.random.Generator:
    """The random generator of a clip for one of `PURPOSES`; they are independent of each other."""
    return np.random.default_rng([seed, get_args(Pool).index(pool), PURPOSES.index(purpose)])


@dataclass(frozen=True)
class Performance:
    """A performance of n frames. The first row of `motion` is the portrait to animate, the other n are the frames.
    `mouth`: `openness`, `width` and `rounding` of the frames as from `articulation.mouth`, (n,) each in 0..1."""

    person: Person
    speech: Speech
    motion: Motion
    mouth: dict[str, np.ndarray]


def perform(
    seed: int,
    pool: Pool,
    seconds: float,
    fps: float,
    *,
    person_seed: int | None = None,
    words_seed: int | None = None,
    speech: Speech | None = None,
) -> Performance:
    """The performance in the clip of `seed`; arguments as for `clip.sample`.

    Raises:
        FadaError: an unknown pool, no frames, or espeak-ng is needed but missing.
    """
    if pool not in get_args(Pool):
        raise FadaError(f"There is no pool '{pool}' of avatars; choose high or moderate.")
    n = round(seconds * fps) if math.isfinite(seconds * fps) else 0
    if n < 1:
        raise FadaError("An avatar clip needs at least one frame; raise seconds or fps.")
    person = sample_person(generator(seed if person_seed is None else person_seed, pool, "person"), pool)

    words = generator(seed if words_seed is None else words_seed, pool, "words")
    samples = round(n / fps * SAMPLE_RATE)
    if speech is None and words.random() < SPEECHLESS:
        waveform, kind = sound.speechless(samples / SAMPLE_RATE, words)
        speech = Speech(waveform, [], "", kind)
    elif speech is None:
        speech = talk(samples / SAMPLE_RATE, sample_voice(words, person.age, person.sex), words)
    speech = fitted(speech, samples)

    acting = generator(seed, pool, "acting")
    emphasis = loudness(speech.waveform, n, fps) if speech.phonemes else np.zeros(n, np.float32)
    if words_seed is not None:  # the head movement must not depend on the words, so not on their loudness
        emphasis = gaussian_filter1d(np.abs(acting.normal(0, 1.0, n)), 0.08 * fps).clip(0, 1)
    mood = sample_mood(acting)
    moved = behave(n, fps, emphasis, acting, mood=mood, turned=_turned(acting, pool), amount=_amount(acting, pool))
    face = track(speech.phonemes, speech.waveform, n, fps, person.habits, words, moved["units"])["units"]
    if not speech.phonemes:
        face = seal(np.maximum(face, idle(n, fps, words)), _RESTING.repeat(n, 1))

    still, closed = portrait_units(acting, mood)
    still = seal(still[None], _RESTING) if closed else still[None]
    # The portrait has the pose of the first frame, because a generated video starts from its portrait. With even a
    # fraction of a degree between them, shifted texture would outweigh the movement of speech in a loss.
    pose = {name: np.append(moved[name][:1], moved[name]) for name in ("yaw", "pitch", "roll")}
    gaze = np.concatenate([moved["gaze"][:1] * 0.3, moved["gaze"]])
    prop = np.concatenate([PROP_AWAY[None], prop_motion(person.wardrobe.prop, n, fps, acting)])
    motion = Motion(np.concatenate([still, face]), gaze=gaze, prop=prop, **pose)
    return Performance(person, speech, motion, mouth(face))


def _turned(rng: np.random.Generator, pool: Pool) -> tuple[float, float, float]:
    """Constant yaw, pitch and roll of the head in radians; most heads face the camera."""
    deviation, most = (0.14, 0.52) if pool == "high" else (0.3, 0.87)
    yaw = float(np.clip(rng.normal(0, deviation), -most, most))
    return yaw, float(rng.normal(0, 0.05)), float(rng.normal(0, 0.04))


def _amount(rng: np.random.Generator, pool: Pool) -> float:
    """Scale of the head movement, the `amount` of `behave`."""
    if rng.random() < CALM:
        return float(rng.uniform(0.03, 0.15))
    return float(rng.uniform(0.15, 0.4 if pool == "high" else 0.9))
