"""`Person`, all traits of one person; `sample_person`, which draws them at random; and `make_scene`."""

from dataclasses import dataclass, replace

import numpy as np

from .articulation import Habits, sample_habits
from .color import to_linear
from .eyes import EyeTraits, eye_texture, sample_eye_traits
from .hair import HairTraits, grow
from .hair_traits import sample_hair_traits
from .head import Body, Head, sample_shape
from .light import sample_camera, sample_light
from .mesh import triple
from .mouth_texture import MouthTraits, sample_mouth_traits, teeth_texture, tongue_texture
from .scene import Scene
from .scenery import background
from .skin import SkinTraits, paint, sample_skin_traits, with_hair
from .statue import material
from .styles import STATUES, STYLES
from .wardrobe import WardrobeTraits, dress, fit, sample_wardrobe_traits


@dataclass(frozen=True)
class Person(Body):
    """All traits of a person."""

    skin: SkinTraits
    eyes: EyeTraits
    mouth: MouthTraits
    hair: HairTraits
    wardrobe: WardrobeTraits
    habits: Habits


def sample_person(rng: np.random.Generator, pool: str) -> Person:
    """A random person. `pool`: "high" or "moderate", the paper's two pools."""
    low, high = [(0.0, 0.18), (0.18, 0.4), (0.4, 0.65), (0.65, 1.0)][rng.choice(4, p=[0.12, 0.43, 0.25, 0.2])]
    age = float(rng.uniform(low, high))
    sex = float(np.clip(rng.choice([0.06, 0.94]) + rng.normal(0, 0.06), 0, 1))
    shares = rng.dirichlet([0.3, 0.3, 0.3])
    ancestry = triple(shares / shares.sum())
    shape = sample_shape(rng)
    skin = sample_skin_traits(rng, age, sex, shares, pool)
    eyes = sample_eye_traits(rng, age, shares, pool)
    mouth = sample_mouth_traits(rng, age, skin.melanin, pool)
    wardrobe = sample_wardrobe_traits(rng, age, sex, ancestry, pool)
    hair = fit(sample_hair_traits(rng, age, sex, ancestry, pool), wardrobe)
    skin = with_hair(skin, hair, sex, rng)
    return Person(age, sex, ancestry, shape, skin, eyes, mouth, hair, wardrobe, sample_habits(rng))


def make_scene(
    person: Person, rng: np.random.Generator, pool: str, size: int, style: str = STYLES[0], texture: int = 512
) -> Scene:
    """A scene with the person and a random camera, light and background.

    `size`: side of the picture in pixels. `style`: one of `styles.STYLES`; a statue gets one material for the whole
    person. `texture`: side of the skin's maps in pixels; small pictures need less.
    """
    head = Head(person)
    surface = paint(person.skin, person.age, rng, texture)
    skin = np.median(surface.albedo.reshape(-1, 3), 0) / 255
    wardrobe = replace(person.wardrobe, hand_color=triple(to_linear(skin)))
    return Scene(
        head=head,
        surface=surface,
        eye_texture=eye_texture(person.eyes, rng),
        teeth_textures=(teeth_texture(person.mouth, True, rng), teeth_texture(person.mouth, False, rng)),
        tongue_texture=tongue_texture(person.mouth, rng),
        light=sample_light(rng, pool),
        camera=sample_camera(rng, head, pool),
        meshes=dress(head, wardrobe, rng) + grow(head, person.hair, rng),
        background=background(rng, size),
        overrides=material(style, rng) if style in STATUES else None,
    )
