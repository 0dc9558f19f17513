"""Clothes of the upper body: the skin of chest and shoulders, lifted and cut along a neckline, with bands and collars.

A neckline is a function of `spread`, which grows from 0.1 or so on the neck to 1.5 on the upper chest, by the azimuth
around the neck; both are of the base mesh.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from . import assets
from .fabric import weave
from .mesh import Material, Mesh, Part
from .scalp import Skull, base, smooth, unit
from .shapes import Shape, sheet

AROUND = 72  # points of a neckline
NECKLINES = {
    # spread at azimuths 0, 20, 45, 90, 180
    "crew": (0.78, 0.74, 0.64, 0.52, 0.46),
    "scoop": (1.3, 1.22, 0.95, 0.62, 0.55),
    "vee": (1.55, 1.12, 0.82, 0.55, 0.46),
    "boat": (0.85, 0.85, 0.9, 1.02, 0.6),
    "collar": (0.62, 0.56, 0.5, 0.42, 0.38),
    "open collar": (1.1, 0.66, 0.54, 0.42, 0.38),
    "lapels": (2.1, 1.45, 0.86, 0.52, 0.42),
    "roll": (0.5, 0.5, 0.46, 0.4, 0.36),
}


@cache
def spread() -> tuple[np.ndarray, np.ndarray]:
    """Of the base vertices: spread, and degrees of azimuth about the neck, each (V,)."""
    points = base()["points"]
    x, z = points[:, 0], points[:, 2] - 0.25
    return np.sqrt(x * x + z * z) + 5.9 - points[:, 1], np.degrees(np.arctan2(x, z))


def line(name: str, azimuth: np.ndarray) -> np.ndarray:
    """Spread of a neckline."""
    return np.interp(np.abs(azimuth), (0, 20, 45, 90, 180), NECKLINES[name])


@dataclass(frozen=True)
class Surface:
    """Points on the skin of base and person (n, 3), the person's normals (n, 3), turn with the neck (n,)."""

    plain: np.ndarray
    own: np.ndarray
    normal: np.ndarray
    neck: np.ndarray
    field: np.ndarray


def clip(skull: Skull, field: np.ndarray) -> tuple[Surface, np.ndarray, np.ndarray]:
    """The part of the body where `field` (V,) is positive: surface, faces (F, 3), and which vertices are on its rim."""
    static = base()
    y, z = static["points"][:, 1], static["points"][:, 2]
    torso = (y < 6.4) & ((z < 0.86) | (y < 5.9))  # without jaw and chin
    faces = static["faces"]
    faces = faces[torso[faces].all(1) & (field[faces] > 0).any(1)]
    sign = field[faces] > 0
    whole = sign.all(1)
    pairs, out = {}, [faces[whole]]
    count = len(field)

    def between(a: int, b: int) -> int:
        return pairs.setdefault((min(a, b), max(a, b)), count + len(pairs))

    cut = []
    for face, inside in zip(faces[~whole].tolist(), sign[~whole].tolist(), strict=True):
        ring = []
        for i in range(3):
            a, b = i, (i + 1) % 3
            if inside[a]:
                ring.append(face[a])
            if inside[a] != inside[b]:
                ring.append(between(face[a], face[b]))
        cut += [[ring[0], ring[i], ring[i + 1]] for i in range(1, len(ring) - 1)]
    out.append(np.array(cut, int).reshape(-1, 3))
    ends = np.array(list(pairs), int).reshape(-1, 2)
    t = (field[ends[:, 0]] / (field[ends[:, 0]] - field[ends[:, 1]]))[:, None]

    def extend(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values, values[ends[:, 0]] * (1 - t) + values[ends[:, 1]] * t])

    used, new = np.unique(np.concatenate(out), return_inverse=True)
    neck = assets.load().neck[:, None]
    surface = Surface(
        extend(static["points"])[used],
        extend(skull.points)[used],
        unit(extend(skull.normals))[used],
        extend(neck)[used, 0],
        np.concatenate([field, np.zeros(len(ends))])[used],
    )
    return surface, new.reshape(-1, 3).astype(np.int32), used >= count


