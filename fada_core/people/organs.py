"""Eyes, teeth, tongue and lashes: geometry that the base mesh only hints at with its helpers.

Each organ is a `Mesh` of a head at rest that knows how to follow a pose: eyes turn with the gaze, a row of teeth is
tied to the helper teeth and so moves with the jaw, tongue and lashes are helper geometry.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from . import assets
from .head import Head, Posed
from .mesh import Material, Mesh, Part

IRIS = 23.5  # half angle of the iris seen from the middle of the eye, in degrees; 90 degrees are the texture's edge
EYE_RINGS = (0.0, 4, 8, 12, 16, 19, 21.5, 23.5, 26, 30, 36, 44, 54, 66, 80, 96)
EYE_SEGMENTS = 24
CORNEA = 1.5  # how much faster the cornea's surface turns than the eye's

# Widths of the crowns from the middle, in dm: central and lateral incisor, canine, two premolars, two molars.
UPPER_WIDTHS = (0.085, 0.067, 0.075, 0.069, 0.067, 0.095, 0.09)
LOWER_WIDTHS = (0.055, 0.059, 0.068, 0.07, 0.07, 0.1, 0.09)
GUM_V = 0.62  # of the teeth's texture: gum above, crown below
TOOTH_COLUMNS = np.array([0.0, 0.1, 0.28, 0.5, 0.72, 0.9, 1.0])


@dataclass(frozen=True)
class Organ:
    """`mesh` in its resting place. `base` (k,): base vertices it follows; `weights` (n, k): how (None: one by one).
    An eye turns about its `centre` (3,) instead, and has normals (n, 3) of its own."""

    mesh: Mesh
    base: np.ndarray
    weights: np.ndarray | None = None
    normals: np.ndarray | None = None
    centre: np.ndarray | None = None

    def place(self, posed: Posed) -> tuple[np.ndarray, np.ndarray | None]:
        """Positions (n, 3) in this frame, and normals (n, 3) where they are known."""
        if self.normals is not None:
            return self._look(posed)
        points = posed.vertices[self.base]
        return (points if self.weights is None else self.weights @ points), None

    def _look(self, posed: Posed) -> tuple[np.ndarray, np.ndarray]:
        (cy, sy), (cp, sp) = ((np.cos(a), np.sin(a)) for a in posed.gaze)
        look = np.array([[cy, -sy * sp, sy * cp], [0, cp, sp], [-sy, -cy * sp, cy * cp]], np.float32)
        turn = posed.turn @ look
        return (self.mesh.rest - self.centre) @ turn.T + posed.rotate(self.centre[None]), self.normals @ turn.T


@cache
def _eye_shape() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Unit eye that looks along z: points (n, 3), normals (n, 3), uv (n, 2), faces (F, 3)."""
    theta = np.radians(EYE_RINGS)[:, None]
    phi = np.linspace(0, 2 * np.pi, EYE_SEGMENTS, endpoint=False)[None]
    points = np.stack(np.broadcast_arrays(np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)), -1)
    limbus = np.radians(IRIS)
    inside = np.clip((limbus * 1.12 - theta) / (limbus * 0.24), 0, 1)
    steep = theta * (1 + (CORNEA - 1) * inside * inside * (3 - 2 * inside))
    normal = np.stack(np.broadcast_arrays(np.sin(steep) * np.cos(phi), np.sin(steep) * np.sin(phi), np.cos(steep)), -1)
    radius = theta / np.pi
    uv = 0.5 + np.stack(np.broadcast_arrays(radius * np.cos(phi), radius * np.sin(phi)), -1)
    rows, n = len(EYE_RINGS), EYE_SEGMENTS
    faces = []
    for r in range(rows - 1):
        for s in range(n):
            a, b, c, d = r * n + s, r * n + (s + 1) % n, (r + 1) * n + s, (r + 1) * n + (s + 1) % n
            faces += [(a, c, d)] + ([(a, d, b)] if r else [])
    flat = [x.reshape(-1, x.shape[-1]).astype(np.float32) for x in (points, normal, uv)]
    return *flat, np.array(faces, np.int32)


def eyes(head: Head, texture: np.ndarray) -> list[Organ]:
    """Both eyes. `texture` (H, H, 3) uint8: seen along the gaze, 90 degrees from it at the edge."""
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
        out.append(Organ(mesh, base, normals=normal, centre=centre))
    return out


