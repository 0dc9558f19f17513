"""The hair of a person: its traits, the styles, and `grow`, which makes the meshes of hair, brows, lashes and beard."""

from dataclasses import dataclass, replace

import numpy as np

from ..errors import FadaError
from . import beard, face_hair, tied
from . import cap as caps
from .growth import Cut, Roots, curl, grow_lines, plant
from .head import Head
from .headwear import Rim
from .mesh import Material, Mesh, Part
from .scalp import Line, Skull, skull_of, smooth
from .strands import COILED, CURLY, STRAIGHT, TONES, WAVY, Fibre, atlas, cards

TIED = ("ponytail", "bun", "braids")
STYLES: dict[str, Cut] = {
    "cropped": Cut(2000, 2, 0.055, 0.2, 0.13, 0.13, "forward", 28, 0.0, 1.0, 0.03, 0.15),
    "short": Cut(1250, 3, 0.10, 0.6, 0.22, 0.26, "side", 19, 0.45, 0.9, 0.10, 0.45),
    "fringed": Cut(1250, 3, 0.10, 0.62, 0.32, 0.34, "forward", 20, 0.22, 0.9, 0.09, 0.45),
    "swept": Cut(1000, 4, 0.11, 0.85, 0.42, 0.5, "back", 26, 0.2, 0.9, 0.12, 0.4),
    "quiff": Cut(1200, 3, 0.10, 0.55, 0.13, 0.16, "up", 34, 0.15, 0.9, 0.1, 0.5),
    "curly": Cut(1000, 4, 0.14, 0.62, 0.42, 0.45, "whorl", 50, 0.2, 0.9, 0.22, 0.3),
    "afro": Cut(1900, 2, 0.17, 0.5, 0.4, 0.42, "out", 85, 0.0, 1.0, 0.0, 0.05),
    "bob": Cut(620, 7, 0.17, 3.4, 2.6, 2.4, "fall", 22, 1.2, 0.85, 0.13, 0.35, 6.3, True),
    "long": Cut(440, 10, 0.2, 5.0, 4.2, 4.0, "fall", 20, 1.2, 0.85, 0.11, 0.4, 4.9, True),
    "ponytail": Cut(560, 5, 0.14, 0, 0, 0, "back", 0, 0, 0, 0.07, 0.0),
    "bun": Cut(560, 5, 0.14, 0, 0, 0, "back", 0, 0, 0, 0.07, 0.0),
    "braids": Cut(560, 5, 0.14, 0, 0, 0, "back", 0, 0, 0, 0.07, 0.0),
}


@dataclass(frozen=True)
class HairTraits:
    """The hair of a person.

    `style`: one of `STYLES`, or "bald". `length` 0..1: within the range of the style. `color` (3,) linear; `grey` 0..1:
    share of white hairs; `roots` 0..1: how much darker the roots are; `curl`, `volume` 0..1. `part`: parting from -1
    (right) to 1 (left). `fringe` 0..1: how much of the front falls over the forehead. `recession`, `thinning`: as in
    `Line`. `pressed`: slopes in degrees of a hat's rim, front and back, within which hair lies flat.
    """

    style: str
    face: face_hair.FaceHairTraits = face_hair.FaceHairTraits()
    length: float = 0.5
    color: tuple[float, float, float] = (0.04, 0.023, 0.014)
    grey: float = 0.0
    roots: float = 0.4
    curl: float = 0.1
    volume: float = 0.5
    part: float = 0.4
    fringe: float = 0.0
    recession: float = 0.0
    thinning: float = 0.0
    pressed: tuple[float, float] | None = None


def fibre_of(curl_: float) -> Fibre:
    return STRAIGHT if curl_ < 0.3 else WAVY if curl_ < 0.55 else CURLY if curl_ < 0.8 else COILED