def contour(skull: Skull, name: str, shift: np.ndarray | float = 0.0) -> Surface:
    """A neckline as AROUND points from azimuth 0 to 360; `shift` (AROUND,) or one number is added to its spread."""
    value, azimuth = spread()
    around = np.arange(AROUND) * (360 / AROUND)
    around = np.where(around > 180, around - 360, around)
    shifts = np.broadcast_to(np.asarray(shift, float), AROUND)
    order = np.argsort(around)
    add = np.interp(azimuth, around[order], shifts[order], period=360)
    surface, _, rim = clip(skull, value - line(name, azimuth) - add)
    x, z = surface.plain[rim, 0], surface.plain[rim, 2] - 0.25
    near = np.abs(np.hypot(x, z)) < 2.2
    at = np.degrees(np.arctan2(x, z))[near]
    order = np.argsort(at)

    def sample(values: np.ndarray) -> np.ndarray:
        values = values[rim][near][order]
        return np.stack([np.interp(around, at[order], v, period=360) for v in values.reshape(len(at), -1).T], 1)

    own, normal = sample(surface.own), unit(sample(surface.normal))
    for _ in range(2):
        own = 0.25 * np.roll(own, 1, 0) + 0.5 * own + 0.25 * np.roll(own, -1, 0)
        normal = unit(0.25 * np.roll(normal, 1, 0) + 0.5 * normal + 0.25 * np.roll(normal, -1, 0))
    return Surface(sample(surface.plain), own, normal, sample(surface.neck)[:, 0], np.zeros(AROUND))


def folds(plain: np.ndarray, depth: float, rng: np.random.Generator) -> np.ndarray:
    """(n,): heights of soft folds that run from the shoulders down."""
    out = np.zeros(len(plain))
    for _ in range(7):
        direction = np.array([rng.normal(0, 1.0), rng.normal(0, 0.35), rng.normal(0, 0.5)]) * rng.uniform(1.5, 4.5)
        out += np.sin(plain @ direction + 6.28 * rng.random())
    return depth * out / 3


def cloth(name: str, part: Part, shape: Shape, neck: np.ndarray, texture: np.ndarray, two_sided: bool = True) -> Mesh:
    """A mesh of cloth."""
    material = Material("cloth", texture=texture, gloss=0.12, two_sided=two_sided)
    return Mesh(name, part, shape.faces, shape.uv, material, rest=shape.points, neck=np.asarray(neck, np.float32))


def planar(plain: np.ndarray, scale: float = 0.33) -> np.ndarray:
    """(n, 2): texture coordinates of cloth by its place on the base mesh, in tiles that mirror each other."""
    bend = plain[:, 0] + 0.35 * np.sign(plain[:, 0]) * np.maximum(0, 1.0 - plain[:, 2])
    uv = np.stack([bend, plain[:, 1]], 1) * scale
    return np.abs((uv % 2) - 1).astype(np.float32)


def bodice(
    skull: Skull,
    neckline: str,
    thick: float,
    texture: np.ndarray,
    name: str,
    rng: np.random.Generator,
    sleeveless: bool = False,
) -> Mesh:
    """The garment itself."""
    value, azimuth = spread()
    field = value - line(neckline, azimuth)
    if sleeveless:
        points = base()["points"]
        field = np.minimum(field, 1.15 - np.abs(points[:, 0]) + 0.2 * np.abs(points[:, 1] - 5.4))
    surface, faces, _ = clip(skull, field)
    rise = (
        0.025
        + (thick - 0.025) * smooth(surface.field / 0.25)
        + folds(surface.plain, 0.35 * thick, rng) * smooth(surface.field / 0.4)
    )
    points = surface.own + surface.normal * np.maximum(rise, 0.02)[:, None]
    shape, neck = _lengthen(Shape(points.astype(np.float32), faces, planar(surface.plain)), surface)
    return cloth(name, Part.CLOTHES, shape, neck, texture)


