"""`Person`: everything that is drawn once about somebody, and `sample_person`, which draws it."""

from dataclasses import dataclass

import numpy as np

from ..errors import FadaError
from .head import FaceShape, sample_shape

POOLS = ("high", "moderate")


@dataclass(frozen=True)
class Person:
    """age: 0 (5 years) .. 1 (85 years); sex: 0 female .. 1 male; ancestry: parts African, Asian, Caucasian."""

    age: float
    sex: float
    ancestry: tuple[float, float, float]
    shape: FaceShape


def sample_person(rng: np.random.Generator, pool: str) -> Person:
    """Somebody. `pool`: "high" or "moderate", the paper's two pools of footage."""
    if pool not in POOLS:
        raise FadaError(f"There is no pool {pool!r}; choose high or moderate.")
    low, high = [(0.0, 0.18), (0.18, 0.4), (0.4, 0.65), (0.65, 1.0)][rng.choice(4, p=[0.12, 0.43, 0.25, 0.2])]
    age = float(rng.uniform(low, high))
    sex = float(np.clip(rng.choice([0.06, 0.94]) + rng.normal(0, 0.06), 0, 1))
    ancestry = rng.dirichlet([0.3, 0.3, 0.3])
    return Person(age, sex, tuple(float(a) for a in ancestry / ancestry.sum()), sample_shape(rng))
