"""Clothes and accessories: traits, their random choice, and `dress`, which makes the meshes."""

from dataclasses import dataclass, replace

import numpy as np

from . import accessories, garments, headwear
from .fabric import PATTERNS
from .hair import HairTraits
from .head import Head
from .mesh import Mesh, Triple, triple
from .scalp import skull_of

CLOTHES = ("T-shirt", "shirt", "jacket", "jumper", "roll neck", "dress", "vest")
# Relative frequencies of CLOTHES for women and for men.
SHARES = ((0.26, 0.36), (0.14, 0.24), (0.13, 0.16), (0.18, 0.17), (0.08, 0.04), (0.16, 0.0), (0.05, 0.03))


@dataclass(frozen=True)
class WardrobeTraits:
    """Clothes and accessories of a person; colours are linear RGB.

    `clothes`: one of CLOTHES; `pattern`: one of `fabric.PATTERNS`; `colors` (3, 3): of the cloth, the pattern, and the
    garment under a jacket. `hat`: one of `headwear.KINDS`, with `hat_colors` (2, 3), which are also the scarf's.
    `glasses`: one of `accessories.FRAMES`, with `frame_color` (3,) and `lens_tint` 0..1. `earrings`: "", stud, drop or
    hoop, with `jewel_color` (3,). `scarf`, `mask`: worn or not. `prop`: "", microphone or hand, in front of the lower
    face, with `hand_color` (3,).
    """

    clothes: str
    pattern: str
    colors: tuple[Triple, ...]
    hat: str = ""
    hat_colors: tuple[Triple, ...] = ((0.05, 0.05, 0.06), (0.3, 0.3, 0.3))
    glasses: str = ""
    frame_color: Triple = (0.02, 0.02, 0.02)
    lens_tint: float = 0.0
    earrings: str = ""
    jewel_color: Triple = (0.7, 0.55, 0.25)
    scarf: bool = False
    mask: bool = False
    prop: str = ""
    hand_color: Triple = (0.45, 0.28, 0.2)


def _color(rng: np.random.Generator) -> Triple:
    """Random linear colour of cloth: many are close to grey, few are vivid."""
    value = float(np.exp(rng.uniform(np.log(0.015), np.log(0.75))))
    hue, strength = rng.uniform(0, 2 * np.pi), rng.beta(1.1, 2.2)
    wheel = np.cos(hue - np.array([0, 2.094, 4.189]))
    return triple(np.clip(value * np.exp(1.3 * strength * wheel), 0.008, 0.8))


def sample_wardrobe_traits(
    rng: np.random.Generator, age: float, sex: float, ancestry: Triple, pool: str
) -> WardrobeTraits:
    """Random clothes. `age` 0 (5 years) .. 1 (85), `sex` 0 female .. 1 male, `ancestry`: African, Asian, European.

    Masks, sunglasses and objects in front of the face occur only in the pool "moderate".
    """
    man, moderate = rng.random() < sex, pool == "moderate"
    shares = np.array([s[int(man)] for s in SHARES])
    clothes = str(rng.choice(CLOTHES, p=shares / shares.sum()))
    plain = 0.85 if clothes in ("jacket", "roll neck", "vest") else 0.55
    rest = (1 - plain) / 4
    pattern = str(rng.choice(PATTERNS, p=[plain, rest, rest, rest, rest]))
    beneath = triple(rng.choice([0.75, 0.6, 0.05]) * np.array([1.0, 1.0, rng.uniform(0.95, 1.1)]))
    hat = ""
    if rng.random() < (0.16 if moderate else 0.07):
        hat = str(rng.choice(["cap", "beanie", "brimmed"], p=[0.4, 0.4, 0.2]))
    elif not man and age > 0.1 and rng.random() < 0.1:
        hat = "headscarf"
    if hat == "headscarf" and clothes in ("dress", "vest", "jacket"):
        clothes = "jumper"
    glasses = ""
    if rng.random() < 0.12 + 0.3 * max(0.0, age - 0.1):
        glasses = str(rng.choice(accessories.FRAMES[1:]))
    frame = rng.choice([0.01, 0.02, 0.05, 0.35, 0.5]) * np.exp(rng.normal(0, 0.25, 3))
    sun = moderate and rng.random() < 0.12
    melanin = ancestry[0] * np.array([0.15, 0.08, 0.05]) + ancestry[1] * np.array([0.45, 0.29, 0.2])
    skin = melanin + ancestry[2] * np.array([0.52, 0.33, 0.26])
    return WardrobeTraits(
        clothes,
        pattern,
        (_color(rng), _color(rng), beneath),
        hat=hat,
        hat_colors=(_color(rng), _color(rng)),
        glasses=glasses,
        frame_color=triple(frame.clip(0, 0.8)),
        lens_tint=float(rng.uniform(0.7, 0.95)) if sun else float(rng.uniform(0, 0.08)),
        earrings=str(rng.choice(["stud", "drop", "hoop"]))
        if rng.random() < (0.04 if man or age < 0.1 else 0.4)
        else "",
        jewel_color=(0.75, 0.74, 0.72) if rng.random() < 0.5 else (0.75, 0.52, 0.2),
        scarf=bool(rng.random() < 0.05) and clothes != "roll neck",
        mask=bool(moderate and rng.random() < 0.03),
        prop=str(rng.choice(["microphone", "hand"])) if moderate and rng.random() < 0.08 else "",
        hand_color=triple(skin),
    )


def fit(hair: HairTraits, worn: WardrobeTraits) -> HairTraits:
    """Adapt hair to the hat: none under a headscarf, which also hides beards; flat and not tied on top under a hat."""
    if worn.hat == "headscarf":
        return replace(hair, style="bald", face=replace(hair.face, beard=""))
    edge = headwear.RIMS.get(worn.hat)
    if edge is None:
        return hair
    style = {"afro": "cropped", "curly": "short", "quiff": "short", "swept": "short", "bun": "ponytail"}.get(
        hair.style, hair.style
    )
    part = 1.0 if style == "ponytail" else hair.part  # the knot is low, below the hat
    return replace(hair, style=style, part=part, fringe=0.0, pressed=(edge.front, edge.back))


def dress(head: Head, traits: WardrobeTraits, rng: np.random.Generator) -> list[Mesh]:
    """Meshes of all clothes and accessories, fitted to the head."""
    skull = skull_of(head)
    colors, hat_colors = np.array(traits.colors, np.float32), np.array(traits.hat_colors, np.float32)
    meshes = garments.clothes(skull, traits.clothes, colors, traits.pattern, rng)
    meshes += headwear.wear(skull, traits.hat, hat_colors, rng)
    if traits.glasses:
        meshes += accessories.glasses(skull, traits.glasses, np.array(traits.frame_color), traits.lens_tint, rng)
    if traits.earrings and traits.hat != "headscarf":
        meshes += accessories.earrings(skull, traits.earrings, np.array(traits.jewel_color), rng)
    if traits.scarf and traits.hat != "headscarf":
        meshes += accessories.scarf(skull, hat_colors, rng)
    if traits.mask:
        meshes += accessories.face_mask(skull, np.array([0.45, 0.65, 0.75]) * rng.uniform(0.6, 1.1), rng)
    if traits.prop:
        meshes += accessories.prop(skull, traits.prop, np.array(traits.hand_color), rng)
    return meshes
