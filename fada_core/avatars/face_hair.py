"""Eyebrows and eyelashes, attached to the base vertices, and the traits of all facial hair."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from . import assets
from .glue import draw, glued, grid, project_front, tints
from .mesh import Mesh, Part
from .scalp import Skull, smooth, unit

# The left brow of the base mesh from its inner to its outer end: x and y of its centre line, half its height, in dm.
BROW = np.array(
    [
        (0.105, 7.462, 0.026), (0.17, 7.482, 0.040), (0.25, 7.496, 0.043), (0.33, 7.514, 0.040), (0.41, 7.522, 0.033),
        (0.48, 7.507, 0.024), (0.545, 7.472, 0.014), (0.575, 7.448, 0.008),
    ],
    np.float32,
)  # fmt: skip
KINDS = ("", "moustache", "handlebar", "goatee", "chin", "short", "full", "long")


@dataclass(frozen=True)
class FaceHairTraits:
    """Brows, lashes and beard. `color` (3,) linear is shared by all; `grey`: share 0..1 of grey hair in the brows.

    `brow_height` in dm raises the brows; `brow_thick` and `lash_length`: 1 is average; `brow_arch` -1..1; `brow_dense`,
    `lash_dark`, `beard_length` and `beard_grey` 0..1; `beard`: one of `KINDS`.
    """

    color: tuple[float, float, float] = (0.04, 0.023, 0.014)
    grey: float = 0.0
    brow_height: float = 0.0
    brow_thick: float = 1.0
    brow_arch: float = 0.0
    brow_dense: float = 0.7
    lash_length: float = 1.0
    lash_dark: float = 0.8
    beard: str = ""
    beard_length: float = 0.4
    beard_grey: float = 0.0


def brows(skull: Skull, traits: FaceHairTraits, rng: np.random.Generator) -> list[Mesh]:
    """Two ribbons of painted hairs, which stand upright at the inner end and lie flat towards the outer end."""
    out = []
    color = np.array(traits.color, np.float32) * 0.8
    columns, rows, h, w = 15, 4, 28, 96
    s = np.linspace(0, 1, columns)
    x, y, half = (np.interp(s, np.linspace(0, 1, len(BROW)), BROW[:, i]) for i in range(3))
    half = half * 1.8 * np.clip(traits.brow_thick, 0.4, 1.8)  # room for hairs beyond the roots
    y = y + traits.brow_height + traits.brow_arch * 0.03 * (np.sin(np.pi * s**1.2) - 0.5)
    for side in (-1, 1):
        across = np.linspace(-1, 1, rows)
        slope = np.gradient(y, x)
        xy = np.stack([x[:, None] - slope[:, None] * half[:, None] * across, y[:, None] + half[:, None] * across], -1)
        xy = xy.reshape(-1, 2) * [side, 1]
        anchor, weight = project_front(xy)
        skin = np.einsum("nc,ncx->nx", weight, skull.points[anchor])
        normal = unit(np.einsum("nc,ncx->nx", weight, skull.normals[anchor]))
        points = skin + normal * 0.013
        uv = np.stack([np.repeat(s, rows), np.tile((across + 1) / 2, columns)], 1)
        tangent = unit(np.repeat(np.gradient(points.reshape(columns, rows, 3), axis=0)[:, :1], rows, 1)).reshape(-1, 3)
        count = int(190 * (0.4 + traits.brow_dense))
        root = rng.random(count) ** 0.9
        fill = rng.uniform(-0.52, 0.52, count) * smooth(root * 9 + 0.35) * smooth((1.06 - root) * 5)
        angle = np.radians(
            np.interp(root, (0, 0.12, 0.4, 0.75, 1), (80, 60, 32, 14, 4)) - fill * 34 + rng.normal(0, 7, count)
        )
        length = np.interp(root, (0, 0.3, 1), (6.5, 9, 7)) * (0.7 + 0.5 * rng.random(count))
        start = np.stack([root * (w - 10) + 2, h / 2 - fill * h / 2], 1)
        reach = np.stack([np.cos(angle), -np.sin(angle)], 1) * length[:, None] * [1.25, 0.85]
        tip = start + reach + np.stack([0.12 * length, 0.18 * length * (fill > 0)], 1)
        fade = (0.25 + 0.75 * smooth(root * 4)) * (0.55 + 0.6 * traits.brow_dense)
        texture = draw(
            (h, w),
            start,
            start + reach * 0.55,
            tip,
            1.3 * fade * (0.7 + 0.6 * rng.random(count)),
            tints(color, traits.grey, count, rng),
        )
        faces = grid(columns, rows)
        out.append(
            glued(
                skull,
                f"brow {side}",
                Part.BROW,
                points,
                anchor,
                weight,
                faces if side > 0 else faces[:, ::-1],
                uv,
                texture,
                tangent * side,
            )
        )
    return out


@cache
def _lash_grid(name: str) -> tuple[np.ndarray, int]:
    """Base vertices of a patch of lashes in grid order, and the number of columns.

    Vertex column * 5 + row; columns run from the inner corner of the eye, rows from the lid outwards.
    """
    patch = assets.load().helpers[name]
    count = len(patch.base)
    near = np.full((count, count), 99)
    quads = np.concatenate([patch.faces[0::2], patch.faces[1::2][:, 2:]], 1)
    for i in range(4):
        near[quads[:, i], quads[:, (i + 1) % 4]] = near[quads[:, (i + 1) % 4], quads[:, i]] = 1
    np.fill_diagonal(near, 0)
    for k in range(count):
        near = np.minimum(near, near[:, k : k + 1] + near[k])
    corners = np.flatnonzero((near == 1).sum(1) == 2)
    first = corners[np.abs(assets.load().vertices[patch.base[corners], 0]).argmin()]
    second = next(c for c in corners if near[first, c] == 4)
    row = (near[first] - near[second] + 4) // 2
    column = near[first] - row
    order = np.empty(count, int)
    order[column * 5 + row] = np.arange(count)
    rows = order.reshape(-1, 5)
    z = assets.load().vertices[patch.base[rows], 2].mean(0)
    if z[0] > z[-1]:
        rows = rows[:, ::-1]
    return patch.base[rows.ravel()], len(rows)


def lashes(skull: Skull, traits: FaceHairTraits, rng: np.random.Generator) -> list[Mesh]:
    """Lashes on the helper geometry, which follows the lids; its outer edge is extended for longer lashes."""
    out = []
    color = np.array(traits.color, np.float32) * (1 - 0.9 * traits.lash_dark)
    for upper, name in ((True, "upper"), (False, "lower")):
        for eye in ("left", "right"):
            grid_base, columns = _lash_grid(f"{eye}_{name}_lashes")
            place = grid_base.reshape(columns, 5)
            stretch = 0.55 * traits.lash_length if upper else 0.35 * traits.lash_length - 0.2
            anchor = np.repeat(place.reshape(-1, 1), 3, 1)
            anchor[4::5, 1] = place[:, 2]
            weight = np.zeros((columns * 5, 3), np.float32)
            weight[:, 0] = 1
            weight[4::5] = [1 + stretch, -stretch, 0]
            points = np.einsum("nc,ncx->nx", weight, skull.points[anchor])
            s = np.repeat(np.linspace(0, 1, columns), 5)
            uv = np.stack([s, np.tile(np.linspace(1, 0, 5), columns)], 1)
            count, h, w = (46 if upper else 24), 26, 80
            root = (np.arange(count) + rng.random(count)) / count
            reach = (h - 7) * (0.62 + 0.38 * rng.random(count)) * (0.55 + 0.45 * np.sin(np.pi * root) ** 0.5)
            start = np.stack([root * (w - 4) + 2, np.full(count, 5.0)], 1)
            spread = (root - 0.35) * 9 + rng.normal(0, 1.2, count)
            end = start + np.stack([spread, reach], 1)
            bend = start + np.stack([0.25 * spread, 0.6 * reach], 1)
            texture = draw((h, w), start, bend, end, np.full(count, 1.6 if upper else 0.9), tints(color, 0, count, rng))
            if upper:  # the dark line along the roots
                texture[4:7, 3 : w - 3, 3] = np.maximum(texture[4:7, 3 : w - 3, 3], 150)
            away = np.gradient(points.reshape(columns, 5, 3), axis=1).reshape(-1, 3)
            out.append(
                glued(
                    skull,
                    f"{eye} {name} lashes",
                    Part.LASH,
                    points,
                    anchor,
                    weight,
                    grid(columns, 5),
                    uv,
                    texture,
                    unit(away),
                    0.1,
                )
            )
    return out
