"""A head without eyes and mouth, painted once per identity: the hair behind it, the head itself, glasses and mask."""

import math

import torch

from .canvas import Canvas, box, capsule, coverage, ellipse, scaled, shadow_of, soft
from .identity import Color, Identity


def face_field(
    u: torch.Tensor, v: torch.Tensor, who: Identity, grow: float = 0.0, grow_top: float = 0.0
) -> torch.Tensor:
    """The outline of the face, optionally grown sideways and upwards (for hair)."""
    below = (v / who.face_chin).clamp(0, 1)
    x = u.abs() / ((who.face_width + grow) * (1 - who.jaw_taper * below * below))
    y = torch.where(v < 0, -v / (who.face_top + grow_top), v / (who.face_chin + grow))
    power = torch.where(v < 0, 2.25, who.jaw_power)
    return ((x.clamp(min=1e-4) ** power + y.clamp(min=1e-4) ** power) ** (1 / power) - 1) * 0.5


def _hair_texture(canvas: Canvas, who: Identity, cover: torch.Tensor, center_y: float) -> None:
    """Hair colour with strands, a band of light and a darker edge, laid over `cover`."""
    u, v = canvas.u, canvas.v
    canvas.paint(who.hair, cover)
    curly = who.hair_style in ("curly", "afro")
    if curly:
        a, b = 17 * u + 2.2 * torch.sin(9 * v + who.curl_phase), 17 * v + 2.2 * torch.sin(9 * u)
        strands = torch.sin(a) * torch.sin(b)
    else:
        angle = torch.atan2(u - 0.25 * who.parting, v - center_y + 0.9)
        strands = torch.sin(angle * 34 + 3 * torch.sin(3 * v + who.curl_phase)) * 0.7 + 0.3 * torch.sin(
            angle * 83 + 2 * v
        )
    canvas.shade((0.8, 0.77, 0.77), cover * (strands * 0.5 + 0.2).clamp(0, 1) * 0.55)
    radius = ((u + 0.1).square() + (v - center_y).square()).sqrt()
    light = (
        torch.exp(-((radius - 0.49) / 0.06).square())
        * torch.sigmoid((-v + center_y - 0.1) * 12)
        * torch.sigmoid((-u - 0.02) * 8 + 1)
    )
    canvas.paint(
        scaled(tuple(min(1.0, c + 0.12) for c in who.hair), 1.25),
        cover * light * (0.5 + 0.25 * strands).clamp(0, 1) * 0.55,
    )  # type: ignore[arg-type]


def hair_behind(u: torch.Tensor, v: torch.Tensor, who: Identity) -> Canvas:
    """The hair behind head and shoulders."""
    canvas = Canvas(u, v)
    reach = who.face_width + who.volume
    wave = 0.018 * torch.sin(11 * v + who.curl_phase + 2 * u)
    match who.hair_style:
        case "bob":
            field = box(u / (1 + 0.12 * v.clamp(min=0)), v, 0, -0.1, reach + 0.07, 0.58 + 0.08 * who.hair_length, 0.4)
            field = torch.maximum(field, v - 0.46 - 0.06 * who.hair_length - 0.05 * u * u)
        case "long":
            field = box(u / (1 + 0.1 * v.clamp(min=0)), v, 0, 0.2, reach + 0.08, 0.86 + 0.2 * who.hair_length, 0.45)
        case "wavy":
            field = box(
                (u.abs() + 2 * wave) / (1 + 0.16 * v.clamp(min=0)),
                v,
                0,
                0.15,
                reach + 0.11,
                0.84 + 0.15 * who.hair_length,
                0.45,
            )
        case "bun":
            field = ellipse(u, v, 0.1 * who.parting, -who.face_top - 0.13, 0.2, 0.18)
        case "ponytail":
            side = math.copysign(1, who.parting)
            field = ellipse(u - side * 0.25 * (v - 0.1).square(), v, side * (reach - 0.03), 0.22, 0.17, 0.52)
        case "pigtails":
            field = ellipse(u.abs() - 0.12 * (v - 0.3).square(), v, reach + 0.1, 0.26, 0.14, 0.36)
        case "afro":
            angle = torch.atan2(u, v + 0.2)
            field = ellipse(u, v, 0, -0.16, reach + 0.19, 0.64) + 0.014 * torch.sin(17 * angle + who.curl_phase)
        case "curly":
            angle = torch.atan2(u, v + 0.1)
            long = 0.22 * who.hair_length
            field = ellipse(u, v, 0, -0.06 + long * 0.8, reach + 0.1, 0.6 + long) + 0.02 * torch.sin(
                15 * angle + who.curl_phase
            )
        case _:
            return canvas
    _hair_texture(canvas, who, coverage(field), -0.1)
    canvas.shade((0.62, 0.6, 0.64), soft(face_field(u, v, who, 0.02) - 0.06, 0.3) * 0.85)
    canvas.shade((0.72, 0.7, 0.74), ((v - 0.1) / 0.8).clamp(0, 1) * 0.6)
    return canvas


