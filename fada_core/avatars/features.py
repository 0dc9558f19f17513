"""The parts of a face that change from frame to frame: eyes, brows and mouth, drawn over crops of a batch of frames."""

import torch

from .canvas import coverage
from .identity import Color, Identity


def _over(image: torch.Tensor, color: Color | torch.Tensor, cover: torch.Tensor) -> torch.Tensor:
    """`color` over `image` (n, 3, h, w) where `cover` (n, h, w) says."""
    if not isinstance(color, torch.Tensor):
        color = torch.tensor(color, device=image.device)[:, None, None]
    return torch.lerp(image, color.expand_as(image), cover[:, None])


def _times(image: torch.Tensor, factor: Color, amount: torch.Tensor) -> torch.Tensor:
    """Multiply `image` (n, 3, h, w) by `factor` where `amount` (n, h, w) says."""
    return torch.addcmul(image, image * amount[:, None], torch.tensor(factor, device=image.device)[:, None, None] - 1)


def draw_eye(
    image: torch.Tensor,
    u: torch.Tensor,
    v: torch.Tensor,
    who: Identity,
    side: int,
    blink: torch.Tensor,
    gaze: torch.Tensor,
    brow: torch.Tensor,
    openness: torch.Tensor,
) -> torch.Tensor:
    """One eye (`side` -1 = left in the picture) and its brow.

    `image` (n, 3, h, w) in 0..1 and `u`, `v` (n, h, w) are a crop in face coordinates; `gaze` is (n, 2, 1, 1), the
    others are (n, 1, 1).
    """
    x = (u * side - who.eye_gap) / who.eye_width  # -1 = inner corner, 1 = outer corner
    y = v - who.eye_y + who.eye_tilt * who.eye_width * x * 0.5
    arch = 1 - x * x
    top, bottom = who.eye_height * 0.95, who.eye_height * 0.62
    arc = torch.where(arch > 0, arch.clamp(min=0) ** 0.75, arch)
    lid = -top * arc * (1 - blink) * (1 + 0.08 * brow) + bottom * arc * 0.85 * blink
    base = bottom * arc * (1 - 0.12 * openness)
    upper, lower = lid - y, y - base
    eye = coverage(torch.maximum(upper, lower))
    # The fold above the eye; the closing lid itself is skin.
    fold = coverage((y + (top + 0.026) * arc * (1 - 0.45 * blink)).abs() - 0.006 * arch.clamp(min=0))
    shade = (0.68, 0.52, 0.5)
    image = _times(image, shade, fold * 0.7)
    socket = coverage(torch.maximum(-top * arc - y, lower))
    image = _times(image, (0.93, 0.86, 0.84), socket)
    image = _over(image, (0.985, 0.98, 0.97), eye)
    image = _times(image, (0.72, 0.74, 0.82), eye * (1 - (-upper / (0.5 * who.eye_height)).clamp(0, 1)) * 0.7)
    cx, cy = who.eye_gap * side + 0.035 * gaze[:, 0], who.eye_y - 0.004 + 0.025 * gaze[:, 1]
    radius = ((u - cx).square() + (v - cy).square()).sqrt()
    iris = who.iris_size
    image = _over(image, tuple(0.42 * c for c in who.iris), eye * coverage(radius - iris))  # type: ignore[arg-type]
    glow = 0.85 + 0.55 * ((v - cy) / iris).clamp(-1, 1)
    tint = torch.tensor(who.iris, device=u.device)[:, None, None] * glow[:, None]
    image = _over(image, tint.clamp(0, 1), eye * coverage(radius - iris * 0.84))
    image = _over(image, (0.05, 0.04, 0.05), eye * coverage(radius - iris * 0.47))
    spark = ((u - cx + 0.35 * iris).square() + (v - cy + 0.38 * iris).square()).sqrt()
    image = _over(image, (1.0, 1.0, 1.0), eye * coverage(spark - iris * 0.29))
    spark = ((u - cx - 0.38 * iris).square() + (v - cy - 0.42 * iris).square()).sqrt()
    image = _over(image, (1.0, 1.0, 1.0), eye * coverage(spark - iris * 0.14) * 0.7)
    # Lash line, thicker outwards, with a wing where lashes are long.
    ink = (0.13, 0.09, 0.09)
    thick = (0.009 + 0.011 * who.lash) * (0.65 + 0.35 * x.clamp(-1, 1))
    reach = 1.06 + 0.16 * who.lash
    wing = lid - 0.05 * who.lash * (x - 0.86).clamp(min=0)
    lash = torch.maximum(
        (y - wing + 0.4 * thick).abs() - thick, (x.abs() - torch.where(x > 0, reach, 1.02)) * who.eye_width
    )
    image = _over(image, ink, coverage(lash))
    image = _times(
        image, shade, coverage(torch.maximum((y - base).abs() - 0.005, (x.abs() - 0.95) * who.eye_width)) * 0.55
    )
    bx = (u * side - who.eye_gap - 0.005) / (who.eye_width * 1.28)
    curve = (
        who.brow_y
        + who.eye_y
        - who.brow_arch * (1 - (bx - 0.1).square())
        - who.brow_tilt * 0.1 * bx
        + 0.012 * bx
        - 0.035 * brow
    )
    thickness = who.brow_thick * (1 - 0.55 * ((bx + 0.35).clamp(min=0) / 1.35))
    field = torch.maximum((v - curve).abs() - thickness, (bx.abs() - 1) * 0.12 + 0.4 * (v - curve).abs())
    return _over(image, who.brow, coverage(field) * 0.95)


