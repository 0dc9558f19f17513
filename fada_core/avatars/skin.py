"""Skin textures from melanin and blood, with pores, folds, stubble and make-up, as maps in texture coordinates."""

from dataclasses import dataclass, replace

import numpy as np

from .color import to_linear, to_srgb8
from .creases import creases
from .hair import HairTraits
from .makeup import MakeUp, apply_makeup, sample_makeup
from .mesh import triple
from .noise import scattered, smooth_noise
from .scalp import CENTRE, Line, capsule
from .surface import Surface, ramp, spot, surface

# Skin colours in sRGB from very little to very much melanin: our choice after published swatches.
TONES = (
    (241, 212, 198),
    (232, 192, 170),
    (217, 171, 143),
    (197, 145, 113),
    (166, 114, 84),
    (127, 83, 60),
    (90, 58, 43),
    (60, 39, 31),
)
BLOOD = np.array([0.04, 0.62, 0.52], np.float32)  # absorption of red, green and blue by blood


@dataclass(frozen=True)
class SkinTraits:
    """The skin of a person. Values are 0..1 unless a comment says otherwise."""

    melanin: float
    redness: float  # blood in nose, cheeks, ears and chin
    undertone: float  # -1 rosy .. 1 yellow
    blotches: float
    roughness: float  # pores and unevenness
    freckles: float
    moles: int  # how many
    pimples: int  # how many
    dark_circles: float
    wrinkles: float
    oil: float  # shine
    lip_color: float  # 0 pale .. 1 red
    lip_melanin: float  # added to that of the skin
    stubble: float  # shade of a shaved or short beard
    scalp: float  # shade of hair on the scalp
    brows: float  # shade below the hair of the brows
    hair_color: tuple[float, float, float]  # linear RGB, of scalp and brows
    beard_color: tuple[float, float, float]  # linear RGB
    recession: float  # as in `scalp.Line`
    thinning: float  # as in `scalp.Line`
    makeup: MakeUp


@dataclass(frozen=True)
class SkinMaps:
    """Texture maps of skin: `albedo` (s, s, 3) uint8 sRGB; `height` (s, s) in millimetres; `gloss` (s, s) 0..1;
    `creases` (s, s, 3) in millimetres, added to the height with weights 0..1 of smile, raised brows and frown."""

    albedo: np.ndarray
    height: np.ndarray
    gloss: np.ndarray
    creases: np.ndarray


def sample_skin_traits(rng: np.random.Generator, age: float, sex: float, ancestry: np.ndarray, pool: str) -> SkinTraits:
    """Random skin for `age` 0..1 (5 .. 85 years), `sex` 0..1 (female .. male), `ancestry` (3,): African, Asian and
    European shares.

    In the moderate pool, freckles, moles, pimples and blotches are stronger. `with_hair` adds the shades of hair.
    """
    african, asian, european = np.asarray(ancestry, float) / np.sum(ancestry)
    rich = 1.4 if pool == "moderate" else 1.0
    # Each ancestry has a wide range; together the Asian and European ones extend from Morocco to Indonesia.
    melanin = african * rng.beta(4, 1.7) + asian * (0.12 + 0.6 * rng.beta(1.5, 2.6))
    melanin += european * (0.02 + 0.62 * rng.beta(1.1, 2.6))
    fair = float(ramp(0.5, 0.1, np.float32(melanin)))
    old = float(ramp(0.42, 0.95, np.float32(age)))
    child = float(ramp(0.14, 0.04, np.float32(age)))
    teen = float(np.exp(-(((age - 0.14) / 0.06) ** 2)))
    return SkinTraits(
        melanin=float(np.clip(melanin, 0, 1)),
        redness=float(rng.beta(2, 2.5) * (0.8 + 0.4 * fair) * (1 + 0.2 * child)),
        undertone=float(np.clip(rng.normal(0.15 + 0.35 * asian, 0.4), -1, 1)),
        blotches=float(np.clip(rng.beta(1.8, 2.5) * rich * (1 - 0.5 * child) * (1 + 0.4 * old), 0, 1)),
        roughness=float(np.clip(rng.beta(2.2, 2.2) * (1 - 0.7 * child) * (0.85 + 0.3 * sex) + 0.2 * old, 0, 1)),
        freckles=float(fair * rng.beta(0.5, 2.2) * rich if rng.random() < 0.55 else 0),
        moles=int(rng.poisson(3.5 * rich)),
        pimples=int(rng.poisson(0.6 * rich + 9 * teen * rng.random())),
        dark_circles=float(rng.beta(1.6, 2.4) * (0.7 + 0.5 * old) * (1 - 0.6 * child)),
        wrinkles=float(np.clip(old * rng.uniform(0.55, 1.1) + 0.12 * rng.random() * (1 - child), 0, 1)),
        oil=float(rng.beta(2.2, 2.4)),
        lip_color=float(rng.beta(2.2, 2) * (1 - 0.4 * old)),
        lip_melanin=float(0.04 + 0.1 * rng.random() + 0.06 * african * rng.random()),
        stubble=0.0,
        scalp=0.0,
        brows=float(rng.uniform(0.1, 0.35)),
        hair_color=(0.02, 0.014, 0.01),
        beard_color=(0.02, 0.014, 0.01),
        recession=0.0,
        thinning=0.0,
        makeup=sample_makeup(rng, age, sex, pool),
    )