def _lengthen(shape: Shape, surface: Surface) -> tuple[Shape, np.ndarray]:
    """Carried on downwards by 1.8 dm where the base mesh ends, so that a wide picture shows no end of it."""
    edges = np.sort(np.concatenate([shape.faces[:, [0, 1]], shape.faces[:, [1, 2]], shape.faces[:, [2, 0]]]), 1)
    edges, count = np.unique(edges, axis=0, return_counts=True)
    low = (surface.plain[:, 1] < 4.9) & (surface.field > 0.02)
    edges = edges[(count == 1) & low[edges].all(1)]
    ends = np.unique(edges)
    new = np.full(len(shape.points), -1)
    new[ends] = len(shape.points) + np.arange(len(ends))
    quads = np.concatenate(
        [
            np.stack([edges[:, 0], edges[:, 1], new[edges[:, 0]]], 1),
            np.stack([edges[:, 1], new[edges[:, 1]], new[edges[:, 0]]], 1),
        ]
    )
    points = np.concatenate([shape.points, shape.points[ends] - np.array([0, 1.8, 0], np.float32)])
    uv = np.concatenate([shape.uv, np.abs(shape.uv[ends] - [0, 0.6])])
    faces = np.concatenate([shape.faces, quads])
    return Shape(points, faces.astype(np.int32), uv.astype(np.float32)), np.concatenate(
        [surface.neck, surface.neck[ends]]
    )


def band(skull: Skull, neckline: str, height: float, thick: float, texture: np.ndarray, name: str) -> Mesh:
    """A hem along the neckline, rounded over its edge: ribs of a jumper, the binding of a T-shirt, or a roll neck."""
    low, high = contour(skull, neckline, 0.05), contour(skull, neckline, -height)
    rows = [(0, 0.4), (0.08, 1.0), (0.5, 1.25), (0.9, 1.1), (1.0, 0.7), (0.97, 0.1)]
    points = np.stack([_between(low, high, t, thick * f) for t, f in rows])
    points = np.concatenate([points, points[:, :1]], 1)
    u = np.linspace(0, 8, AROUND + 1)
    uv = np.stack(np.broadcast_arrays(np.abs((u % 2) - 1)[None], np.linspace(0, 0.1, len(rows))[:, None]), -1)
    neck = np.stack([low.neck * (1 - t) + high.neck * t for t, _ in rows])
    neck = np.concatenate([neck, neck[:, :1]], 1)
    return cloth(name, Part.CLOTHES, sheet(points, uv, flip=True), neck.ravel(), texture)


def _between(low: Surface, high: Surface, t: float, rise: float) -> np.ndarray:
    return low.own * (1 - t) + high.own * t + unit(low.normal * (1 - t) + high.normal * t) * rise


def collar(skull: Skull, neckline: str, texture: np.ndarray, rng: np.random.Generator) -> Mesh:
    """A shirt's collar: a stand around the neck and a leaf folded over it, with two points in front."""
    low, high = contour(skull, neckline, 0.03), contour(skull, neckline, -0.2)
    around = np.arange(AROUND) * (360 / AROUND)
    around = np.where(around > 180, around - 360, around)
    order = np.argsort(around)
    gap = 5.0
    keep = order[np.abs(around[order]) > gap]
    split = np.searchsorted(around[keep], 0)
    path = np.concatenate([keep[split:], keep[:split]])  # from the left of the gap around the back to its right
    a = np.abs(around[path])
    tip = rng.uniform(0.16, 0.3)
    drop = 0.2 + tip * smooth((46 - a) / 34)
    stand = [_between(low, high, t, r)[path] for t, r in ((-0.1, 0.03), (0.5, 0.06), (1.0, 0.075))]
    top = stand[-1]
    away = unit(high.normal[path] * [1, 0, 1])
    down = unit(low.own - high.own)[path]
    leaf = [top + away * 0.035 + [0, 0.012, 0]]
    for t in (0.35, 0.7, 1.0):
        leaf.append(
            top
            + down * (drop * t)[:, None]
            + away * (0.065 + 0.075 * t + 0.02 * np.sin(np.pi * t))
            + low.normal[path] * 0.02 * t
        )
    points = np.stack([*stand, *leaf])
    neck = np.broadcast_to((0.5 * low.neck + 0.5 * high.neck)[path], points.shape[:2])
    u = np.abs((np.linspace(0, 6, len(path)) % 2) - 1)
    uv = np.stack(np.broadcast_arrays(u[None], np.array([0.0, 0.05, 0.1, 0.12, 0.2, 0.28, 0.36])[:, None]), -1)
    return cloth("collar", Part.CLOTHES, sheet(points, uv, flip=True), neck.ravel(), texture)


