"""What every maker of a piece of a person hands to the renderer: parts, materials and meshes.

Units are MakeHuman's decimetres: x to the person's left, y up, z to the front. Colours of materials are linear RGB.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np


class Part(IntEnum):
    """What a pixel shows; the values of the renderer's id buffer. 0 is the background."""

    BACKGROUND = 0
    SKIN = 1
    LIPS = 2
    MOUTH = 3
    TEETH = 4
    TONGUE = 5
    EYES = 6
    HAIR = 7
    BROW = 8
    LASH = 9
    BEARD = 10
    CLOTHES = 11
    GLASSES = 12
    HAT = 13
    EARRING = 14
    SCARF = 15
    MASK = 16
    PROP = 17


Kind = Literal["skin", "eye", "teeth", "tongue", "hair", "cloth", "plain", "glass"]


@dataclass(frozen=True)
class Material:
    """How a surface looks.

    `color`: linear, multiplies the texture. `texture`: (H, W, 3 or 4) uint8 sRGB with a straight alpha; row 0 is v = 1.
    `gloss`: 0 matt .. 1 wet. A `two_sided` surface is lit from whichever side is seen.
    """

    kind: Kind
    color: tuple[float, float, float] = (1.0, 1.0, 1.0)
    texture: np.ndarray | None = None
    gloss: float = 0.2
    two_sided: bool = False


@dataclass(frozen=True)
class Mesh:
    """A piece of one person beside the base head. It moves in one of two ways.

    Either `rest` (n, 3) are its positions on the person's own neutral head, and `neck` (n,) says how far each turns
    with the skull (1 rigid with it, 0 with the chest; None stands for 1). Or it is glued to the face: a vertex is
    `weight` (n, 3) times the base vertices `anchor` (n, 3), plus `offset` (n, 3), which turns with the head.
    `faces` (F, 3) int32 wind counter-clockwise seen from outside. `tangent` (n, 3) is the direction of hair strands.
    """

    name: str
    part: Part
    faces: np.ndarray
    uv: np.ndarray
    material: Material
    rest: np.ndarray | None = None
    neck: np.ndarray | None = None
    anchor: np.ndarray | None = None
    weight: np.ndarray | None = None
    offset: np.ndarray | None = None
    tangent: np.ndarray | None = None

    def __post_init__(self) -> None:
        if (self.rest is None) == (self.anchor is None):
            raise ValueError(f"mesh {self.name!r} needs either rest positions or anchors")
        n = len(self.uv)
        for name in ("rest", "neck", "anchor", "weight", "offset", "tangent"):
            value = getattr(self, name)
            if value is not None and len(value) != n:
                raise ValueError(f"mesh {self.name!r} has {n} texture coordinates, but {len(value)} rows of {name}")
        if self.anchor is not None and (self.weight is None or self.offset is None):
            raise ValueError(f"mesh {self.name!r} has anchors without weights or offsets")
        if len(self.faces) and int(self.faces.max()) >= n:
            raise ValueError(f"mesh {self.name!r} has a face that names vertex {int(self.faces.max())} of {n}")
