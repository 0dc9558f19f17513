"""What is behind and below a head, painted once per identity: the background, and the body with its clothes."""

import math

import torch

from .canvas import Canvas, box, capsule, coverage, ellipse, grid, scaled, shadow_of, soft
from .identity import Identity


def background(size: int, who: Identity, device: torch.device) -> torch.Tensor:
    """(3, size, size) in 0..1."""
    u, v = grid(size, 1.0, device)
    canvas = Canvas(u, v)
    full = torch.ones_like(u)
    canvas.paint(who.background, full)
    canvas.paint(who.background_2, ((v + 0.35 * u + 1) / 2).clamp(0, 1) * 0.8)
    light = scaled(who.background, 1.14)
    match who.background_kind:
        case "glow":
            canvas.paint(scaled(light, 1.1), soft((u * u + (v + 0.15).square()).sqrt() - 0.75, 0.9) * 0.7)
        case "halo":
            canvas.paint(light, coverage(ellipse(u, v, 0, -0.05, 0.86, 0.86)) * 0.8)
        case "bokeh":
            for index in range(9):
                angle = who.curl_phase + 2.4 * index
                radius = 0.1 + 0.13 * ((index * 0.618) % 1)
                disc = ellipse(u, v, 0.85 * math.cos(angle), 0.75 * math.sin(angle * 1.3) - 0.15, radius, radius)
                canvas.paint(light, soft(disc, 0.03) * 0.5)
        case "waves":
            for index in range(4):
                line = v - (-0.45 + 0.42 * index + 0.09 * torch.sin(3.2 * u + who.curl_phase + 1.7 * index))
                canvas.shade((0.93, 0.94, 0.96), coverage(-line) * 0.8)
        case "window":
            canvas.paint(
                scaled(light, 1.1), coverage(box(u, v, 0.55 * math.copysign(1, who.parting), -0.4, 0.34, 0.5, 0.04))
            )
            bars = torch.minimum((u - 0.55 * math.copysign(1, who.parting)).abs(), (v + 0.45).abs()) - 0.02
            inside = coverage(box(u, v, 0.55 * math.copysign(1, who.parting), -0.4, 0.34, 0.5, 0.04))
            canvas.paint(scaled(who.background, 0.9), coverage(bars) * inside)
        case "stripes":
            canvas.shade((0.94, 0.95, 0.96), coverage(torch.sin((u + v) * 9 + who.curl_phase) * 0.1) * 0.8)
        case "hills":
            canvas.shade((0.88, 0.92, 0.9), coverage(0.1 + 0.12 * torch.sin(2.4 * u + who.curl_phase) - v))
            canvas.shade((0.86, 0.9, 0.88), coverage(0.45 + 0.1 * torch.sin(3.1 * u + 2 * who.curl_phase) - v))
    canvas.shade((0.8, 0.8, 0.84), (((u * u + v * v).sqrt() - 0.8) / 0.8).clamp(0, 1) * 0.6)
    return canvas.rgb.clamp(0, 1)


