"""Painting with implicit shapes: a shape is a field that is negative inside, a canvas composites shapes with smooth edges."""

import torch

from .identity import Color


def coverage(field: torch.Tensor) -> torch.Tensor:
    """(..., h, w) field on a pixel grid -> coverage 0..1, with an edge one pixel wide whatever the field's own scale."""
    dy, dx = torch.gradient(field, dim=(-2, -1))
    return (0.5 - field / (dx.square() + dy.square()).sqrt().clamp(min=1e-6)).clamp(0, 1)


def soft(field: torch.Tensor, width: float) -> torch.Tensor:
    """Like `coverage`, but fading over `width` (in the field's unit) around the edge."""
    t = (0.5 - field / width).clamp(0, 1)
    return t * t * (3 - 2 * t)


def ellipse(u: torch.Tensor, v: torch.Tensor, x: float, y: float, a: float, b: float) -> torch.Tensor:
    """Ellipse around (x, y) with half axes a and b; near its edge the field is the distance."""
    p, q = (u - x) / a, (v - y) / b
    radius = (p * p + q * q).sqrt()
    return radius * (radius - 1) / ((p / a).square() + (q / b).square()).sqrt().clamp(min=1e-6)


def capsule(u: torch.Tensor, v: torch.Tensor, x0: float, y0: float, x1: float, y1: float, radius: float) -> torch.Tensor:
    """A line from (x0, y0) to (x1, y1) with round ends."""
    dx, dy = x1 - x0, y1 - y0
    t = (((u - x0) * dx + (v - y0) * dy) / (dx * dx + dy * dy)).clamp(0, 1)
    return ((u - x0 - t * dx).square() + (v - y0 - t * dy).square()).sqrt() - radius


def box(u: torch.Tensor, v: torch.Tensor, x: float, y: float, a: float, b: float, radius: float) -> torch.Tensor:
    """A rectangle with half sides a and b and rounded corners."""
    p, q = (u - x).abs() - a + radius, (v - y).abs() - b + radius
    return (p.clamp(min=0).square() + q.clamp(min=0).square()).sqrt() + torch.maximum(p, q).clamp(max=0) - radius


class Canvas:
    """An RGBA picture over coordinates `u`, `v` (h, w) with premultiplied colours in 0..1."""

    def __init__(self, u: torch.Tensor, v: torch.Tensor) -> None:
        self.u, self.v = u, v
        self.rgb = torch.zeros(3, *u.shape, device=u.device)
        self.alpha = torch.zeros_like(u)

    def paint(self, color: Color | torch.Tensor, cover: torch.Tensor) -> None:
        """Lay `color` (3 numbers, or (3, h, w)) over the picture where `cover` (h, w) says."""
        if not isinstance(color, torch.Tensor):
            color = torch.tensor(color, device=cover.device)[:, None, None]
        self.rgb = self.rgb + (color * 1.0 - self.rgb) * cover
        self.alpha = self.alpha + (1 - self.alpha) * cover

    def shade(self, factor: Color, amount: torch.Tensor) -> None:
        """Multiply what is there by `factor` where `amount` (h, w) says; nothing appears outside it."""
        self.rgb = self.rgb * (1 + (torch.tensor(factor, device=amount.device)[:, None, None] - 1) * amount)

    def rgba(self) -> torch.Tensor:
        """(4, h, w) premultiplied."""
        return torch.cat([self.rgb, self.alpha[None]])
