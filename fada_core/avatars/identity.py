"""Who an avatar is: every parameter of a face, its hair, clothes and background, and how they are drawn by chance."""

import colorsys
from dataclasses import dataclass

import torch

Color = tuple[float, float, float]
HAIR_STYLES = (
    "short", "side part", "quiff", "curly", "afro", "bob", "long", "wavy", "bun", "ponytail", "pigtails", "buzz",
    "bald",
)  # fmt: skip
CLOTHES = ("tee", "v-neck", "hoodie", "shirt", "blazer", "turtleneck", "stripes", "overalls")
BACKGROUNDS = ("plain", "glow", "halo", "bokeh", "waves", "window", "stripes", "hills")

_SKINS = ("ffe0cc", "fcd5ba", "f6c6a4", "eab38d", "dba077", "c98a60", "b0734c", "935b3a", "77472d", "5c3723")
_HAIRS = (
    "241c1f", "35251f", "4d3226", "6b4429", "8a5a33", "b07d45", "d8a95b", "ecca86", "a8492b", "c9653a", "8f8c90",
    "d9d6d2",
)  # fmt: skip
_IRISES = ("5a3a22", "6f4a28", "8a6a35", "4f7a4a", "3f7f86", "4a7fb5", "6c87a0", "3a2a22")
_CLOTHES = ("e4572e", "f2a541", "f4d35e", "5fa777", "2a9d8f", "3d7ea6", "35508a", "6a4c93", "b5557f", "e88d9d",
            "3b3f4a", "f3efe6", "8d6a54", "a3c4bc", "c0392b", "7f9c5a")  # fmt: skip
_BACKGROUNDS = ("f7d9c4", "f2e3bc", "cfe3d4", "bfdcea", "cdd3ee", "e3cfe8", "f3c9cf", "d7dde2", "a9cbd6", "f0b89a",
                "8fb7a8", "9aa8cf", "5f7a96", "6d8f80", "b98a9c", "47566b")  # fmt: skip


def _rgb(text: str) -> Color:
    return int(text[0:2], 16) / 255, int(text[2:4], 16) / 255, int(text[4:6], 16) / 255


@dataclass
class Identity:
    """One avatar. Lengths are in half images (the picture spans -1..1) from the point between the eyes."""

    skin: Color
    hair: Color
    iris: Color
    lips: Color
    brow: Color
    clothes: Color
    accent: Color
    background: Color
    background_2: Color
    hair_style: str
    clothes_kind: str
    background_kind: str
    scale: float  # of the whole head
    face_width: float
    face_top: float
    face_chin: float
    jaw_power: float  # 2 = oval, 3 = square
    jaw_taper: float  # 0 = as wide as the cheeks, 0.3 = pointed
    ear_size: float
    eye_gap: float  # from the middle to an eye
    eye_y: float
    eye_width: float
    eye_height: float
    eye_tilt: float
    iris_size: float
    lash: float  # 0..1
    brow_y: float
    brow_thick: float
    brow_arch: float
    brow_tilt: float
    nose_y: float
    nose_width: float
    nose_length: float
    mouth_y: float
    mouth_width: float
    lip_upper: float
    lip_lower: float
    smile: float
    blush: float
    freckles: float
    hairline: float
    parting: float  # -1..1
    volume: float
    hair_length: float
    curl_phase: float
    neck_width: float
    shoulder_width: float
    glasses: str  # none | round | square
    glasses_color: Color
    beard: str  # none | stubble | moustache | full
    mask: str  # none | surgical
    mask_color: Color
    earrings: bool


def _mix(a: Color, b: Color, amount: float) -> Color:
    return a[0] + (b[0] - a[0]) * amount, a[1] + (b[1] - a[1]) * amount, a[2] + (b[2] - a[2]) * amount


