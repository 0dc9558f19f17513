"""Evaluation cases: held-out portraits and recordings with their ground truth videos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..avatars.clip import sample
from ..avatars.performance import perform
from ..avatars.phones import SAMPLE_RATE
from ..avatars.speech import Speech
from ..config import ModelConfig
from ..data.avatars import HELD_OUT_SEED
from ..data.samples import Pool
from ..face.region import FaceRegion
from ..media.image import from_uint8
from .frechet import Features, clip_features, frame_features
from .lips import LipsRegressor, load_regressor
from .metrics import Truth, measure

POOLS: dict[str, Pool] = {"closed": "high", "open": "moderate"}
"""The pool of each set: `closed` is like the teacher's data, `open` like the data that only students have seen."""
SILENCE = 0.48  #: seconds of silence at the end of every avatar's recording, in which the mouth should rest
STANDS_STILL = 0.05  #: standard deviation of the true openness below which a correlation means little


@dataclass(frozen=True, eq=False)
class Case:
    """Inputs of a video to generate, with its ground truth and its measures."""

    portrait: Tensor  #: (3, size, size) in -1..1
    waveform: Tensor  #: (samples,) float32 mono 16 kHz, as long as the frames
    frames: Tensor  #: ground truth, (n, 3, size, size) in -1..1
    measure: Callable[[Tensor], dict[str, float]]  #: metrics of frames (n, 3, size, size); may omit some
    region: FaceRegion | None = None  #: of the face, for models with face inputs
    identity: Tensor | None = None  #: face embedding, (1, identity_dim), for models with an identity input
    truth: Truth | None = None  #: of a rendered video
    name: str = ""  #: for cases whose own results are logged


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """Cases, created one at a time in one iteration, and the features whose distributions are compared."""

    name: str
    count: int
    cases: Iterable[Case]
    features: Mapping[str, Features]  #: by name of the metric


@dataclass(frozen=True, eq=False)
class Words:
    """The speech of avatar `seed`, and the openness (n,) of its mouth."""

    seed: int
    speech: Speech
    openness: Tensor


def held_out_words(count: int, seconds: float, fps: float) -> list[Words]:
    """Speech of the first `count` held-out avatars that move their mouths, `seconds` long with `SILENCE` at the end."""
    found: list[Words] = []
    seed = HELD_OUT_SEED
    while len(found) < count:
        act = perform(seed, "high", seconds - SILENCE, fps)
        openness = torch.from_numpy(act.mouth["openness"])
        if openness.std() > STANDS_STILL:
            openness = F.pad(openness, (0, round(seconds * fps) - len(openness)))
            found.append(Words(seed, act.speech, openness))
        seed += 1
    return found


@dataclass(frozen=True, eq=False)
class AvatarCases:
    """Held-out avatars of one pool. Both pools say the same words, so that sets differ only in the faces.

    Avatars of the moderate pool have its styles, light, masks, poses and livelier heads, but portraits, frames and
    sound without its defects (darkness, blur, compression, noise, sound out of sync). With defects there would be no
    clear ground truth (should the video of a noisy portrait be noisy?), and the lips regressor would be less accurate.
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
            size, fps, speech = self.size, self.fps, words.speech
            clip = sample(words.seed, self.pool, self.seconds, size=size, fps=fps, speech=speech, framing="face")
            # The clean speech: the clip's own waveform has the delay and noise of its pool.
            samples = int(len(clip.frames) / self.fps * SAMPLE_RATE)  # rounded down, so that no frame is added
            said = torch.from_numpy(words.speech.waveform)
            waveform = F.pad(said, (0, samples - len(said)))
            hidden = clip.person.wardrobe.mask or bool(clip.person.wardrobe.prop)
            truth = Truth(from_uint8(clip.clean_portrait), from_uint8(clip.clean_frames), clip.truth, hidden)
            other = self.words[(index + 1) % len(self.words)].openness
            judge = partial(
                measure, truth=truth, other_openness=other, regressor=self.regressor, clip_frames=self.clip_frames
            )
            yield Case(truth.portrait, waveform, truth.frames, judge, truth=truth)


def avatar_sets(names: Iterable[str], videos: int, seconds: float, model: ModelConfig) -> Iterator[EvaluationSet]:
    """The sets `names` of POOLS, with the size, frame rate and clip length of `model`."""
    words = held_out_words(videos, seconds, model.fps)
    regressor = load_regressor()  # on the CPU, so that its results do not depend on the device
    features = {"frechet_frames": frame_features, "frechet_clips": clip_features}
    for name in names:
        cases = AvatarCases(words, POOLS[name], seconds, model.size, model.fps, model.clip_frames, regressor)
        yield EvaluationSet(name, len(words), cases, features)