def draw_mouth(
    image: torch.Tensor,
    u: torch.Tensor,
    v: torch.Tensor,
    who: Identity,
    openness: torch.Tensor,
    width: torch.Tensor,
    rounding: torch.Tensor,
) -> torch.Tensor:
    """Lips, teeth and tongue over a crop `image` (n, 3, h, w) at coordinates `u`, `v` (n, h, w)"""
    half = who.mouth_width * (1 + 0.24 * (width - 0.5) - 0.4 * rounding - 0.06 * openness)
    x = u / half
    inside = 1 - x * x
    bow = torch.where(inside > 0, inside.clamp(min=0) ** (0.72 - 0.2 * rounding), inside)
    center = who.mouth_y - who.smile * x * x * (1 - 0.6 * rounding)
    gap = 0.272 * openness
    upper, lower = center - 0.24 * gap * bow, center + 0.76 * gap * bow
    edge = 1 - (x / 1.07).square()
    rim = torch.where(edge > 0, edge.clamp(min=0) ** 0.8, edge)
    full = 1 + 0.25 * rounding
    cupid = 1 - 0.3 * torch.exp(-(u / 0.028).square()) + 0.12 * torch.exp(-((u.abs() - 0.055) / 0.035).square())
    lip_top = upper - who.lip_upper * full * rim * cupid * (1 - 0.15 * openness)
    lip_bottom = lower + who.lip_lower * full * rim * (1 - 0.15 * openness)
    top = tuple(0.9 * c for c in who.lips)
    image = _times(
        image, (0.84, 0.7, 0.68), (1 - ((v - lip_bottom - 0.02).abs() / 0.035)).clamp(0, 1) * rim.clamp(min=0) * 0.5
    )
    middle = 0.5 * (upper + lower)
    image = _over(image, top, coverage(torch.maximum(lip_top - v, v - middle)))  # type: ignore[arg-type]
    image = _over(image, who.lips, coverage(torch.maximum(middle - v, v - lip_bottom)))
    shine = (1 - ((v - 0.55 * lip_bottom - 0.45 * lower).abs() / 0.014)).clamp(0, 1) * (1 - (x / 0.55).square()).clamp(
        0, 1
    )
    image = _over(image, tuple(min(1.0, c * 1.12 + 0.12) for c in who.lips), shine * 0.55)  # type: ignore[arg-type]
    hole = coverage(torch.maximum(upper - v, v - lower)) * (gap / 0.012).clamp(max=1)
    depth = ((v - upper) / (lower - upper).clamp(min=0.01)).clamp(0, 1)
    dark = torch.tensor((0.2, 0.05, 0.07), device=u.device)[:, None, None] * (0.75 + 0.7 * depth[:, None])
    image = _over(image, dark, hole)
    tongue = coverage((u / (half * 0.72)).square() + ((v - lower - 0.015) / (0.42 * gap + 0.012)).square() - 1)
    image = _over(image, (0.76, 0.33, 0.36), hole * tongue * (gap / 0.08).clamp(max=1))
    teeth = torch.maximum(v - upper - (0.045 + 0.1 * gap) * (1 - 0.55 * x * x).clamp(min=0), u.abs() - half * 0.88)
    image = _over(image, (0.97, 0.96, 0.93), hole * coverage(teeth) * (1 - 0.75 * rounding))
    image = _times(image, (0.6, 0.45, 0.48), hole * (1 - (v - upper) / 0.025).clamp(0, 1) * 0.7)
    teeth = torch.maximum(lower - 0.03 - v, u.abs() - half * 0.6)
    image = _over(image, (0.86, 0.83, 0.8), hole * coverage(teeth) * ((gap - 0.12) / 0.1).clamp(0, 1) * 0.8)
    # The line between closed lips, and the corners.
    seam = torch.maximum((v - center).abs() - 0.0075 * (0.5 + 0.5 * inside.clamp(min=0)), (x.abs() - 1.05) * half)
    image = _over(image, tuple(0.36 * c for c in who.lips), coverage(seam) * (1 - gap / 0.03).clamp(0, 1) * 0.9)  # type: ignore[arg-type]
    corner = ((u.abs() - half * 1.04).square() + (v - center - 0.003).square()).sqrt() / 0.028
    return _times(image, (0.62, 0.48, 0.47), (1 - corner).clamp(0, 1) * 0.8)