def _hairline(u: torch.Tensor, who: Identity) -> torch.Tensor:
    """The lower edge v of the hair on the forehead and temples, over u."""
    x = u / who.face_width
    side = (x.abs() / 1.02).clamp(max=1.1) ** 7 * (0.42 + 0.1 * who.hair_length)
    match who.hair_style:
        case "side part" | "ponytail" | "wavy":
            sweep = 0.3 * (x - 0.55 * who.parting).abs().clamp(max=1.4) ** 1.6
            return who.hairline - 0.06 + sweep * 0.55 + side
        case "bob" | "pigtails":
            return -0.215 - 0.03 * who.parting + 0.014 * torch.sin(26 * u + who.curl_phase).abs() + side
        case "short":
            return who.hairline + 0.03 * torch.sin(9 * u + who.curl_phase) + 0.05 * who.parting * x + side
        case "quiff":
            return who.hairline - 0.03 + 0.07 * who.parting * x + side
        case "curly" | "afro":
            return who.hairline + 0.022 * torch.sin(21 * u + who.curl_phase) + 0.06 * x * x + side
        case "long":
            return who.hairline - 0.08 + 0.34 * (x - 0.2 * who.parting).abs().clamp(max=1.3) ** 1.8 + side * 0.8
        case _:
            return who.hairline - 0.02 + 0.05 * torch.cos(5 * x) + side