def hair_mesh(
    skull: Skull, lines: np.ndarray, outward: np.ndarray, width: np.ndarray, layer: np.ndarray, taper: float,
    texture: np.ndarray, name: str, rng: np.random.Generator, spread: float = 0.3,
) -> Mesh:  # fmt: skip
    """Strands (n, m, 3) as a mesh of cards; inner layers (low `layer` (n,)) use the dark columns of the texture."""
    n = len(lines)
    column = np.clip(layer * (len(TONES) - 1) + rng.normal(0, 1.1, n), 0, len(TONES) - 1).round().astype(int)
    points, faces, uv, tangent = cards(
        lines, outward, width, column, rng.normal(0, spread, n).astype(np.float32), taper
    )
    material = Material("hair", texture=texture, gloss=0.35, two_sided=True)
    return Mesh(name, Part.HAIR, faces, uv, material, rest=points, neck=skull.neck(points), tangent=tangent)


def press(skull: Skull, lines: np.ndarray, rim: Rim) -> np.ndarray:
    """Press strands (n, m, 3) under a hat down to 0.035 dm off the skin, with a gradual transition below its rim."""
    azimuth, slope, out, radius = skull.coordinates(lines.reshape(-1, 3))
    under = smooth((rim.slope(azimuth) + 40 - slope) / 30)
    excess = np.maximum(radius - skull.radius(azimuth, slope, ears=False) - 0.035, 0)
    return lines - (out * (excess * under)[:, None]).reshape(lines.shape).astype(np.float32)


def lengths(cut: Cut, traits: HairTraits, roots: Roots, rng: np.random.Generator) -> np.ndarray:
    """Lengths (n,) in dm of strands: short at the sides and back, longer on top, shorter again at the hairline."""
    azimuth = np.abs(roots.azimuth)
    above = smooth((np.interp(azimuth, (30, 55, 120, 150), (84, 66, 66, 78)) - roots.slope) / 22)
    behind = smooth((azimuth - 100) / 35)
    low = cut.side * (1 - behind) + cut.back * behind
    out = low + (cut.top - low) * above
    if cut.level is None:
        out = out * (0.6 + 0.8 * traits.length)
        out = out * (0.55 + 0.45 * smooth(roots.inside / 7))
    return out * (0.94 + 0.08 * rng.random(len(out)) if cut.comb == "out" else 0.82 + 0.3 * rng.random(len(out)))


def scalp_hair(skull: Skull, traits: HairTraits, rng: np.random.Generator) -> list[Mesh]:
    """Cap and cards of the hair on the head. Raises `FadaError` for an unknown style."""
    if traits.style not in STYLES:
        raise FadaError(f"There is no hair style {traits.style!r}; choose one of {', '.join(STYLES)} or bald.")
    cut = STYLES[traits.style]
    if cut.covers and traits.curl > 0.4:  # waves need more segments
        cut = replace(cut, segments=round(1.5 * cut.segments), count=round(cut.count / 1.45))
    line = Line(traits.recession, traits.thinning, rng.random(4) * 6.28)
    color = np.array(traits.color, np.float32)
    volume = 0.5 + traits.volume
    fibre = replace(fibre_of(traits.curl), ragged=0.3) if traits.style == "bob" else fibre_of(traits.curl)
    texture = atlas(fibre, color, traits.grey, traits.roots, rng)
    under = caps.paint(line, color, traits.grey, rng)
    lift = {"afro": 0.14, "curly": 0.12}.get(traits.style, 0.35 * cut.volume) * volume
    meshes = [caps.cap(skull, line, under, 0.0, "scalp")]
    if lift > 0.03 and not traits.pressed and not cut.covers:
        meshes.append(caps.cap(skull, line, under, lift, "under hair"))
    roots = plant(skull, line, cut.count, 1.3 if cut.covers else 0.0, rng)
    layer = rng.random(len(roots.points)).astype(np.float32)
    width = (cut.width * (0.75 + 0.5 * rng.random(len(layer)))).astype(np.float32)
    width = width * (0.35 + 0.65 * smooth(roots.inside / 9)).astype(np.float32)
    if traits.style in TIED:
        return meshes + tied_hair(skull, traits, cut, roots, layer, width, texture, rng)
    length = lengths(cut, traits, roots, rng)
    if cut.level is None:  # thin hair is shorter, too
        length = length * (0.35 + 0.65 * line.density(roots.azimuth, roots.slope))
    wide = (52 + rng.normal(0, 4, len(length))) * traits.fringe
    fringe = (np.abs(roots.azimuth) < wide) & (roots.inside < 12 + 16 * traits.fringe)
    length = np.where(fringe, np.maximum(0.3, 0.045 * roots.inside + 0.75), length)
    lines, outward = grow_lines(cut, skull, roots, length, layer, traits.part * 0.45 * skull.scale[0], fringe, rng)
    if traits.curl > 0.3 and cut.segments > 2:
        lines = curl(lines, outward, 0.03 + 0.05 * traits.curl, 1.1 - 0.75 * traits.curl, rng)
    if traits.pressed:
        lines = press(skull, lines, Rim(*traits.pressed))
    spread = 0.06 if traits.pressed else 0.3
    meshes.append(hair_mesh(skull, lines, outward, width, layer, 0.5, texture, "hair", rng, spread))
    return meshes


