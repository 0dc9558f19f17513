"""`Person`: everything that is drawn once about somebody, and `sample_person`, which draws it."""

from dataclasses import dataclass

import numpy as np

from ..errors import FadaError
from .head import FaceShape, Head, sample_shape
from .light import sample_camera, sample_light
from .organs import eye_texture, teeth_texture
from .scene import Scene, plain_surface

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


def make_scene(person: Person, rng: np.random.Generator, pool: str, size: int) -> Scene:
    """The person before a camera, in a light and before a background that are drawn for the clip."""
    head = Head(person)
    african, asian, caucasian = person.ancestry
    skin = african * np.array([0.17, 0.085, 0.05]) + asian * np.array([0.52, 0.34, 0.22])
    skin += caucasian * np.array([0.62, 0.40, 0.31])
    iris = (african + asian) * np.array([0.09, 0.045, 0.02]) + caucasian * np.array([0.12, 0.2, 0.26])
    gray = rng.uniform(0.08, 0.5, 3)
    return Scene(
        head=head,
        surface=plain_surface(tuple(skin)),
        eye_texture=eye_texture(tuple(iris), rng),
        teeth_texture=teeth_texture((0.78, 0.73, 0.64)),
        tongue_texture=np.full((2, 2, 3), (176, 92, 92), np.uint8),
        light=sample_light(rng, pool),
        camera=sample_camera(rng, head, pool),
        background=np.broadcast_to(gray, (size, size, 3)).astype(np.float32),
    )
