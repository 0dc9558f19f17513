"""Eyes, teeth and tongue: geometry that replaces or uses the coarse helpers of the base mesh.

Each organ is a `Mesh` of a head at rest and follows its pose: eyes turn with the gaze, rows of teeth follow the helper
teeth and so move with the jaw, and the tongue is helper geometry.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from . import assets
from .eyes import IRIS, eye_uv
from .head import Head, Posed
from .mesh import Material, Mesh, Part
from .mouth_texture import LOWER, UPPER

EYE_RINGS = (0.0, 4, 8, 12, 16, 19, 21, 22.5, 25, 29, 35, 44, 54, 66, 80, 96)  # degrees from the axis
EYE_SEGMENTS = 24
CORNEA = 1.5  # curvature of the cornea relative to the eyeball

TOOTH_COLUMNS = np.array([0.0, 0.1, 0.28, 0.5, 0.72, 0.9, 1.0])


@dataclass(frozen=True)
class Organ:
    """An organ: its `mesh` at rest, and the base vertices `base` (k,) that it follows with `weights` (n, k).

    Without `weights`, vertices follow one base vertex each (n = k).
    """

    mesh: Mesh
    base: np.ndarray
    weights: np.ndarray | None = None

    def place(self, posed: Posed) -> tuple[np.ndarray, None]:
        """Positions (n, 3) in this frame, without normals."""
        points = posed.vertices[self.base]
        return (points if self.weights is None else self.weights @ points), None


@dataclass(frozen=True)
class Eye:
    """An eye: its `mesh` at rest, and the `offsets` (n, 3) of its vertices from its `centre` (3,) and its `normals`
    (n, 3), which turn with the gaze."""

    mesh: Mesh
    offsets: np.ndarray
    centre: np.ndarray
    normals: np.ndarray

    def place(self, posed: Posed) -> tuple[np.ndarray, np.ndarray]:
        """Positions and normals (n, 3) in this frame."""
        (cy, sy), (cp, sp) = ((np.cos(a), np.sin(a)) for a in posed.gaze)
        look = np.array([[cy, -sy * sp, sy * cp], [0, cp, sp], [-sy, -cy * sp, cy * cp]], np.float32)
        turn = posed.turn @ look
        return self.offsets @ turn.T + posed.rotate(self.centre[None]), self.normals @ turn.T


@cache
def _eye_shape() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """An eye of radius 1 that looks along z: points (n, 3), normals (n, 3), uv (n, 2), faces (F, 3)."""
    theta = np.radians(EYE_RINGS)[:, None]
    phi = np.linspace(0, 2 * np.pi, EYE_SEGMENTS, endpoint=False)[None]
    points = np.stack(np.broadcast_arrays(np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)), -1)
    inside = np.clip((IRIS * 1.12 - theta) / (IRIS * 0.24), 0, 1)
    steep = theta * (1 + (CORNEA - 1) * inside * inside * (3 - 2 * inside))
    normal = np.stack(np.broadcast_arrays(np.sin(steep) * np.cos(phi), np.sin(steep) * np.sin(phi), np.cos(steep)), -1)
    rows, n = len(EYE_RINGS), EYE_SEGMENTS
    faces = []
    for r in range(rows - 1):
        for s in range(n):
            a, b, c, d = r * n + s, r * n + (s + 1) % n, (r + 1) * n + s, (r + 1) * n + (s + 1) % n
            faces += [(a, c, d)] + ([(a, d, b)] if r else [])
    points, normal = (x.reshape(-1, 3).astype(np.float32) for x in (points, normal))
    return points, normal, eye_uv(points), np.array(faces, np.int32)


def eyes(head: Head, texture: np.ndarray) -> list[Eye]:
    """Both eyes, with a texture of `eyes.eye_texture`. Each is a sphere fitted to the helper eye."""
    points, normal, uv, faces = _eye_shape()
    out = []
    for side in ("left", "right"):
        base = np.unique(assets.load().helpers[side + "_eye"].base)
        ball = head.neutral[base]
        system = np.concatenate([2 * ball, np.ones((len(ball), 1))], 1)
        solution = np.linalg.lstsq(system, (ball**2).sum(1), rcond=None)[0]
        centre = solution[:3].astype(np.float32)
        radius = np.float32(np.sqrt(solution[3] + centre @ centre))
        rest = points * radius + centre
        mesh = Mesh(f"{side} eye", Part.EYES, faces, uv, Material("eye", texture=texture, gloss=1.0), rest=rest)
        out.append(Eye(mesh, rest - centre, centre, normal))
    return out


@cache
def _teeth_shape(upper: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A row of teeth of the base head: points (n, 3), uv (n, 2), faces (F, 3)."""
    widths = np.array(UPPER if upper else LOWER) / 100
    half, front, deep, back, edge = (0.312, 1.49, 0.55, 0.94, 6.572) if upper else (0.3, 1.456, 0.535, 0.92, 6.588)
    angle = np.linspace(0, np.pi / 2, 400)
    arch = np.stack([half * np.sin(angle) ** 0.92, back + (front - back) * np.cos(angle)], 1)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(arch, axis=0), axis=1))])
    pieces, along = [], []
    starts = np.concatenate([[0], np.cumsum(widths)])
    total = starts[-1]
    teeth = [(-1, i) for i in range(len(widths) - 1, -1, -1)] + [(1, i) for i in range(len(widths))]
    for side, i in teeth:
        t = TOOTH_COLUMNS
        s = starts[i] + widths[i] * t
        if side < 0:
            s = s[::-1]
        x, z = np.interp(s, length, arch[:, 0]) * side, np.interp(s, length, arch[:, 1])
        slope_x = np.interp(s + 1e-3, length, arch[:, 0]) - np.interp(s - 1e-3, length, arch[:, 0])
        slope_z = np.interp(s + 1e-3, length, arch[:, 1]) - np.interp(s - 1e-3, length, arch[:, 1])
        out = np.stack([-slope_z * side, slope_x], 1)
        out /= np.linalg.norm(out, axis=1, keepdims=True)
        w = 2 * t - 1
        bulge = np.where(np.abs(w) > 0.99, -0.008, 0.012 * (1 - w**4))
        corner = np.abs(w) ** 4 * (0.008 if i == 0 else 0.012)
        lift = {0: 0.0, 1: 0.010, 2: -0.006}.get(i, 0.012)
        if i == 2:
            corner = np.abs(w) * 0.018
        if i > 2:
            corner = np.where(np.abs(np.abs(w) - 0.45) < 0.2, 0.0, 0.012)
        rise = lift + 0.16 * (front - z) * (1 if upper else 1.15)
        scallop = 0.014 * (1 - w**2)
        sign = 1 if upper else -1
        y = edge + (rise if upper else 0.16 * (front - z) * 1.15 - lift)
        rows = (  # height above the biting edge, outward, v
            (0.205, -0.02, 0.98),
            (0.115, 0.012, 0.74),
            (0.086 + scallop, bulge * 0.5, 0.6),
            (0.055, bulge, 0.4),
            (0.016 + corner * 0.6, bulge * 0.8, 0.16),
            (corner, bulge * 0.35 - 0.004, 0.09),
            (corner + 0.004, -0.028, 0.08),
            (0.1, -0.06, 0.08),
        )
        scale = 1.0 if upper else 0.86
        column = []
        for height, outward, v in rows:
            o = np.broadcast_to(outward, s.shape)
            h = np.broadcast_to(height, s.shape)
            column.append(np.stack([x + out[:, 0] * o, y + sign * h * scale, z + out[:, 1] * o, np.full_like(s, v)], 1))
        pieces.append(np.stack(column, 1))
        along.append(0.5 + 0.5 * s * side / total)
    grid = np.concatenate(pieces)
    columns, count = grid.shape[:2]
    down = grid[..., 3] if upper else 1 - grid[..., 3]
    uv = np.stack([np.repeat(np.concatenate(along)[:, None], count, 1), down], -1).reshape(-1, 2)
    a = np.arange(columns - 1)[:, None] * count + np.arange(count - 1)[None]
    quads = np.stack([a, a + 1, a + count + 1, a + count], -1).reshape(-1, 4)
    faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    if not upper:
        faces = faces[:, ::-1]
    return grid[..., :3].reshape(-1, 3).astype(np.float32), uv.astype(np.float32), np.ascontiguousarray(faces, np.int32)


