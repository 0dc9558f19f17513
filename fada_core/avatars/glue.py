"""Helpers for hair attached to the face: projection onto the skin, attached meshes, textures of single hairs."""

from functools import cache

import numpy as np

from .color import with_alpha
from .mesh import Attachment, Material, Mesh, Part
from .scalp import Skull, base, unit
from .strands import WHITE


def project_front(xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Project points (n, 2) of the front view onto the base mesh's skin: base vertices (n, 3) and weights (n, 3)."""
    faces, points = _front_faces()
    a, b, c = (points[faces[:, i]] for i in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (c[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1])
    x, y = xy[:, :1], xy[:, 1:]
    v = ((x - a[:, 0]) * (c[:, 1] - a[:, 1]) - (c[:, 0] - a[:, 0]) * (y - a[:, 1])) / area
    w = ((b[:, 0] - a[:, 0]) * (y - a[:, 1]) - (x - a[:, 0]) * (b[:, 1] - a[:, 1])) / area
    outside = -np.minimum(np.minimum(v, w), 1 - v - w)  # a point just outside of every face gets the nearest one
    depth = a[:, 2] * (1 - v - w) + b[:, 2] * v + c[:, 2] * w
    best = np.argmax(depth - 1e4 * np.maximum(outside - 1e-5, 0), 1)
    rows = np.arange(len(xy))
    weights = np.stack([1 - v[rows, best] - w[rows, best], v[rows, best], w[rows, best]], 1).clip(0, 1)
    return faces[best], (weights / weights.sum(1, keepdims=True)).astype(np.float32)


@cache
def _front_faces() -> tuple[np.ndarray, np.ndarray]:
    static = base()
    points, faces = static["points"], static["faces"]
    middle = points[faces].mean(1)
    flat = unit(np.cross(points[faces[:, 1]] - points[faces[:, 0]], points[faces[:, 2]] - points[faces[:, 0]]))
    keep = (
        (flat[:, 2] > 0.05)
        & (np.abs(middle[:, 0]) < 0.8)
        & (middle[:, 1] > 6)
        & (middle[:, 1] < 8)
        & (middle[:, 2] > 0.8)
    )
    return faces[keep], points


def attach(skull: Skull, points: np.ndarray, anchor: np.ndarray, weight: np.ndarray) -> Attachment:
    """Attach points (n, 3) to the face at the base vertices `anchor` (n, 3) with `weight` (n, 3)."""
    offset = points - np.einsum("nc,ncx->nx", weight, skull.points[anchor])
    return Attachment(anchor.astype(np.int32), weight.astype(np.float32), offset.astype(np.float32))


def glued(
    skull: Skull, name: str, part: Part, points: np.ndarray, anchor: np.ndarray, weight: np.ndarray, faces: np.ndarray,
    uv: np.ndarray, texture: np.ndarray, tangent: np.ndarray, gloss: float = 0.15,
) -> Mesh:  # fmt: skip
    """A mesh of hair whose vertices `points` (n, 3) keep their offset from their anchors.

    `anchor` (n, 3) and `weight` (n, 3) as in `Attachment`; `texture` (H, W, 4) uint8.
    """
    material = Material("hair", texture=texture, gloss=gloss, two_sided=True)
    return Mesh(
        name, part, faces.astype(np.int32), uv.astype(np.float32), material, attach(skull, points, anchor, weight),
        tangent=tangent.astype(np.float32),
    )  # fmt: skip


def grid(columns: int, rows: int) -> np.ndarray:
    """Faces (F, 3) of a grid with vertices in column-major order: vertex = column * rows + row."""
    at = (np.arange(columns - 1)[:, None] * rows + np.arange(rows - 1)).ravel()[:, None]
    return np.concatenate([at + [0, rows, 1], at + [rows, rows + 1, 1]])


def draw(
    shape: tuple[int, int], start: np.ndarray, bend: np.ndarray, end: np.ndarray, thick: np.ndarray, tint: np.ndarray
) -> np.ndarray:
    """A transparent texture (h, w, 4) uint8 with n tapering hairs, Bézier curves from `start` to `end`.

    `start`, `bend` (control point) and `end` (n, 2): x, y in texels. `thick` (n,) texels; `tint` (n, 3) linear.
    """
    h, w = shape
    t = np.linspace(0, 1, 24, dtype=np.float32)[None, :, None]
    path = start[:, None] * (1 - t) ** 2 + 2 * bend[:, None] * t * (1 - t) + end[:, None] * t**2
    cover_by = (thick[:, None] * (1 - 0.75 * t[..., 0] ** 2)).astype(np.float32)
    rgb = np.zeros((h, w, 3), np.float32)
    rgb[:] = tint.mean(0)
    alpha = np.zeros((h, w), np.float32)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            x, y = np.floor(path[..., 0]).astype(int) + dx, np.floor(path[..., 1]).astype(int) + dy
            apart = np.sqrt((x + 0.5 - path[..., 0]) ** 2 + (y + 0.5 - path[..., 1]) ** 2)
            cover = np.clip(cover_by / 2 + 0.6 - apart, 0, 1) * np.minimum(cover_by, 1)
            ok = (x >= 0) & (x < w) & (y >= 0) & (y < h) & (cover > 0)
            np.maximum.at(alpha, (y[ok], x[ok]), cover[ok])
            strong = ok & (cover > 0.35)
            hair = np.broadcast_to(np.arange(len(start))[:, None], x.shape)[strong]
            rgb[y[strong], x[strong]] = tint[hair]
    return with_alpha(rgb, alpha)


def tints(color: np.ndarray, grey: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """Linear colours (count, 3) of single hairs around `color` (3,), a share `grey` 0..1 of them grey."""
    own = color * np.exp(rng.normal(0, 0.2, (count, 1)))
    bleached = np.clip(grey + rng.normal(0, 0.6 * np.sqrt(grey * (1 - grey)), (count, 1)), 0, 1)
    return (own + bleached * (WHITE - own)).astype(np.float32)