def sample_identity(generator: torch.Generator, pool: str = "high") -> Identity:
    """Draw an avatar. `moderate` adds odd colours and proportions, glasses, beards and masks."""
    odd = pool == "moderate"

    def uniform(low: float, high: float) -> float:
        if odd:  # wider than life
            low, high = low - 0.25 * (high - low), high + 0.25 * (high - low)
        return low + (high - low) * float(torch.rand((), generator=generator))

    def chance(probability: float) -> bool:
        return float(torch.rand((), generator=generator)) < probability

    def choose(options: tuple[str, ...]) -> str:
        return options[int(torch.randint(len(options), (), generator=generator))]

    def vivid(saturation: float, value: float) -> Color:
        return colorsys.hsv_to_rgb(float(torch.rand((), generator=generator)), saturation, value)

    skin_index = int(torch.randint(len(_SKINS), (), generator=generator))
    skin = _rgb(_SKINS[skin_index])
    skin = _mix(skin, _rgb(_SKINS[max(0, skin_index - 1)]), float(torch.rand((), generator=generator)))
    hair = _rgb(
        _HAIRS[int(torch.randint(5 if skin_index > 5 and chance(0.85) else len(_HAIRS), (), generator=generator))]
    )
    if odd and chance(0.25):
        skin = vivid(0.35, 0.85)
    if chance(0.4 if odd else 0.04):
        hair = vivid(0.55, 0.75)
    feminine = chance(0.5)
    styles = (
        HAIR_STYLES[3:11] if feminine else HAIR_STYLES[:5] + HAIR_STYLES[11:] + ("short", "side part", "quiff", "long")
    )
    lips = _mix(skin, (0.74, 0.24, 0.27), uniform(0.5, 0.75) if feminine else uniform(0.32, 0.5))
    if feminine and chance(0.3):
        lips = _mix(lips, choose_color(generator, ("c2263f", "b0305c", "d2553f", "8e2f4b")), 0.6)
    clothes_index = int(torch.randint(len(_CLOTHES), (), generator=generator))
    accent_index = (clothes_index + 1 + int(torch.randint(len(_CLOTHES) - 1, (), generator=generator))) % len(_CLOTHES)
    background = choose_color(generator, _BACKGROUNDS)
    eyes = uniform(1.1, 1.3) if odd and chance(0.3) else 1.0  # as large as in a cartoon
    dark_brow = _mix(hair, (0.16, 0.1, 0.09), 0.35)
    return Identity(
        skin=skin,
        hair=hair,
        iris=choose_color(generator, _IRISES[:3] + _IRISES[7:] if skin_index > 5 else _IRISES),
        lips=lips,
        brow=_mix(dark_brow, skin, 0.12),
        clothes=_rgb(_CLOTHES[clothes_index]),
        accent=_rgb(_CLOTHES[accent_index]),
        background=background,
        background_2=_mix(background, choose_color(generator, _BACKGROUNDS), 0.6),
        hair_style=choose(styles),
        clothes_kind=choose(CLOTHES),
        background_kind=choose(BACKGROUNDS),
        scale=uniform(0.97, 1.05),
        face_width=uniform(0.43, 0.48),
        face_top=uniform(0.55, 0.6),
        face_chin=uniform(0.58, 0.63),
        jaw_power=uniform(2.0, 2.35) if feminine else uniform(2.2, 2.8),
        jaw_taper=uniform(0.1, 0.26) if feminine else uniform(0.0, 0.18),
        ear_size=uniform(0.9, 1.15),
        eye_gap=uniform(0.185, 0.21),
        eye_y=uniform(-0.01, 0.03),
        eye_width=uniform(0.098, 0.115) * eyes,
        eye_height=(uniform(0.062, 0.082) + (0.008 if feminine else 0.0)) * eyes,
        eye_tilt=uniform(-0.06, 0.16),
        iris_size=uniform(0.058, 0.066) * eyes,
        lash=uniform(0.6, 1.0) if feminine else uniform(0.0, 0.25),
        brow_y=uniform(-0.165, -0.14),
        brow_thick=uniform(0.012, 0.02) if feminine else uniform(0.018, 0.03),
        brow_arch=uniform(0.02, 0.05),
        brow_tilt=uniform(-0.12, 0.12),
        nose_y=uniform(0.165, 0.195),
        nose_width=uniform(0.055, 0.085),
        nose_length=uniform(0.13, 0.19),
        mouth_y=uniform(0.325, 0.35),
        mouth_width=uniform(0.205, 0.245),
        lip_upper=uniform(0.03, 0.045),
        lip_lower=uniform(0.04, 0.06),
        smile=uniform(0.008, 0.04),
        blush=uniform(0.1, 0.4) if feminine else uniform(0.0, 0.2),
        freckles=1.0 if chance(0.1) else 0.0,
        hairline=uniform(-0.36, -0.28),
        parting=uniform(-0.7, 0.7),
        volume=uniform(0.045, 0.085),
        hair_length=uniform(0.0, 1.0),
        curl_phase=uniform(0.0, 6.28),
        neck_width=uniform(0.19, 0.22) if feminine else uniform(0.23, 0.28),
        shoulder_width=uniform(0.74, 0.84) if feminine else uniform(0.84, 0.98),
        glasses=choose(("round", "square")) if odd and chance(0.3) else "none",
        glasses_color=_mix(vivid(0.5, 0.4), (0.1, 0.1, 0.12), 0.6),
        beard=choose(("stubble", "moustache", "full")) if odd and not feminine and chance(0.5) else "none",
        mask="surgical" if odd and chance(0.08) else "none",
        mask_color=choose_color(generator, ("9fd0dc", "f2f4f5", "41464f", "b9c9ea")),
        earrings=feminine and chance(0.4),
    )


def choose_color(generator: torch.Generator, palette: tuple[str, ...]) -> Color:
    """One colour of `palette` (hexadecimal texts), nudged a little so that no two are equal."""
    base = _rgb(palette[int(torch.randint(len(palette), (), generator=generator))])
    nudge = (torch.rand(3, generator=generator) - 0.5) * 0.06
    return tuple(min(1.0, max(0.0, channel + float(step))) for channel, step in zip(base, nudge, strict=True))  # type: ignore[return-value]