def head(u: torch.Tensor, v: torch.Tensor, who: Identity) -> Canvas:
    """Face, ears, nose, beard and the hair around the face; eyes, brows and mouth are drawn per frame."""
    canvas = Canvas(u, v)
    shadow = shadow_of(who.skin)
    width = who.face_width
    ears = ellipse(u.abs() - 0.12 * (v - 0.08), v, width * 0.99, 0.07, 0.075 * who.ear_size, 0.125 * who.ear_size)
    canvas.paint(who.skin, coverage(ears))
    canvas.shade(shadow, soft(ellipse(u.abs() - 0.12 * (v - 0.08), v, width * 1.01, 0.07, 0.04, 0.085), 0.05) * 0.8)
    if who.earrings:
        canvas.paint(
            (0.95, 0.8, 0.4), coverage(ellipse(u.abs(), v, width * 0.99, 0.07 + 0.14 * who.ear_size, 0.028, 0.028))
        )
    outline = face_field(u, v, who)
    face = coverage(outline)
    canvas.paint(who.skin, face)
    # Light from the upper left: a soft terminator on the right and under the chin.
    canvas.shade(shadow, face * (soft(-(outline + 0.06) + 0.12 * (u < 0), 0.2) * ((u + 0.15) / 0.4).clamp(0, 1) * 0.75))
    canvas.shade(shadow, face * ((v - 0.42) / 0.3).clamp(0, 1) * 0.45)
    canvas.paint(
        scaled(who.skin, 1.1), face * torch.exp(-(((u + 0.1) / 0.2).square() + ((v + 0.2) / 0.12).square())) * 0.4
    )
    blush = torch.exp(-(((u.abs() - 0.27) / 0.1).square() + ((v - 0.19) / 0.07).square()))
    canvas.paint((0.93, 0.42, 0.4), face * blush * who.blush * 0.75)
    canvas.paint(
        scaled(who.skin, 1.12),
        face * torch.exp(-(((u.abs() - 0.25) / 0.07).square() + ((v - 0.13) / 0.04).square())) * 0.3,
    )
    if who.freckles:
        dots = torch.sin(47 * u + 11 * v) * torch.sin(43 * v - 13 * u) - 0.72
        canvas.shade(shadow, face * coverage(-dots) * soft((v - 0.15).abs() - 0.07, 0.06) * soft(u.abs() - 0.3, 0.1))
    # Eye sockets and the nose: one side in shadow, a round tip, nostrils.
    socket = torch.exp(-(((u.abs() - who.eye_gap + 0.03) / 0.12).square() + ((v - who.eye_y + 0.06) / 0.08).square()))
    canvas.shade(shadow, face * socket * 0.4)
    ny, nw = who.nose_y, who.nose_width
    ridge = (
        torch.exp(-(((u - 0.03) / 0.035).square()))
        * torch.sigmoid((v - ny + who.nose_length) * 30)
        * torch.sigmoid((ny - v) * 40)
    )
    canvas.shade(shadow, face * ridge * 0.6)
    canvas.shade(shadow, face * soft(ellipse(u, v, 0.008, ny + 0.012, nw * 1.05, 0.05), 0.05) * 0.75)
    canvas.paint(who.skin, face * soft(ellipse(u, v, -0.006, ny - 0.012, nw * 0.85, 0.045), 0.05) * 0.95)
    nostrils = ellipse(u.abs(), v, nw * 0.5, ny + 0.03, nw * 0.27, 0.011)
    canvas.shade(tuple(0.55 * s for s in shadow), coverage(nostrils) * 0.8)  # type: ignore[arg-type]
    canvas.paint(
        scaled(who.skin, 1.22),
        face * torch.exp(-(((u + 0.015) / 0.018).square() + ((v - ny + 0.025) / 0.022).square())) * 0.6,
    )
    canvas.shade(shadow, face * torch.exp(-((u / 0.09).square() + ((v - who.mouth_y - 0.115) / 0.025).square())) * 0.5)
    if who.beard in ("stubble", "full"):
        cheek = who.mouth_y - 0.13 + 0.1 * (1 - (u.abs() / width)) - 0.25 * (u.abs() / width) ** 4
        region = torch.maximum(cheek - v, -ellipse(u, v, 0, who.mouth_y + 0.005, who.mouth_width * 1.02, 0.085))
        region = torch.maximum(region, face_field(u, v, who, 0.03 if who.beard == "full" else 0.0))
        canvas.paint(who.brow, soft(region, 0.03) * (0.95 if who.beard == "full" else 0.28))
    if who.beard in ("moustache", "full"):
        bush = ellipse(u, v + 0.35 * u * u - 0.25 * u.abs(), 0, who.mouth_y - 0.09, who.mouth_width * 0.85, 0.035)
        canvas.paint(who.brow, coverage(bush))
    if who.hair_style == "bald":
        canvas.paint(
            scaled(who.skin, 1.2),
            face * torch.exp(-(((u + 0.14) / 0.12).square() + ((v + 0.4) / 0.07).square())) * 0.6,
        )
        return canvas
    _front_hair(canvas, who, face, shadow)
    return canvas