def body(u: torch.Tensor, v: torch.Tensor, who: Identity) -> Canvas:
    """Neck, shoulders and clothes, in picture coordinates."""
    canvas = Canvas(u, v)
    top, width = 0.68, who.shoulder_width
    shadow = shadow_of(who.skin)
    neck = torch.maximum(u.abs() - who.neck_width * (1 + 0.5 * ((v - 0.45) / 0.4).clamp(0, 1).square()), 0.2 - v)
    slope = (
        top
        - 0.1 * (1 - (u.abs() / (who.neck_width * 2.2))).clamp(0, 1).square()
        + 0.24 * (u.abs() / width).clamp(max=1.2) ** 3
    )
    torso = torch.maximum(slope - v, u.abs() - width - 0.08 * (v - top).clamp(min=0))
    cloth = coverage(torso)
    canvas.paint(who.skin, torch.maximum(coverage(neck), cloth * coverage(u.abs() - who.neck_width * 2.1)))
    canvas.shade(shadow, soft(ellipse(u, v, 0.0, 0.5, who.face_width * 0.86, 0.24), 0.1) * 0.95)
    kind = who.clothes_kind
    nw = who.neck_width
    if kind in ("tee", "stripes", "overalls"):
        opening = ellipse(u, v, 0, top - 0.03, nw * 1.28, 0.15)
    elif kind == "v-neck":
        opening = u.abs() - nw * 1.25 + (v - top + 0.05) * 0.75
    elif kind in ("shirt", "blazer"):
        opening = u.abs() - nw * 1.05 + (v - top + 0.02) * 0.8
    elif kind == "hoodie":
        opening = ellipse(u, v, 0, top - 0.02, nw * 1.1, 0.13)
    else:  # turtleneck: nothing of the neck shows below its collar
        opening = torch.full_like(u, 1.0)
    base = who.accent if kind == "blazer" else who.clothes
    clothed = cloth * (1 - coverage(opening))
    canvas.paint(base, clothed)
    if kind == "stripes":
        canvas.paint(who.accent, clothed * coverage(torch.sin((v - 0.1 * u * u) * 30) * 0.03))
    if kind in ("tee", "stripes", "v-neck"):
        canvas.shade((0.84, 0.84, 0.88), clothed * soft((opening - 0.025).abs() - 0.024, 0.01))
    if kind == "overalls":
        straps = torch.minimum((u.abs() - nw * 1.75).abs() - 0.055, torch.maximum(0.9 - v, u.abs() - nw * 2.1))
        canvas.paint(who.accent, clothed * coverage(straps))
    if kind == "hoodie":
        collar = torch.maximum(
            ellipse(u, v, 0, top + 0.03, nw * 1.75, 0.24), -ellipse(u, v, 0, top - 0.04, nw * 1.1, 0.17)
        )
        collar = torch.maximum(collar, 0.56 - v)
        canvas.paint(scaled(who.clothes, 0.86), coverage(collar))
        canvas.paint(
            scaled(who.accent, 1.1), coverage(capsule(u.abs(), v, nw * 0.5, top + 0.16, nw * 0.55, 1.0, 0.014))
        )
    if kind in ("shirt", "blazer"):
        leaf = torch.maximum(
            u.abs() - nw * 1.38 + (v - top + 0.08) * 0.45, -(u.abs() - nw * 1.0 + (v - top + 0.08) * 0.92)
        )
        leaf = torch.maximum(torch.maximum(leaf, 0.53 - v), v - 0.93)
        canvas.shade((0.75, 0.75, 0.8), clothed * soft(leaf - 0.02, 0.05) * 0.7)
        canvas.paint(scaled(base, 1.07), coverage(leaf))
        canvas.paint(scaled(base, 0.75), clothed * coverage(torch.maximum(u.abs() - 0.008, 0.86 - v)))
    if kind == "blazer":
        jacket = torch.maximum(-(u.abs() - nw * 1.45 + (v - top + 0.02) * 0.62), torso)
        canvas.paint(who.clothes, coverage(jacket))
        lapel = torch.maximum(jacket, u.abs() - nw * 1.95 + (v - top - 0.02) * 0.42)
        canvas.paint(scaled(who.clothes, 0.82), coverage(lapel))
    if kind == "turtleneck":
        collar = box(u, v, 0, top - 0.02, nw * 1.16, 0.13, 0.05)
        canvas.shade((0.8, 0.8, 0.85), clothed * soft(collar - 0.03, 0.08) * 0.7)
        canvas.paint(scaled(who.clothes, 1.05), coverage(collar))
        canvas.shade((0.86, 0.86, 0.9), coverage(collar) * (0.5 + 0.5 * torch.sin(u * 90)) * 0.5)
        canvas.shade((0.78, 0.78, 0.82), coverage(collar) * soft(v - top + 0.08, 0.16) * 0.8)
    canvas.shade(
        (0.74, 0.74, 0.8), cloth * (((u + 0.1) / width).clamp(0, 1) ** 2 * 0.5 + ((v - 0.75) / 0.5).clamp(0, 1) * 0.25)
    )
    return canvas
