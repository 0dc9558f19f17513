"""Clothes of the upper body: skin of chest and shoulders, raised and cut along a neckline, with bands and collars."""

import numpy as np

from .fabric import weave
from .mesh import Material, Mesh, Part
from .neckline import AROUND, Surface, between, clip, contour, line, spread
from .scalp import Skull, base, smooth, unit
from .shapes import Shape, sheet


def folds(plain: np.ndarray, depth: float, rng: np.random.Generator) -> np.ndarray:
    """Heights (n,) in dm of soft folds at base points (n, 3), which run down from the shoulders."""
    out = np.zeros(len(plain))
    for _ in range(7):
        direction = np.array([rng.normal(0, 1.0), rng.normal(0, 0.35), rng.normal(0, 0.5)]) * rng.uniform(1.5, 4.5)
        out += np.sin(plain @ direction + 6.28 * rng.random())
    return depth * out / 3


def cloth(name: str, part: Part, shape: Shape, neck: np.ndarray, texture: np.ndarray) -> Mesh:
    """A mesh of cloth with a texture (H, W, 3 or 4) uint8; `neck` (n,) as in `Mesh`."""
    material = Material("cloth", texture=texture, gloss=0.12, two_sided=True)
    return Mesh(name, part, shape.faces, shape.uv, material, rest=shape.points, neck=np.asarray(neck, np.float32))


def planar(plain: np.ndarray, scale: float = 0.33) -> np.ndarray:
    """Texture coordinates (n, 2) of cloth from points (n, 3) on the base mesh, in mirrored tiles, `scale` per dm."""
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
    """The body of a garment, cut along a neckline, about `thick` dm off the skin."""
    value, azimuth = spread()
    field = value - line(neckline, azimuth)
    if sleeveless:
        points = base()["points"]
        field = np.minimum(field, 1.15 - np.abs(points[:, 0]) + 0.2 * np.abs(points[:, 1] - 5.4))
    surface, faces, _ = clip(skull, field)
    rise = (
        0.025
        + (thick - 0.025) * smooth(surface.depth / 0.25)
        + folds(surface.plain, 0.35 * thick, rng) * smooth(surface.depth / 0.4)
    )
    points = surface.own + surface.normal * np.maximum(rise, 0.02)[:, None]
    shape, neck = _lengthen(Shape(points.astype(np.float32), faces, planar(surface.plain)), surface)
    return cloth(name, Part.CLOTHES, shape, neck, texture)


def _lengthen(shape: Shape, surface: Surface) -> tuple[Shape, np.ndarray]:
    """Extend a garment 2 dm below the end of the base mesh, so that wide pictures do not show its lower edge."""
    faces, count = shape.faces.astype(np.int64), len(shape.points)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    low = (surface.plain[:, 1] < 4.9) & (surface.depth > 0.02)
    lonely = ~np.isin(edges[:, 0] * count + edges[:, 1], edges[:, 1] * count + edges[:, 0])
    edges = edges[lonely & low[edges].all(1)]
    ends = np.unique(edges)
    new = np.full(count, -1)
    new[ends] = count + np.arange(len(ends))
    a, b = edges.T
    quads = np.concatenate([np.stack([b, a, new[a]], 1), np.stack([b, new[a], new[b]], 1)])
    away = surface.normal[ends] * [0.15, 0, 0.15] - np.array([0, 2, 0])
    points = np.concatenate([shape.points, shape.points[ends] + away])
    uv = np.concatenate([shape.uv, np.abs((shape.uv[ends] - [0, 0.6] + 1) % 2 - 1)])
    whole = Shape(points.astype(np.float32), np.concatenate([faces, quads]).astype(np.int32), uv.astype(np.float32))
    return whole, np.concatenate([surface.neck, surface.neck[ends]])


def band(skull: Skull, neckline: str, height: float, thick: float, texture: np.ndarray, name: str) -> Mesh:
    """A rounded band along the neckline: the ribs of a jumper, the neckband of a T-shirt, or a roll neck.

    `height` and `thick` in dm.
    """
    low, high = contour(skull, neckline, 0.05), contour(skull, neckline, -height)
    rows = [(0, 0.4), (0.08, 1.0), (0.5, 1.25), (0.9, 1.1), (1.0, 0.7), (0.97, 0.1)]
    points = np.stack([between(low, high, t, thick * f) for t, f in rows])
    points = np.concatenate([points, points[:, :1]], 1)
    u = np.linspace(0, 8, AROUND + 1)
    uv = np.stack(np.broadcast_arrays(np.abs((u % 2) - 1)[None], np.linspace(0, 0.1, len(rows))[:, None]), -1)
    neck = np.stack([low.neck * (1 - t) + high.neck * t for t, _ in rows])
    neck = np.concatenate([neck, neck[:, :1]], 1)
    return cloth(name, Part.CLOTHES, sheet(points, uv, flip=True), neck.ravel(), texture)


def collar(skull: Skull, neckline: str, texture: np.ndarray, rng: np.random.Generator) -> Mesh:
    """A shirt collar: a stand around the neck and a fall folded over it, with two points in front."""
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
    stand = [between(low, high, t, r)[path] for t, r in ((-0.1, 0.03), (0.5, 0.06), (1.0, 0.075))]
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
    """The collar and lapels of a jacket, folded back from its edge sideways over the chest."""
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
        sample(curve.plain), sample(curve.own), unit(sample(curve.normal)), sample(curve.neck)[:, 0], edge.depth
    )
    keep = np.concatenate([np.flatnonzero(around > 4), np.flatnonzero(around < -4)])
    profile = ((0, 0.05), (0.0, 0.16), (0.06, 0.2), (0.5, 0.225), (1.0, 0.205), (1.0, 0.13))
    points = np.stack([between(edge, out, t, r)[keep] for t, r in profile])
    neck = np.stack([(edge.neck * (1 - t) + out.neck * t)[keep] for t, _ in profile])
    uv = planar(np.concatenate([edge.plain[keep]] * 3 + [out.plain[keep]] * 3)).reshape(*points.shape[:2], 2)
    return cloth("lapels", Part.CLOTHES, sheet(points, uv), neck.ravel(), texture)


def clothes(skull: Skull, kind: str, colors: np.ndarray, pattern: str, rng: np.random.Generator) -> list[Mesh]:
    """The meshes of a garment. `kind`: shirt, jacket, jumper, roll neck, dress, vest, or T-shirt for any other name.

    `colors` (3, 3) linear: of the cloth, of its pattern, and of the garment under a jacket. `pattern`: one of
    `fabric.PATTERNS`.
    """
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
