"""Hats, caps and headscarves, built over the surface of a person's own skull."""

from dataclasses import dataclass

import numpy as np

from .color import encode
from .fabric import weave
from .garments import cloth
from .mesh import Mesh, Part
from .scalp import Skull, smooth
from .shapes import join, sheet

KINDS = ("", "cap", "beanie", "brimmed", "headscarf")


@dataclass(frozen=True)
class Rim:
    """Lower edge of a hat: its slope in degrees in front and behind, with a cosine in between."""

    front: float
    back: float

    def slope(self, azimuth: np.ndarray) -> np.ndarray:
        return self.front + (self.back - self.front) * (0.5 - 0.5 * np.cos(np.radians(azimuth)))


#: Rims within which hair lies flat; a headscarf covers all hair.
RIMS = {"cap": Rim(63.0, 90.0), "beanie": Rim(66.0, 112.0), "brimmed": Rim(66.0, 94.0)}


def dome(
    skull: Skull, edge: Rim, clearance: np.ndarray, rows: int, columns: int = 48
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points (rows, columns + 1, 3) from crown to rim, `clearance` (rows,) dm off the head, their azimuth and slope."""
    azimuth = np.linspace(-180, 180, columns + 1)[None]
    slope = np.linspace(0, 1, rows)[:, None] * edge.slope(azimuth)
    azimuth = np.broadcast_to(azimuth, slope.shape)
    radius = skull.radius(azimuth, slope, ears=False)
    for _ in range(2):  # span the hollows of the skull
        radius = np.maximum(
            radius,
            0.5 * radius
            + 0.25 * (np.roll(radius[:, :-1], 3, 1) + np.roll(radius[:, :-1], -3, 1))[:, np.r_[:columns, 0]],
        )
    points = skull.place(
        azimuth, slope, clearance[:, None] + radius - skull.radius(azimuth, slope, ears=False), ears=False
    )
    return points, azimuth, slope


def cap(skull: Skull, colors: np.ndarray, rng: np.random.Generator) -> list[Mesh]:
    """A baseball cap."""
    edge = RIMS["cap"]
    texture = weave("woven", "plain", colors, rng)
    texture[:, ::21] = (texture[:, ::21] * 0.75).astype(np.uint8)  # seams
    points, azimuth, slope = dome(skull, edge, 0.09 + 0.13 * np.sin(np.pi * np.linspace(0, 1, 12)) ** 0.8, 12)
    top = sheet(points, np.stack([(azimuth + 180) / 360, 1 - slope / 120], -1))
    a = np.linspace(-62, 62, 19)
    inner = skull.place(a, edge.slope(a) - 1, 0.1, ears=False)
    forward = 0.72 * np.cos(np.radians(a * 1.42)) ** 0.7
    bend = rng.uniform(0.1, 0.3)
    rows = []
    for t in np.linspace(0, 1, 5):
        reach = np.stack(
            [0.35 * forward * np.sin(np.radians(a)), -0.42 * forward - bend * (a / 62) ** 2 * forward, forward], 1
        )
        rows.append(inner + t * reach)
    visor = np.stack(rows)
    below = sheet(visor[:, ::-1] + [0, -0.025, 0])
    whole = join([top, sheet(visor), below])
    return [cloth("cap", Part.HAT, whole, np.ones(len(whole.points)), texture)]


def beanie(skull: Skull, colors: np.ndarray, rng: np.random.Generator) -> list[Mesh]:
    """A knitted hat with a turned-up edge."""
    edge = RIMS["beanie"]
    texture = weave("knit", str(rng.choice(["plain", "plain", "stripes", "melange"])), colors, rng)
    t = np.linspace(0, 1, 12)
    points, azimuth, slope = dome(skull, edge, 0.08 + rng.uniform(0.05, 0.3) * np.cos(np.pi / 2 * t) ** 1.5, 12)
    u = np.abs(((azimuth + 180) / 45) % 2 - 1)
    shapes = [sheet(points, np.stack([u, 1 - slope / 120], -1))]
    height = rng.uniform(14, 24)
    rows = [(1.0, 0.055), (1.0, 0.125), (0.7, 0.14), (0.1, 0.135), (0.0, 0.115), (0.0, 0.07)]
    a = azimuth[0]
    fold = np.stack([skull.place(a, edge.slope(a) - height * (1 - f) + 1.0 * f, r, ears=f > 2) for f, r in rows[::-1]])
    v = np.linspace(0, 0.4, len(rows))[:, None]
    shapes.append(sheet(fold, np.stack(np.broadcast_arrays(u[:1], v), -1)))
    whole = join(shapes)
    return [cloth("beanie", Part.HAT, whole, np.ones(len(whole.points)), texture)]


def brimmed(skull: Skull, colors: np.ndarray, rng: np.random.Generator) -> list[Mesh]:
    """A hat with a band and a brim."""
    edge = RIMS["brimmed"]
    texture = weave("woven", "melange", np.stack([colors[0], colors[0] * 0.8]), rng)
    texture[78:100] = encode(colors[1] * 0.6)
    t = np.linspace(0, 1, 14)
    points, azimuth, _ = dome(skull, edge, 0.09 + 0.24 * np.clip((1 - t) * 2.2, 0, 1) ** 0.7, 14)
    dent = 0.16 * np.exp(-((points[..., 0] / 0.22) ** 2)) * smooth((0.55 - t) / 0.4)[:, None]
    points[..., 1] -= dent * skull.scale[1]
    shapes = [sheet(points, np.stack(np.broadcast_arrays((azimuth + 180) / 360, 1 - t[:, None] * 0.85), -1))]
    a = azimuth[0]
    wide = rng.uniform(0.28, 0.6)
    inner = skull.place(a, edge.slope(a), 0.09, ears=False)
    out = np.stack([np.sin(np.radians(a)), 0 * a, np.cos(np.radians(a))], 1)
    lift = 0.2 * np.abs(np.sin(np.radians(a))) ** 2 - 0.12 * np.cos(np.radians(a))
    brim = np.stack(
        [inner + out * wide * s + np.stack([0 * a, wide * s * s * lift, 0 * a], 1) for s in np.linspace(0, 1, 5)]
    )
    uv = np.stack(np.broadcast_arrays(((a + 180) / 360)[None], np.linspace(0.14, 0.0, 5)[:, None]), -1)
    shapes += [sheet(brim, uv), sheet(brim[:, ::-1] - [0, 0.03, 0], uv)]
    whole = join(shapes)
    return [cloth("hat", Part.HAT, whole, np.ones(len(whole.points)), texture)]


def headscarf(skull: Skull, colors: np.ndarray, rng: np.random.Generator) -> list[Mesh]:
    """A scarf around head, neck and shoulders with an opening for the face."""
    columns, rows = 60, 44
    azimuth = np.linspace(-180, 180, columns + 1)[None]
    slope = np.linspace(0, 262, rows)[:, None]
    azimuth, slope = np.broadcast_arrays(azimuth, slope)
    radius = skull.radius(azimuth, slope)
    # Cloth hangs from cheeks and chin to the shoulders and bridges the neck.
    for _ in range(10):
        lower, upper = np.roll(radius, -1, 0), np.roll(radius, 1, 0)
        lower[-1], upper[0] = radius[-1], radius[0]
        radius = np.maximum(radius, 0.5 * (lower + upper) - 0.001)
        ring = radius[:, :-1]
        ring = np.maximum(ring, 0.5 * (np.roll(ring, 1, 1) + np.roll(ring, -1, 1)) - 0.012)
        radius = np.concatenate([ring, ring[:, :1]], 1)
    hang = smooth((slope - 110) / 50)
    a = np.radians(azimuth)
    fold = np.sin(3 * a + 0.03 * slope + rng.uniform(0, 6)) + np.sin(7 * a - 0.02 * slope + rng.uniform(0, 6))
    fold = fold + 0.7 * np.sin(np.radians(4 * slope) + 2 * a)
    clearance = (
        0.075 + 0.06 * hang + 0.1 * smooth((slope - 165) / 25) + (0.012 + 0.028 * hang) * fold * smooth(slope / 50)
    )
    points = skull.place(azimuth, slope, radius - skull.radius(azimuth, slope) + clearance)
    texture = weave("woven", str(rng.choice(["plain", "plain", "plain", "dots", "melange"])), colors, rng)
    tiled = np.tile(texture, (2, 2, 1))
    size = len(tiled)
    y, x = np.mgrid[0:size, 0:size]
    across, down = (x + 0.5) / size * 360 - 180, (y + 0.5) / size * 262
    high, low, wide = 54 + rng.uniform(-3, 4), 172.0, 60 + rng.uniform(-3, 4)
    middle, half = (high + low) / 2, (low - high) / 2
    inside = (np.abs(across) / wide) ** 2.4 + (np.abs(down - middle) / half) ** 2.4
    shade = 1 - 0.35 * np.exp(-(((inside - 1.12) / 0.05) ** 2)) + 0.06 * np.sin(np.radians(3 * across + 2 * down))
    picture = np.concatenate(
        [
            (tiled * np.clip(shade, 0, 1)[..., None]).astype(np.uint8),
            np.where(inside > 1, 255, 0)[..., None].astype(np.uint8),
        ],
        -1,
    )
    uv = np.stack([(azimuth + 180) / 360, 1 - slope / 262], -1)
    shape = sheet(points, uv)
    # A hem gives the edge of the opening some thickness.
    turn = np.radians(np.linspace(0, 360, 73))
    reach = np.abs(np.cos(turn)) ** 2.4 + np.abs(np.sin(turn)) ** 2.4
    reach = 1.0 / reach ** (1 / 2.4)
    hem_azimuth, hem_slope = wide * reach * np.sin(turn), middle - half * reach * np.cos(turn)
    over = (
        np.interp(hem_slope, slope[:, 0], np.arange(rows)),
        np.interp(hem_azimuth, azimuth[0], np.arange(columns + 1)),
    )
    at = np.rint(over[0]).astype(int), np.rint(over[1]).astype(int)
    rise = (radius - skull.radius(azimuth, slope) + clearance)[at]
    rims = np.stack(
        [
            skull.place(hem_azimuth * k, middle + (hem_slope - middle) * k, rise + d)
            for k, d in ((1.03, 0.0), (1.02, 0.022), (0.985, 0.012), (0.975, -0.03))
        ]
    )
    edge_uv = np.stack(np.broadcast_arrays(np.linspace(0.3, 0.7, 73)[None], np.linspace(0.02, 0.06, 4)[:, None]), -1)
    whole = join([shape, sheet(rims, edge_uv, flip=True)])
    return [cloth("headscarf", Part.HAT, whole, skull.neck(whole.points), picture)]


def wear(skull: Skull, kind: str, colors: np.ndarray, rng: np.random.Generator) -> list[Mesh]:
    """The meshes of one of KINDS, none for ""; `colors` (2, 3) linear: of the cloth, and of its pattern or band."""
    make = {"cap": cap, "beanie": beanie, "brimmed": brimmed, "headscarf": headscarf}
    return make[kind](skull, colors, rng) if kind else []
