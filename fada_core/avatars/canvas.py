"""Painting with implicit shapes: a field is negative inside its shape, a canvas composites shapes with smooth edges."""

import torch

from .identity import Color


def coverage(field: torch.Tensor) -> torch.Tensor:
    """(..., h, w) field on a pixel grid -> coverage 0..1, with an edge one pixel wide at any scale of the field."""
    dx, dy = torch.empty_like(field), torch.empty_like(field)
    torch.sub(field[..., 2:], field[..., :-2], out=dx[..., 1:-1])
    torch.sub(field[..., 2:, :], field[..., :-2, :], out=dy[..., 1:-1, :])
    dx[..., 0], dx[..., -1] = dx[..., 1], dx[..., -2]
    dy[..., 0, :], dy[..., -1, :] = dy[..., 1, :], dy[..., -2, :]
    per_pixel = dx.mul_(dx).addcmul_(dy, dy).clamp_(min=1e-12).rsqrt_()  # half of one over the gradient
    return per_pixel.mul_(field).mul_(-2).add_(0.5).clamp_(0, 1)


def soft(field: torch.Tensor, width: float) -> torch.Tensor:
    """Like `coverage`, but fading over `width` (in the field's unit) around the edge."""
    t = (0.5 - field / width).clamp(0, 1)
    return t * t * (3 - 2 * t)


def ellipse(u: torch.Tensor, v: torch.Tensor, x: float, y: float, a: float, b: float) -> torch.Tensor:
    """Ellipse around (x, y) with half axes a and b; near its edge the field is the distance."""
    p, q = (u - x) / a, (v - y) / b
    radius = (p * p + q * q).sqrt()
    return radius * (radius - 1) / ((p / a).square() + (q / b).square()).sqrt().clamp(min=1e-6)


def capsule(
    u: torch.Tensor, v: torch.Tensor, x0: float, y0: float, x1: float, y1: float, radius: float
) -> torch.Tensor:
    """A line from (x0, y0) to (x1, y1) with round ends."""
    dx, dy = x1 - x0, y1 - y0
    t = (((u - x0) * dx + (v - y0) * dy) / (dx * dx + dy * dy)).clamp(0, 1)
    return ((u - x0 - t * dx).square() + (v - y0 - t * dy).square()).sqrt() - radius


def box(u: torch.Tensor, v: torch.Tensor, x: float, y: float, a: float, b: float, radius: float) -> torch.Tensor:
    """A rectangle with half sides a and b and rounded corners."""
    p, q = (u - x).abs() - a + radius, (v - y).abs() - b + radius
    return (p.clamp(min=0).square() + q.clamp(min=0).square()).sqrt() + torch.maximum(p, q).clamp(max=0) - radius


def grid(size: int, extent: float, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates u (right) and v (down) of the pixel centres of a square that spans -extent..extent."""
    line = ((torch.arange(size, device=device) + 0.5) / size * 2 - 1) * extent
    v, u = torch.meshgrid(line, line, indexing="ij")
    return u, v


def scaled(color: Color, factor: float) -> Color:
    return min(1.0, color[0] * factor), min(1.0, color[1] * factor), min(1.0, color[2] * factor)


def shadow_of(skin: Color) -> Color:
    """The factor that turns skin into its shadow: darker and warmer, gentler on dark skin."""
    depth = 0.75 + 0.25 * (skin[0] + skin[1] + skin[2]) / 3
    return 1 - 0.16 * depth, 1 - 0.32 * depth, 1 - 0.34 * depth


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
        self.rgb = torch.lerp(self.rgb, color.expand_as(self.rgb), cover)
        self.alpha = self.alpha + (1 - self.alpha) * cover

    def shade(self, factor: Color, amount: torch.Tensor) -> None:
        """Multiply what is there by `factor` where `amount` (h, w) says; nothing appears outside it."""
        self.rgb = torch.addcmul(
            self.rgb, self.rgb * amount, torch.tensor(factor, device=amount.device)[:, None, None] - 1
        )

    def rgba(self) -> torch.Tensor:
        """(4, h, w) premultiplied."""
        return torch.cat([self.rgb, self.alpha[None]])