def _front_hair(canvas: Canvas, who: Identity, face: torch.Tensor, shadow: Color) -> None:
    u, v = canvas.u, canvas.v
    volume = 0.012 if who.hair_style == "buzz" else who.volume
    grow_top = volume + {"quiff": 0.07, "curly": 0.06, "afro": 0.12, "wavy": 0.03}.get(who.hair_style, 0.0)
    outer = face_field(u, v, who, volume, grow_top)
    if who.hair_style in ("curly", "afro"):
        outer = outer + 0.01 * torch.sin(19 * torch.atan2(u, v + 0.1) + who.curl_phase)
    if who.hair_style == "quiff":
        outer = outer + 0.02 * (1 + torch.sin(4 * u / who.face_width + 2.2 * who.parting)) * (v < 0)
    line = v - _hairline(u, who)
    hair = torch.maximum(outer, line)
    if who.hair_style in ("long", "wavy", "bob"):
        bottom = {"bob": 0.44 + 0.06 * who.hair_length, "long": 0.9, "wavy": 0.85}[who.hair_style]
        wave = 0.02 * torch.sin(11 * v + who.curl_phase) if who.hair_style == "wavy" else 0.0
        inner = who.face_width * (0.93 + 0.1 * v.clamp(min=0)) + wave
        reach = who.face_width + volume + 0.05 + 0.06 * v.clamp(min=0) + 2 * wave
        locks = torch.maximum(torch.maximum(inner - u.abs(), u.abs() - reach), torch.maximum(v - bottom, -v - 0.25))
        hair = torch.minimum(hair, locks)
    canvas.shade(shadow, face * soft(hair - 0.035, 0.1) * 0.7)
    cover = coverage(hair)
    if who.hair_style == "buzz":
        cover = soft(hair, 0.035) * 0.85
    _hair_texture(canvas, who, cover, 0.02)
    if who.hair_style != "buzz":
        canvas.shade((0.74, 0.7, 0.72), cover * soft(-(line + 0.02), 0.09) * (v < 0.3) * 0.45)


def front(u: torch.Tensor, v: torch.Tensor, who: Identity) -> Canvas | None:
    """Glasses and mask, which cover eyes and mouth; None where the avatar wears neither."""
    if who.glasses == "none" and who.mask == "none":
        return None
    canvas = Canvas(u, v)
    if who.mask == "surgical":
        cloth = torch.maximum(face_field(u, v, who, 0.012), who.nose_y - 0.09 + 0.12 * u.abs() - v)
        cloth = torch.maximum(cloth, u.abs() - who.face_width * 0.9)
        canvas.paint(who.mask_color, coverage(cloth))
        canvas.shade((0.82, 0.84, 0.88), coverage(cloth) * (0.5 + 0.5 * torch.sin((v + 0.25 * u * u) * 55)) * 0.5)
        canvas.shade((0.8, 0.82, 0.86), coverage(cloth) * ((u + 0.1) / 0.5).clamp(0, 1))
        strap = capsule(u.abs(), v, who.face_width * 0.85, who.nose_y, who.face_width * 1.02, 0.05, 0.012)
        canvas.paint(who.mask_color, coverage(strap))
    if who.glasses != "none":
        if who.glasses == "round":
            rim = ellipse(u.abs(), v, who.eye_gap, who.eye_y + 0.01, 0.15, 0.14)
        else:
            rim = box(u.abs(), v, who.eye_gap, who.eye_y + 0.01, 0.155, 0.115, 0.04)
        canvas.paint((1.0, 1.0, 1.0), coverage(rim) * (0.08 + 0.14 * soft((u - 0.6 * v).abs() % 0.4 - 0.05, 0.02)))
        bridge = torch.maximum((v - who.eye_y + 0.02 - 0.4 * u * u).abs() - 0.013, u.abs() - who.eye_gap + 0.14)
        arms = torch.maximum((v - who.eye_y + 0.02).abs() - 0.014, (u.abs() - who.face_width * 0.9).abs() - 0.12)
        arms = torch.maximum(arms, who.eye_gap + 0.145 - u.abs())
        frame = torch.minimum(torch.minimum(rim.abs() - 0.015, bridge), torch.maximum(arms, u.abs() - who.face_width))
        canvas.paint(who.glasses_color, coverage(frame))
    return canvas