def lapels(skull: Skull, texture: np.ndarray, rng: np.random.Generator) -> Mesh:
    """A jacket's collar and lapels, laid back from its edge; lapels reach sideways over the chest."""
    around = np.arange(AROUND) * (360 / AROUND)
    around = np.where(around > 180, around - 360, around)
    a = np.abs(around)
    edge = contour(skull, "lapels", 0.02)
    wide = rng.uniform(0.32, 0.55) * smooth((a - 2) / 14) * smooth((78 - a) / 26)
    wide = wide * (1 - 0.5 * np.exp(-(((a - 44) / 4) ** 2)))  # the notch
    outer = edge.plain + np.stack([np.sign(around) * (0.03 + wide), -0.12 * smooth((a - 40) / 40), 0 * wide], 1)
    x, z = outer[:, 0], outer[:, 2] - 0.25
    azimuth, value = np.degrees(np.arctan2(x, z)), np.hypot(x, z) + 5.9 - outer[:, 1]
    order = np.argsort(azimuth)
    add = np.interp(around, azimuth[order], (value - line("lapels", azimuth))[order], period=360)
    curve, turn = contour(skull, "lapels", add), np.argsort(around)

    def sample(values: np.ndarray) -> np.ndarray:
        columns = values.reshape(AROUND, -1).T
        return np.stack([np.interp(azimuth, around[turn], c[turn], period=360) for c in columns], 1)

    out = Surface(
        sample(curve.plain), sample(curve.own), unit(sample(curve.normal)), sample(curve.neck)[:, 0], edge.field
    )
    keep = np.concatenate([np.flatnonzero(around > 4), np.flatnonzero(around < -4)])
    profile = ((0, 0.05), (0.0, 0.16), (0.06, 0.2), (0.5, 0.225), (1.0, 0.205), (1.0, 0.13))
    points = np.stack([_between(edge, out, t, r)[keep] for t, r in profile])
    neck = np.stack([(edge.neck * (1 - t) + out.neck * t)[keep] for t, _ in profile])
    uv = planar(np.concatenate([edge.plain[keep]] * 3 + [out.plain[keep]] * 3)).reshape(*points.shape[:2], 2)
    return cloth("lapels", Part.CLOTHES, sheet(points, uv), neck.ravel(), texture)


def clothes(skull: Skull, kind: str, colors: np.ndarray, pattern: str, rng: np.random.Generator) -> list[Mesh]:
    """What is worn: `kind` of T-shirt, vest, jumper, roll neck, shirt, jacket, dress. `colors` (3, 3) linear: of the
    cloth, of its pattern, and of what is under a jacket."""
    two, white = colors[:2], np.stack([colors[2], colors[2] * 0.9])
    if kind == "shirt":
        texture = weave("woven", pattern, two, rng)
        neckline = str(rng.choice(["collar", "open collar"]))
        return [bodice(skull, neckline, 0.06, texture, "shirt", rng), collar(skull, neckline, texture, rng)]
    if kind == "jacket":
        shirt, texture = weave("woven", "plain", white, rng), weave("woven", pattern, two, rng)
        out = [bodice(skull, "collar", 0.05, shirt, "shirt", rng), collar(skull, "collar", shirt, rng)]
        if rng.random() < 0.4:
            shirt = weave("jersey", "plain", white, rng)
            out = [bodice(skull, "crew", 0.05, shirt, "shirt", rng), band(skull, "crew", 0.09, 0.05, shirt, "neckband")]
        return [*out, bodice(skull, "lapels", 0.12, texture, "jacket", rng), lapels(skull, texture, rng)]
    if kind == "jumper":
        texture = weave("knit", pattern, two, rng)
        neckline = str(rng.choice(["crew", "vee"]))
        return [
            bodice(skull, neckline, 0.11, texture, "jumper", rng),
            band(skull, neckline, 0.12, 0.085, texture, "neckband"),
        ]
    if kind == "roll neck":
        texture = weave("knit", pattern, two, rng)
        return [
            bodice(skull, "roll", 0.09, texture, "jumper", rng),
            band(skull, "roll", 0.3, 0.1, texture, "roll neck"),
        ]
    texture = weave("jersey", pattern, two, rng)
    if kind in ("dress", "vest"):
        neckline = str(rng.choice(["scoop", "boat", "vee"]))
        return [bodice(skull, neckline, 0.045, texture, kind, rng, sleeveless=kind == "vest" or rng.random() < 0.5)]
    neckline = str(rng.choice(["crew", "crew", "vee", "scoop"]))
    return [
        bodice(skull, neckline, 0.055, texture, "T-shirt", rng),
        band(skull, neckline, 0.07, 0.04, texture, "neckband"),
    ]