def with_hair(traits: SkinTraits, hair: HairTraits, sex: float, rng: np.random.Generator) -> SkinTraits:
    """Add the shades of a person's hair to skin: scalp, and stubble of a grown or shaved beard. `sex` 0..1."""
    grown = bool(hair.face.beard)
    shaved = float(rng.beta(1, 1.8)) if sex > 0.5 else 0.0
    gray = 0.35
    beard = np.asarray(hair.face.color) * (1 - hair.face.beard_grey) + gray * hair.face.beard_grey
    scalp = {"bald": 0.35 * float(rng.random()), "cropped": 0.75}.get(hair.style, 0.85)
    return replace(
        traits,
        stubble=0.6 if grown else shaved * (hair.face.color[0] < 0.25),
        scalp=scalp,
        hair_color=triple(np.asarray(hair.color) * (1 - hair.grey) + gray * hair.grey),
        beard_color=triple(beard),
        recession=hair.recession,
        thinning=hair.thinning,
    )


def polished(traits: SkinTraits) -> SkinTraits:
    """Even skin with few pores and marks, for the styles of computer graphics."""
    return replace(
        traits,
        blotches=0.1,
        roughness=0.05,
        freckles=0.0,
        moles=0,
        pimples=0,
        dark_circles=0.0,
        wrinkles=0.3 * traits.wrinkles,
        redness=0.5 * traits.redness,
    )


def _tone(melanin: np.ndarray) -> np.ndarray:
    """Linear colour (n, 3) of skin by its melanin (n,) 0..1."""
    anchors = np.log(to_linear(np.array(TONES) / 255))
    at = (0, 0.13, 0.26, 0.39, 0.52, 0.65, 0.82, 1)
    grid = np.linspace(0, 1, 512)
    table = np.exp(np.stack([np.interp(grid, at, anchors[:, c]) for c in range(3)], 1)).astype(np.float32)
    return table[(np.clip(melanin, 0, 1) * 511).astype(np.int32)]


def _scalp(canvas: Surface, traits: SkinTraits, rng: np.random.Generator) -> np.ndarray:
    """Density of hair on the head (n,) 0..1."""
    azimuth, slope, _, _ = capsule(canvas.points, CENTRE, np.ones(3, np.float32))
    line = Line(traits.recession, traits.thinning, rng.uniform(0, 2 * np.pi, 4))
    return (line.density(azimuth, slope) * (1 - canvas.ears)).astype(np.float32)


def _beard(canvas: Surface, noise: np.ndarray) -> np.ndarray:
    """Density of a full beard (n,) 0..1."""
    y, z = canvas.points[:, 1], canvas.points[:, 2]
    top = np.interp(canvas.side, (0, 0.17, 0.26, 0.36, 0.5, 0.62, 0.7), (6.83, 6.83, 6.77, 6.66, 6.68, 6.86, 7.02))
    low = ramp(5.9, 6.12, y + 0.1 * noise)
    upper = ramp(0.05, -0.05, y - top + 0.06 * noise)
    bare = np.exp(-(((canvas.side - 0.13) / 0.05) ** 2 + ((y - 6.44) / 0.035) ** 2))  # beside the soul patch
    return upper * low * ramp(0.42, 0.6, z) * (1 - canvas.ears) * (1 - ramp(0.1, 0.5, canvas.lips)) * (1 - 0.6 * bare)