@cache
def _teeth_shape(upper: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One row of teeth of the base head: points (n, 3), uv (n, 2), faces (F, 3)."""
    widths = np.array(UPPER_WIDTHS if upper else LOWER_WIDTHS)
    half, front, deep, back, edge = (0.312, 1.49, 0.55, 0.94, 6.572) if upper else (0.3, 1.456, 0.535, 0.92, 6.588)
    angle = np.linspace(0, np.pi / 2, 400)
    arch = np.stack([half * np.sin(angle) ** 0.92, back + (front - back) * np.cos(angle)], 1)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(arch, axis=0), axis=1))])
    grid, u = [], []
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
            (0.205, -0.02, 1.0),
            (0.115, 0.012, 0.72),
            (0.086 + scallop, bulge * 0.5, GUM_V),
            (0.055, bulge, 0.45),
            (0.016 + corner * 0.6, bulge * 0.8, 0.2),
            (corner, bulge * 0.35 - 0.004, 0.1),
            (corner + 0.004, -0.028, 0.03),
            (0.1, -0.06, 0.0),
        )
        scale = 1.0 if upper else 0.86
        column = []
        for height, outward, v in rows:
            o = np.broadcast_to(outward, s.shape)
            h = np.broadcast_to(height, s.shape)
            column.append(np.stack([x + out[:, 0] * o, y + sign * h * scale, z + out[:, 1] * o, np.full_like(s, v)], 1))
        grid.append(np.stack(column, 1))
        u.append(0.5 + 0.5 * s * side / total)
    grid, u = np.concatenate(grid), np.concatenate(u)
    columns, rows = grid.shape[:2]
    uv = np.stack([np.repeat(u[:, None], rows, 1), grid[..., 3]], -1).reshape(-1, 2)
    a = np.arange(columns - 1)[:, None] * rows + np.arange(rows - 1)[None]
    quads = np.stack([a, a + 1, a + rows + 1, a + rows], -1).reshape(-1, 4)
    faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    if not upper:
        faces = faces[:, ::-1]
    return grid[..., :3].reshape(-1, 3).astype(np.float32), uv.astype(np.float32), np.ascontiguousarray(faces, np.int32)


def teeth(head: Head, texture: np.ndarray) -> list[Organ]:
    """Both rows, tied to the helper teeth by the affine map that carries those of the base head to a pose.

    `texture` (H, W, 3) uint8: u along the arch from the person's right to the left, v > GUM_V is gum.
    """
    data, out = assets.load(), []
    for upper, name in ((True, "upper_teeth"), (False, "lower_teeth")):
        points, uv, faces = _teeth_shape(upper)
        base = np.unique(data.helpers[name].base)
        source = np.concatenate([data.vertices[base], np.ones((len(base), 1))], 1)
        weights = (np.concatenate([points, np.ones((len(points), 1))], 1) @ np.linalg.pinv(source)).astype(np.float32)
        material = Material("teeth", texture=texture, gloss=0.7)
        mesh = Mesh(name.replace("_", " "), Part.TEETH, faces, uv, material, rest=weights @ head.neutral[base])
        out.append(Organ(mesh, base, weights))
    return out


def _helper(head: Head, name: str, part: Part, material: Material) -> Organ:
    patch = assets.load().helpers[name]
    mesh = Mesh(name.replace("_", " "), part, patch.faces, patch.uv, material, rest=head.neutral[patch.base])
    return Organ(mesh, patch.base)


def tongue(head: Head, texture: np.ndarray) -> Organ:
    """The tongue; `texture` (H, W, 3) uint8."""
    return _helper(head, "tongue", Part.TONGUE, Material("tongue", texture=texture, gloss=0.6))


def teeth_texture(shade: tuple[float, float, float], size: int = 512) -> np.ndarray:
    """(size / 8, size, 3) uint8: crowns of a linear colour `shade`, darker between the teeth, and pink gum."""
    height = size // 8
    u = (np.arange(size) + 0.5) / size
    v = 1 - (np.arange(height) + 0.5) / height
    starts = np.concatenate([[0], np.cumsum(UPPER_WIDTHS)]) / np.sum(UPPER_WIDTHS)
    place = np.abs(2 * u - 1)
    gap = np.abs(place[:, None] - starts[None]).min(1)
    line = np.exp(-((gap / 0.006) ** 2))
    crown = np.array(shade)[None, None] * (1 - 0.55 * line[None, :, None])
    crown = crown * (1 - 0.1 * place[None, :, None] ** 2) * (0.9 + 0.1 * (1 - v[:, None, None] / GUM_V))
    gum = np.array([0.55, 0.2, 0.19])[None, None] * (1 - 0.25 * line[None, :, None])
    mix = np.clip((v - GUM_V) / 0.04, 0, 1)[:, None, None]
    return encode(crown * (1 - mix) + gum * mix)


def eye_texture(iris: tuple[float, float, float], rng: np.random.Generator, size: int = 192) -> np.ndarray:
    """(size, size, 3) uint8 of an eye: `iris` is its linear colour."""
    y, x = np.mgrid[:size, :size]
    x, y = (x + 0.5) / size * 2 - 1, 1 - (y + 0.5) / size * 2
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    edge = IRIS / 90
    white = np.array([0.80, 0.77, 0.74]) * (1 - 0.25 * np.clip((radius - edge) / 0.6, 0, 1)[..., None] * [0.3, 1, 1])
    spokes = sum(rng.normal() * np.cos(k * angle + rng.uniform(0, 6.3)) for k in rng.integers(12, 60, 14)) / 5
    inner = np.clip(radius / edge, 0, 1)
    tone = 0.75 + 0.35 * spokes * (inner > 0.3) + 0.35 * np.exp(-(((inner - 0.55) / 0.18) ** 2))
    ring = 1 - 0.75 * np.clip((inner - 0.8) / 0.2, 0, 1) ** 2
    colour = np.array(iris) * (tone * ring).clip(0.1)[..., None]
    pupil = np.clip((inner - rng.uniform(0.3, 0.42)) / 0.05, 0, 1)[..., None]
    colour = colour * pupil + 0.006 * (1 - pupil)
    mix = np.clip((radius - edge + 0.012) / 0.024, 0, 1)[..., None]
    return encode(colour * (1 - mix) + white * mix)


def encode(linear: np.ndarray) -> np.ndarray:
    """Linear 0..1 to uint8 sRGB."""
    x = np.clip(linear, 0, 1)
    return np.round(255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)).astype(np.uint8)
