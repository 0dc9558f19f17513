"""What is evaluated: portraits and recordings that no training has seen, and the videos that should come of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..avatars.clip import sample
from ..avatars.performance import perform
from ..avatars.phones import SAMPLE_RATE
from ..avatars.speech import Speech
from ..data.avatars import HELD_OUT_SEED
from ..data.samples import Pool
from ..face.region import FaceRegion
from .frechet import Features
from .lips import LipsRegressor
from .metrics import Truth, measure

POOLS: dict[str, Pool] = {"closed": "high", "open": "moderate"}
"""The pool behind each set: `closed` is what the teacher knows, `open` the kind that only a student has seen."""
SILENCE = 0.48  #: seconds at the end of every avatar's recording in which nobody speaks, to see the mouth rest
_STANDS_STILL = 0.05  #: deviation of the true openness below which a recording has no correlation to speak of


@dataclass(frozen=True, eq=False)
class Case:
    """One video to make, and what it is compared with."""

    portrait: Tensor  #: (3, size, size) in -1..1
    waveform: Tensor  #: (samples,) float32 mono 16 kHz, as long as the frames
    frames: Tensor  #: ground truth, (n, 3, size, size) in -1..1
    measure: Callable[[Tensor], dict[str, float]]  #: of frames like the truth; what does not apply is left out
    region: FaceRegion | None = None  #: where the face is, for models that are told
    identity: Tensor | None = None  #: face embedding, (1, identity_dim), for models that take one
    truth: Truth | None = None  #: of a rendering: what the renderer knows
    name: str = ""  #: of a case that results are shown for by itself


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """Cases, made one at a time whenever they are gone through, and the features whose distributions are compared."""

    name: str
    count: int
    cases: Iterable[Case]
    features: dict[str, Features]  #: by the name of the metric


@dataclass(frozen=True, eq=False)
class Words:
    """What avatar `seed` says, with the openness (n,) that its mouth has."""

    seed: int
    speech: Speech
    openness: Tensor


def held_out_words(count: int, seconds: float, fps: float) -> list[Words]:
    """What the first `count` held-out avatars that move their mouths say, in `seconds` with `SILENCE` at the end."""
    found: list[Words] = []
    seed = HELD_OUT_SEED
    while len(found) < count:
        act = perform(seed, "high", seconds - SILENCE, fps)
        openness = torch.from_numpy(act.mouth["openness"])
        if openness.std() > _STANDS_STILL:
            openness = F.pad(openness, (0, round(seconds * fps) - len(openness)))
            found.append(Words(seed, act.speech, openness))
        seed += 1
    return found


@dataclass(frozen=True, eq=False)
class AvatarCases:
    """Held-out avatars of one pool; both pools say the same words, so that only the faces tell them apart.

    Avatars of the moderate pool keep everything about them that is style: paintings, drawings, statues, wild light,
    masks, turned and livelier heads. Their portraits, frames and sound have none of that pool's defects (darkness,
    blur, compression, noise, sound out of step): should the video of a noisy portrait be noisy? There is no one answer
    to compare with, and the lips regressor reads defective pictures less well.
    """

    words: list[Words]
    pool: Pool
    seconds: float
    size: int
    fps: float
    clip_frames: int
    regressor: LipsRegressor

    def __iter__(self) -> Iterator[Case]:
        for index, words in enumerate(self.words):
            made = {"size": self.size, "fps": self.fps, "speech": words.speech, "framing": "face"}
            clip = sample(words.seed, self.pool, self.seconds, **made)
            # Before any delay or noise, which only the pool's own waveform has.
            samples = int(len(clip.frames) / self.fps * SAMPLE_RATE)  # never a frame more
            said = torch.from_numpy(words.speech.waveform)
            waveform = F.pad(said, (0, samples - len(said)))
            hidden = clip.person.wardrobe.mask or bool(clip.person.wardrobe.prop)
            portrait, frames = (value.float() / 127.5 - 1 for value in (clip.clean_portrait, clip.clean_frames))
            truth = Truth(portrait, frames, clip.truth, hidden)
            other = self.words[(index + 1) % len(self.words)].openness
            judge = partial(
                measure, truth=truth, other_openness=other, regressor=self.regressor, clip_frames=self.clip_frames
            )
            yield Case(truth.portrait, waveform, truth.frames, judge, truth=truth)