def teeth(head: Head, textures: tuple[np.ndarray, np.ndarray]) -> list[Organ]:
    """Both rows of teeth. They follow the affine map that takes the helper teeth of the base head to those of a pose.

    `textures`: of the upper and the lower row, from `mouth_texture.teeth_texture`.
    """
    data, out = assets.load(), []
    for upper, name, texture in ((True, "upper_teeth", textures[0]), (False, "lower_teeth", textures[1])):
        points, uv, faces = _teeth_shape(upper)
        base = np.unique(data.helpers[name].base)
        source = np.concatenate([data.vertices[base], np.ones((len(base), 1))], 1)
        weights = (np.concatenate([points, np.ones((len(points), 1))], 1) @ np.linalg.pinv(source)).astype(np.float32)
        material = Material("teeth", texture=texture, gloss=0.7)
        mesh = Mesh(name.replace("_", " "), Part.TEETH, faces, uv, material, rest=weights @ head.neutral[base])
        out.append(Organ(mesh, base, weights))
    return out


def tongue(head: Head, texture: np.ndarray) -> Organ:
    """The tongue, with a texture of `mouth_texture.tongue_texture`."""
    patch = assets.load().helpers["tongue"]
    material = Material("tongue", texture=texture, gloss=0.6)
    return Organ(Mesh("tongue", Part.TONGUE, patch.faces, patch.uv, material, head.neutral[patch.base]), patch.base)