def tied_hair(
    skull: Skull, traits: HairTraits, cut: Cut, roots: Roots, layer: np.ndarray, width: np.ndarray, texture: np.ndarray,
    rng: np.random.Generator,
) -> list[Mesh]:  # fmt: skip
    """Hair pulled back to its knots, and the bun, the ponytail or the braids behind them."""
    if traits.style == "braids":
        knots = np.stack([tied.knot(skull, a, 122.0, 0.12) for a in (-118.0, 118.0)])
    else:
        knots = tied.knot(skull, 180.0, 60.0 + 35 * traits.part, 0.1)[None]
    lines = tied.pull(skull, roots, knots, layer, cut.volume * (0.6 + traits.volume), cut.segments, rng)
    if traits.pressed:
        lines = press(skull, lines, Rim(*traits.pressed))
    outward = skull.coordinates(lines.reshape(-1, 3))[2].reshape(lines.shape)
    meshes = [hair_mesh(skull, lines, outward, width, layer, 0.55, texture, "hair", rng, 0.12)]
    for i, at in enumerate(knots):
        away = at - skull.centre
        if traits.style == "bun":
            radius = 0.3 + 0.22 * traits.length
            lines, outward = tied.bun(at + away / np.linalg.norm(away) * radius * 0.5, away, radius, 230, 7, rng)
            widths = np.full(len(lines), 0.13, np.float32)
        elif traits.style == "ponytail":
            path = tied.course(skull, at, away + [0, 0.2, 0], 1.6 + 2.2 * traits.length, 0.2, np.zeros(3, np.float32))
            lines, outward = tied.tail(path, 170, 0.24 + 0.12 * traits.volume, 9, rng)
            widths = np.full(len(lines), 0.15, np.float32)
            if traits.curl > 0.3:
                lines = curl(lines, outward, 0.03 + 0.04 * traits.curl, 1.1 - 0.75 * traits.curl, rng)
        else:
            aside = np.array([np.sign(at[0]) * 0.1, 0, 3.2], np.float32)
            path = tied.course(skull, at, away, 2.2 + 1.4 * traits.length, 0.15, aside)
            lines, outward = tied.braid(path, 0.15 + 0.05 * traits.volume, 5)
            widths = np.full(len(lines), 0.13, np.float32)
        depth = rng.random(len(lines)).astype(np.float32) * 0.6 + 0.4
        meshes.append(hair_mesh(skull, lines, outward, widths, depth, 0.3, texture, f"{traits.style} {i}", rng, 0.1))
    return meshes


def grow(head: Head, traits: HairTraits, rng: np.random.Generator) -> list[Mesh]:
    """Meshes of all hair of a head: scalp, brows, lashes and beard. Raises `FadaError` for an unknown style."""
    skull = skull_of(head)
    meshes = [] if traits.style == "bald" else scalp_hair(skull, traits, rng)
    for make in (face_hair.brows, face_hair.lashes, beard.beard):
        meshes += make(skull, traits.face, rng)
    return meshes