def _marks(canvas: Surface, count: int, radius: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """`count` small round marks at random places of face and neck, (n,) 0..1; range of `radius` in decimetres."""
    out = np.zeros(len(canvas.points), np.float32)
    front = np.flatnonzero((canvas.points[:, 2] > 0.5) & (canvas.points[:, 1] > 5.6) & (canvas.mouth < 0.1))
    for _ in range(count):
        offset = canvas.points - canvas.points[rng.choice(front)]
        near = (offset**2).sum(1) / rng.uniform(*radius) ** 2
        np.maximum(out, rng.uniform(0.5, 1) * np.exp(-(near**1.5)), out=out)
    return out


def paint(traits: SkinTraits, age: float, rng: np.random.Generator, size: int = 512) -> SkinMaps:
    """Paint the skin of a person; `age` 0..1 (5 .. 85 years), `size`: side of the maps in pixels."""
    canvas = surface(size)
    points, y, z = canvas.points, canvas.points[:, 1], canvas.points[:, 2]
    coarse, middle = smooth_noise(points, 2.2, rng, 2), smooth_noise(points, 8, rng, 2)
    fine, grain = smooth_noise(points, 24, rng, 2), smooth_noise(points, 62, rng)
    patches = smooth_noise(points, 4.5, rng, 3)
    moving, static = creases(canvas, traits.wrinkles, rng)

    nose = spot(canvas, 0, 6.93, 1.63, 0.17) + 0.8 * spot(canvas, 0.16, 6.89, 1.48, 0.1)
    cheeks = spot(canvas, 0.44, 6.95, 1.2, (0.22, 0.2, 0.35))
    chin = spot(canvas, 0, 6.3, 1.45, (0.2, 0.14, 0.3))
    below_eye = spot(canvas, 0.29, 7.155, 1.35, (0.13, 0.055, 0.16)) + 0.6 * spot(canvas, 0.19, 7.22, 1.36, 0.06)
    sockets = spot(canvas, 0.3, 7.3, 1.36, (0.2, 0.13, 0.2))
    around_mouth = spot(canvas, 0, 6.6, 1.5, (0.42, 0.24, 0.4))
    hollow = ramp(0.17, 0.15, np.hypot(np.hypot(canvas.side - 0.308, y - 7.284), z - 1.245))  # inner edge of the lids
    lips = canvas.lips * (1 - canvas.mouth)

    # Melanin.
    rough = 0.6 + 0.8 * traits.roughness
    uneven = 0.6 + 0.7 * traits.blotches
    pigment = traits.melanin + uneven * (0.014 * coarse + 0.018 * middle) + rough * (0.022 * fine + 0.02 * grain)
    pigment += traits.melanin * (1 - traits.melanin) * (0.22 * sockets + 0.18 * around_mouth) * rng.uniform(0, 1)
    pigment += 0.035 * ramp(7.4, 7.7, y) * ramp(0.9, 1.2, z) + 0.06 * traits.dark_circles * below_eye
    pigment -= 0.05 * ramp(6.2, 5.9, y)
    if traits.freckles:
        place = np.clip(spot(canvas, 0.3, 7.0, 1.35, (0.35, 0.22, 0.4)) + 0.7 * nose + 0.12 + 0.4 * coarse, 0, 1)
        for frequency in (16, 29):
            distance, lot = scattered(points, frequency, rng)
            size_of = ramp(0.32, 0.1, distance * frequency / (0.4 + lot))
            pigment += 0.3 * traits.freckles**0.5 * place * (lot < 0.3 + 0.5 * traits.freckles) * size_of
    if age > 0.65:
        distance, lot = scattered(points, 4.5, rng)
        pigment += (age - 0.6) * 0.5 * (lot < 0.35) * ramp(0.06, 0.03, distance / (0.4 + 1.5 * lot) + 0.02 * fine)
    moles = _marks(canvas, traits.moles, (0.006, 0.017), rng)
    pigment += moles * (0.3 + 0.15 * (1 - traits.melanin))

    # Blood.
    flush = 0.62 * nose + 0.6 * cheeks * (1 + 0.8 * patches) + 0.28 * chin + 0.55 * canvas.ears
    blood = 0.12 + traits.redness * flush
    blood += traits.blotches * (0.3 * patches + 0.22 * middle) + 0.1 * fine * rough + 0.16 * sockets
    blood += 0.22 * traits.dark_circles * below_eye + 0.7 * hollow
    pimples = _marks(canvas, traits.pimples, (0.009, 0.02), rng)
    blood += 0.9 * pimples * (1 - lips)
    if traits.wrinkles > 0.4 and traits.redness > 0.4:  # visible small vessels on cheeks and nose
        vessels = ramp(0.1, 0.0, np.abs(smooth_noise(points, 26, rng, 2)))
        blood += 0.5 * (traits.wrinkles - 0.3) * vessels * (cheeks + nose)
    color = _tone(pigment) * np.exp(-blood[:, None] * BLOOD * (1 - 0.45 * traits.melanin))
    warm = traits.undertone + 0.2 * coarse
    color *= np.exp(warm[:, None] * np.array([0.0, 0.005, -0.11], np.float32))
    color *= 1 - (0.1 * traits.dark_circles * below_eye)[:, None] * np.array([1.1, 1.0, 0.6], np.float32)

    # Lips: red, with vertical lines and a soft, slightly paler rim.
    lines = smooth_noise(points * [1, 0.16, 0.3] + 0.004 * middle[:, None], 46, rng, 2)
    lip_pigment = traits.melanin + traits.lip_melanin * (0.5 + 0.6 * traits.melanin)
    upper = ramp(6.58, 6.66, y)
    lip_blood = 0.4 + 0.65 * traits.lip_color + 0.12 * lines + 0.15 * middle + 0.06 * fine - 0.1 * (1 - upper)
    lip = _tone(lip_pigment + 0.05 * upper + 0.02 * lines) * np.exp(-lip_blood[:, None] * BLOOD * [2.2, 1.1, 0.95])
    edge = ramp(0.2, 1.0, lips + 0.12 * fine + 0.08 * middle)
    color *= 1 + (0.08 * (1 - edge) * ramp(0.02, 0.2, lips))[:, None]
    color += (lip - color) * edge[:, None]

    # Stubble, scalp and the skin below the brows.
    beard, scalp = _beard(canvas, patches), _scalp(canvas, traits, rng)
    brow = np.interp(canvas.side, (0.1, 0.2, 0.36, 0.5), (7.4, 7.42, 7.445, 7.39))
    brows = np.exp(-(((y - brow) / 0.035) ** 2)) * ramp(0.08, 0.14, canvas.side) * ramp(0.52, 0.44, canvas.side)
    distance, lot = scattered(points, 75, rng)
    dots = ramp(0.0065, 0.002, distance) * (0.3 + 0.7 * lot)
    areas = (
        (traits.stubble * beard, 0.62, traits.beard_color),
        (traits.scalp * scalp, 0.85, traits.hair_color),
        (traits.brows * brows * (z > 1), 0.6, traits.hair_color),
    )
    for amount, dark, tint in areas:
        hair = np.asarray(tint, np.float32)
        under_skin = color * np.array([0.56, 0.56, 0.62], np.float32) + 0.35 * hair
        cover = np.clip(amount * (dark + 0.25 * fine) + amount * 0.5 * dots, 0, 0.92)[:, None]
        shade = (1 - 0.6 * amount[:, None]) * under_skin + 0.6 * amount[:, None] * hair
        color += (np.minimum(shade, color) - color) * cover

    # Folds are slightly darker and redder.
    color *= np.exp(0.35 * np.minimum(static, 0))[:, None] ** np.array([0.7, 1.1, 1.1], np.float32)
    color, shine = apply_makeup(traits.makeup, canvas, color, edge, beard, rng)

    # Inside of the mouth: wet and red, darker towards the throat.
    depth = ramp(0.5, 1.4, z)
    wet = np.array([0.36, 0.085, 0.08], np.float32) * (0.12 + 0.88 * depth * (1 + 0.2 * middle))[:, None]
    inside = ramp(0.2, 0.8, canvas.mouth)[:, None]
    color += (wet - color) * inside

    pores = ramp(0.2, 0.9, smooth_noise(points, 44, rng)) * (0.5 + nose + 0.6 * cheeks + 0.3 * chin)
    height = static + rough * (0.035 * fine + 0.02 * grain - 0.07 * traits.roughness * pores) * (1 - edge)
    height += 0.12 * lines * edge + 0.18 * pimples + 0.12 * moles + 0.05 * traits.stubble * beard * dots
    oily = 0.16 * nose + 0.1 * ramp(7.45, 7.7, y) * (z > 1) + 0.06 * cheeks
    gloss = 0.14 + traits.oil * (0.22 + oily) + 0.05 * middle - 0.06 * pores + 0.1 * scalp * (1 - traits.scalp)
    gloss = gloss + edge * (0.12 - 0.06 * lines) + shine
    gloss += (0.75 - gloss) * np.maximum(inside[:, 0], hollow)
    return SkinMaps(
        canvas.spread(to_srgb8(color)),
        canvas.spread((height * (1 - inside[:, 0])).astype(np.float32)),
        canvas.spread(np.clip(gloss, 0, 1).astype(np.float32)),
        canvas.spread(moving),
    )
