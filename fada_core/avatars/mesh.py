"""The data that the renderer takes: parts, materials and meshes.

Lengths are in decimetres, as in MakeHuman: x to the person's left, y up, z to the front. Colours of materials are
linear RGB.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Literal

import numpy as np

Triple = tuple[float, float, float]  #: a colour in linear RGB, a point, or a direction


def triple(values: Iterable[float]) -> Triple:
    """Three numbers, of an array for example, as plain floats."""
    first, second, third = (float(value) for value in values)
    return first, second, third


class Part(IntEnum):
    """The part of a person that a pixel shows: values of the renderer's part buffer."""

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
    """Appearance of a surface.

    `color`: linear, multiplies the texture. `texture`: (H, W, 3 or 4) uint8 sRGB with straight alpha; row 0 is v = 1.
    `gloss`: 0 matt .. 1 wet. A `two_sided` surface is drawn and lit from both sides.
    """

    kind: Kind
    color: Triple = (1.0, 1.0, 1.0)
    texture: np.ndarray | None = None
    gloss: float = 0.2
    two_sided: bool = False


@dataclass(frozen=True)
class Attachment:
    """Vertices that follow the face: each is the mean of the base vertices `anchor` (n, 3) with `weight` (n, 3), plus
    `offset` (n, 3), which rotates with the head."""

    anchor: np.ndarray
    weight: np.ndarray
    offset: np.ndarray

    def __len__(self) -> int:
        return len(self.anchor)


@dataclass(frozen=True)
class Mesh:
    """A mesh of n vertices that is worn by a person or grows on it.

    `rest`: positions (n, 3) on the person's own neutral head, or an `Attachment` to the face. `neck` (n,): how far each
    position turns with the skull (1 fully, 0 not at all; None stands for 1). `faces` (F, 3) int32 wind
    counter-clockwise seen from outside; `tangent` (n, 3) is the direction of hair strands. Raises `ValueError` for
    arrays that do not fit.
    """

    name: str
    part: Part
    faces: np.ndarray
    uv: np.ndarray
    material: Material
    rest: np.ndarray | Attachment
    neck: np.ndarray | None = None
    tangent: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.uv)
        for name in ("rest", "neck", "tangent"):
            value = getattr(self, name)
            if value is not None and len(value) != n:
                raise ValueError(f"mesh {self.name!r} has {n} texture coordinates, but {len(value)} rows of {name}")
        if len(self.faces) and int(self.faces.max()) >= n:
            raise ValueError(f"mesh {self.name!r} has a face that names vertex {int(self.faces.max())} of {n}")


@dataclass(frozen=True)
class Overrides:
    """One material for a whole person, for statues.

    `albedo` (S, S, 3) uint8 sRGB in the skin's texture coordinates; `color` (3,) linear for everything else; `metal`: 0
    stone .. 1 bronze; `gloss` 0..1. Eyes are blank.
    """

    albedo: np.ndarray
    color: Triple
    gloss: float
    metal: float

    def apply(self, mesh: Mesh) -> Mesh:
        """The mesh with this material. Of a texture with alpha, the alpha and a weak grey version are kept."""
        texture, old = None, mesh.material.texture
        if old is not None and old.shape[2] == 4:
            gray = old[..., :3].mean(2, keepdims=True)
            gray = np.clip(200 + (gray - gray.mean()) * 0.5, 120, 255)
            texture = np.concatenate([np.repeat(gray, 3, 2).astype(np.uint8), old[..., 3:]], 2)
        material = Material("plain", self.color, texture, self.gloss, mesh.material.two_sided)
        return replace(mesh, material=material)
