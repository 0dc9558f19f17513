"""Backgrounds of portraits: rooms, foliage, sky, walls, studios, painted backdrops, streets; mostly out of focus.

Each kind is a function that composes simple shapes from back to front into a picture (size, size, 3), linear light.
`background` picks a kind and blurs its picture.
"""

import colorsys
from collections.abc import Callable

import numpy as np

from .filters import blur, smooth_field, streaks
from .surface import ramp

Range = tuple[float, float]


def _color(rng: np.random.Generator, light: Range, saturation: Range = (0.0, 0.5)) -> np.ndarray:
    """Random colour (3,) of manufactured things: warm and blue hues are the most frequent."""
    hue = (rng.normal(0.08, 0.04), rng.normal(0.58, 0.06), rng.random())[rng.choice(3, p=[0.4, 0.25, 0.35])]
    return np.array(colorsys.hsv_to_rgb(hue % 1, rng.uniform(*saturation), rng.uniform(*light)), np.float32)


def _warm(rng: np.random.Generator, light: Range) -> np.ndarray:
    """Random warm colour (3,), as of wood."""
    hue = rng.uniform(0.04, 0.13)
    return np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0.1, 0.7), rng.uniform(*light)), np.float32)


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y (size, size) from -1 to 1, y down."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    return (x + 0.5) / size * 2 - 1, (y + 0.5) / size * 2 - 1


def _box(picture: np.ndarray, x0: float, y0: float, x1: float, y1: float, color: np.ndarray) -> None:
    """Fill a rectangle with corners in -1..1."""
    n = len(picture)
    a, b, c, d = (int(round((v + 1) / 2 * n)) for v in (x0, y0, x1, y1))
    picture[max(b, 0) : max(d, 0), max(a, 0) : max(c, 0)] = color


def _discs(picture: np.ndarray, count: int, radius: Range, color: Callable, rng: np.random.Generator) -> None:
    """Add lights out of focus: flat discs, brighter at their rims."""
    n = len(picture)
    for _ in range(count):
        r = rng.uniform(*radius) * n / 2
        cx, cy = rng.uniform(-0.1, 1.1, 2) * n
        x0, x1 = max(0, int(cx - r - 2)), min(n, int(cx + r + 3))
        y0, y1 = max(0, int(cy - r - 2)), min(n, int(cy + r + 3))
        if x0 >= x1 or y0 >= y1:
            continue
        y, x = np.mgrid[y0:y1, x0:x1].astype(np.float32)
        d = np.hypot(x - cx, y - cy)
        disc = np.clip(r - d + 0.5, 0, 1) * (0.75 + 0.25 * ramp(0.7, 1.0, d / max(r, 1e-3)))
        picture[y0:y1, x0:x1] += disc[..., None] * color()


def studio(size: int, rng: np.random.Generator) -> np.ndarray:
    """A roll of studio paper with a spot of light."""
    x, y = _grid(size)
    base = _color(rng, (0.03, 0.85), (0.0, 0.35) if rng.random() < 0.75 else (0.3, 0.9))
    cx, cy = rng.uniform(-0.7, 0.7), rng.uniform(-0.6, 0.4)
    glow = np.exp(-((x - cx) ** 2 + 1.2 * (y - cy) ** 2) / rng.uniform(0.6, 3.0))
    light = rng.uniform(0.25, 0.8) + rng.uniform(0.3, 1.0) * glow
    return base * light[..., None]


def backdrop(size: int, rng: np.random.Generator) -> np.ndarray:
    """A hand-painted backdrop: clouds of two colours, lighter near the middle."""
    x, y = _grid(size)
    first = _color(rng, (0.05, 0.5), (0.1, 0.6))
    second = first * rng.uniform(0.3, 2.0) * np.exp(rng.normal(0, 0.15, 3))
    clouds = smooth_field(size, 3, rng) + 0.6 * smooth_field(size, 7, rng) + 0.35 * smooth_field(size, 18, rng)
    clouds += 0.25 * (streaks(size, rng.uniform(0, 3), 0.06 * size, 0.004 * size, rng) - 0.5)
    t = ramp(-1.5, 1.5, clouds)[..., None]
    far = np.hypot(x - rng.uniform(-0.3, 0.3), y - rng.uniform(-0.3, 0.2))
    vignette = 1 - rng.uniform(0.2, 0.75) * ramp(0.2, 1.4, far)
    return (first * (1 - t) + second * t) * vignette[..., None]


def wall(size: int, rng: np.random.Generator) -> np.ndarray:
    """Plaster or wallpaper with light falling off to one side, and sometimes framed pictures or a corner."""
    x, y = _grid(size)
    base = _color(rng, (0.2, 0.85), (0.0, 0.4))
    out = base * np.ones((size, size, 1), np.float32)
    out *= 1 + 0.04 * smooth_field(size, 5, rng)[..., None] + 0.025 * smooth_field(size, 50, rng)[..., None]
    if rng.random() < 0.3:  # stripes or a pattern
        period = rng.uniform(0.06, 0.25)
        pattern = np.cos(x * np.pi / period)
        if rng.random() < 0.5:
            pattern = pattern * np.cos(y * np.pi / period)
        out *= 1 + rng.uniform(0.05, 0.25) * np.tanh(4 * pattern)[..., None]
    if rng.random() < 0.35:
        edge, dim = rng.uniform(-0.9, 0.9), rng.uniform(0.5, 0.85)
        out *= np.where(x > edge, 1.0, dim)[..., None]
    for _ in range(int(rng.integers(0, 3))):
        w, h, cx, cy = rng.uniform(0.2, 0.5), rng.uniform(0.2, 0.6), rng.uniform(-1, 1), rng.uniform(-0.9, 0.1)
        _box(out, cx - w, cy - h, cx + w, cy + h, _warm(rng, (0.02, 0.4)))
        _box(out, cx - 0.88 * w, cy - 0.9 * h, cx + 0.88 * w, cy + 0.9 * h, _color(rng, (0.1, 0.8), (0, 0.5)))
        _box(out, cx - 0.6 * w, cy - 0.62 * h, cx + 0.6 * w, cy + 0.62 * h, _color(rng, (0.05, 0.7), (0, 0.7)))
    tilt = rng.normal(0, 0.35, 2)
    return out * np.exp(tilt[0] * x + tilt[1] * y)[..., None]


def bricks(size: int, rng: np.random.Generator) -> np.ndarray:
    """A brick or stone wall."""
    x, y = _grid(size)
    height, long = rng.uniform(0.07, 0.16), rng.uniform(2.2, 3.2)
    row = np.floor(y / height)
    along = x / (height * long) + 0.5 * (row % 2) + 0.04 * smooth_field(size, 30, rng)
    column = np.floor(along)
    lot = np.sin(row * 127.1 + column * 311.7) * 43758.5453 % 1
    u, v = along % 1, (y / height) % 1
    joint = np.minimum(np.minimum(u, 1 - u) * long, np.minimum(v, 1 - v))
    stone = ramp(0.05, 0.11, joint + 0.015 * smooth_field(size, 70, rng))
    if rng.random() < 0.6:
        base = np.array(colorsys.hsv_to_rgb(rng.uniform(0.01, 0.07), rng.uniform(0.45, 0.8), rng.uniform(0.12, 0.45)))
    else:
        base = _color(rng, (0.2, 0.8), (0.0, 0.2))
    brick = base * (1 + 0.5 * (lot - 0.5) + 0.12 * smooth_field(size, 60, rng))[..., None]
    mortar = base.mean() * rng.uniform(0.8, 1.8) * np.array([1.0, 0.97, 0.9])
    out = mortar + (brick - mortar) * stone[..., None]
    return out * np.exp(rng.normal(0, 0.4) * x + rng.normal(0, 0.3) * y)[..., None]


def books(size: int, rng: np.random.Generator) -> np.ndarray:
    """Shelves with books."""
    out = np.zeros((size, size, 3), np.float32) + 0.4 * _warm(rng, (0.02, 0.3))
    wood = _warm(rng, (0.05, 0.5))
    gap = rng.uniform(0.45, 0.8)
    y = -1 - rng.uniform(0, gap)
    while y < 1:
        x = -1.0
        while x < 1:
            if rng.random() < 0.12:
                x += rng.uniform(0.05, 0.25)
                continue
            w, h = rng.uniform(0.03, 0.1), gap * rng.uniform(0.55, 0.88)
            color = _color(rng, (0.02, 0.8), (0.2, 0.9)) ** 1.5
            _box(out, x, y + gap - h, x + w, y + gap, color)
            _box(out, x, y + gap - h, x + 0.2 * w, y + gap, 0.6 * color)
            if rng.random() < 0.5:
                _box(out, x + 0.2 * w, y + gap - 0.8 * h, x + 0.8 * w, y + gap - 0.7 * h, _color(rng, (0.3, 0.9)))
            x += w
        _box(out, -1, y + gap, 1, y + gap + 0.06, wood)
        y += gap + 0.06
    across, down = _grid(size)
    return out * np.exp(rng.normal(0, 0.3) * across - 0.2 * down)[..., None]


def room(size: int, rng: np.random.Generator) -> np.ndarray:
    """A living room or an office: walls, a window or a lamp, furniture, plants."""
    x, y = _grid(size)
    out = _color(rng, (0.15, 0.75), (0.0, 0.3)) * np.ones((size, size, 1), np.float32)
    corner, floor = rng.uniform(-1.2, 1.2), rng.uniform(0.4, 1.2)
    out *= np.where(x > corner, 1.0, rng.uniform(0.55, 0.9))[..., None]
    _box(out, -1, floor, 1, 1, _warm(rng, (0.05, 0.4)))
    if rng.random() < 0.6:  # a window with its frame, bright
        w, h, cy = rng.uniform(0.2, 0.5), rng.uniform(0.35, 0.8), rng.uniform(-0.6, 0)
        cx = rng.choice([-1, 1]) * rng.uniform(0.4, 1)
        _box(out, cx - w - 0.05, cy - h - 0.05, cx + w + 0.05, cy + h + 0.05, _color(rng, (0.3, 0.9), (0, 0.15)))
        day = np.array([0.8, 0.92, 1.0]) * rng.uniform(0.9, 2.6)
        panes = int(rng.integers(1, 4))
        for i in range(panes):
            a, b = cx - w + 2 * w * i / panes, cx - w + 2 * w * (i + 1) / panes
            _box(out, a, cy - h, b - 0.03, cy + 0.02, day)
            _box(out, a, cy + 0.05, b - 0.03, cy + h, day * rng.uniform(0.3, 0.9) * np.array([0.95, 1.0, 0.85]))
    for _ in range(int(rng.integers(1, 6))):  # furniture, shelves, frames
        w, h, cx = rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.6), rng.uniform(-1.1, 1.1)
        base = floor + rng.uniform(-0.1, 0.3)
        color = _warm(rng, (0.02, 0.45)) if rng.random() < 0.6 else _color(rng, (0.05, 0.6), (0.1, 0.7))
        _box(out, cx - w, base - 2 * h, cx + w, base, color)
        _box(out, cx - w, base - 2 * h, cx + w, base - 1.9 * h, 1.5 * color)
    if rng.random() < 0.5:
        leaves = smooth_field(size, 16, rng) > 0.7 + 3 * np.hypot(x - rng.uniform(-1, 1), y - rng.uniform(-0.3, 0.6))
        out[leaves] = np.array([0.05, 0.16, 0.04]) * rng.uniform(0.5, 1.6)
    if rng.random() < 0.5:
        lamp = np.array([1.0, 0.66, 0.34]) * rng.uniform(0.8, 3.0)
        cx, cy, r = rng.uniform(-1, 1), rng.uniform(-0.8, 0.1), rng.uniform(0.08, 0.2)
        _box(out, cx - r, cy - r, cx + r, cy + 0.8 * r, lamp)
        out += (0.25 * lamp) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 0.25)[..., None]
    return out * np.exp(rng.normal(0, 0.25) * x)[..., None]


def foliage(size: int, rng: np.random.Generator) -> np.ndarray:
    """Trees, hedges or a garden, with sky through the leaves and sunlit patches."""
    x, y = _grid(size)
    hue = rng.uniform(0.2, 0.36) if rng.random() < 0.75 else rng.uniform(0.06, 0.14)
    dark = np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0.5, 0.8), rng.uniform(0.03, 0.12)))
    light = np.array(colorsys.hsv_to_rgb(hue - rng.uniform(0, 0.06), rng.uniform(0.5, 0.85), rng.uniform(0.2, 0.6)))
    mass = smooth_field(size, 4, rng) + 0.8 * smooth_field(size, 11, rng) + 0.7 * smooth_field(size, 32, rng)
    out = dark + (light - dark) * ramp(-1.2, 1.6, mass)[..., None]
    out *= np.exp(0.35 * smooth_field(size, 70, rng))[..., None]
    sky = np.array([0.62, 0.8, 1.0]) * rng.uniform(0.8, 2.0)
    thin = smooth_field(size, 18, rng) + 0.8 * smooth_field(size, 5, rng) - rng.uniform(0.2, 1.2) * (y + 0.4)
    holes = ramp(0.9, 1.4, thin)
    out = out + (sky - out) * holes[..., None]
    if rng.random() < 0.5:
        ground = rng.uniform(0.3, 0.9)
        below = ramp(ground - 0.08, ground + 0.08, y + 0.05 * smooth_field(size, 8, rng))[..., None]
        out = out + (light * rng.uniform(0.5, 1.3) - out) * below
    if rng.random() < 0.6:
        warm = np.array([1.0, 0.95, 0.6])
        _discs(out, int(rng.integers(5, 40)), (0.02, 0.09), lambda: warm * rng.uniform(0.05, 0.6), rng)
    if rng.random() < 0.25:
        flower = _color(rng, (0.4, 0.9), (0.4, 0.9))
        _discs(out, int(rng.integers(10, 50)), (0.015, 0.05), lambda: flower * rng.uniform(0.2, 0.8), rng)
    return out


def sky(size: int, rng: np.random.Generator) -> np.ndarray:
    """Open sky with clouds over sea, hills or a plain; by day or at dusk."""
    x, y = _grid(size)
    if rng.random() < 0.65:
        top, bottom = np.array([0.16, 0.36, 0.75]), np.array([0.6, 0.75, 0.9])
    else:
        top, bottom = np.array([0.15, 0.18, 0.4]), np.array([1.0, 0.5, 0.25])
    horizon = rng.uniform(-0.1, 1.4)
    t = ramp(-1.2, horizon, y)[..., None]
    out = (top * (1 - t) + bottom * t) * rng.uniform(0.6, 1.3)
    clouds = smooth_field(size, 3, rng) + 0.6 * smooth_field(size, 7, rng) + 0.35 * smooth_field(size, 17, rng)
    clouds += 0.2 * smooth_field(size, 40, rng)
    cover = ramp(rng.uniform(-0.6, 1.2), 2.0, clouds)[..., None]
    out = out + (np.array([1.0, 0.97, 0.94]) * out.max() * (0.8 + 0.2 * cover) - out) * 0.85 * cover
    line = horizon + rng.choice([0.0, 0.12]) * smooth_field(size, 4, rng)[:1]
    land = _color(rng, (0.1, 0.4), (0.2, 0.6)) * np.exp(0.15 * smooth_field(size, 25, rng))[..., None]
    return np.where((y > line)[..., None], land, out)


def city(size: int, rng: np.random.Generator) -> np.ndarray:
    """A street: house fronts with windows by day, or lights at night."""
    x, y = _grid(size)
    night = rng.random() < 0.5
    sky_color = np.array([0.01, 0.012, 0.03]) if night else np.array([0.6, 0.72, 0.85]) * rng.uniform(0.5, 1.3)
    out = sky_color * np.ones((size, size, 1), np.float32)
    left = -1.1
    while left < 1:
        w, top = rng.uniform(0.2, 0.7), rng.uniform(-1.2, 0.1)
        front = _color(rng, (0.1, 0.6), (0.0, 0.4)) * (0.06 if night else 1.0)
        _box(out, left, top, left + w, 1, front)
        step, shop = rng.uniform(0.1, 0.2), rng.uniform(0.2, 0.6)
        lit = np.array([1.0, 0.72, 0.38]) if night else front * 0.35
        for cy in np.arange(top + step / 2, shop, step * 1.4):
            for cx in np.arange(left + step / 2, left + w - step * 0.6, step):
                if not night or rng.random() < 0.4:
                    _box(out, cx, cy, cx + 0.5 * step, cy + 0.8 * step, lit * rng.uniform(0.4, 1.4))
        if rng.random() < 0.6:
            sign = _color(rng, (0.2, 0.9), (0.4, 0.95)) * (1.2 if night else 0.8)
            _box(out, left, shop, left + w, shop + 0.12, sign)
        left += w
    out[y > rng.uniform(0.6, 1.3)] = np.array([0.12, 0.12, 0.125]) * (0.2 if night else 1.3)
    if night:
        lamps = np.array([(1.0, 0.55, 0.2), (1.0, 0.8, 0.55), (1.0, 0.12, 0.08), (0.2, 0.6, 1.0), (0.2, 1.0, 0.5)])

        def light() -> np.ndarray:
            return lamps[rng.choice(5, p=[0.4, 0.3, 0.12, 0.12, 0.06])] * rng.uniform(0.1, 1.2)

        _discs(out, int(rng.integers(15, 60)), (0.03, 0.13), light, rng)
    return out


def bokeh(size: int, rng: np.random.Generator) -> np.ndarray:
    """Discs of light over dark colours."""
    out = backdrop(size, rng) * rng.uniform(0.15, 0.7)
    hue, spread = rng.random(), rng.uniform(0.02, 0.3)

    def light() -> np.ndarray:
        color = colorsys.hsv_to_rgb((hue + rng.normal(0, spread)) % 1, rng.uniform(0.1, 0.8), rng.uniform(0.1, 0.9))
        return np.array(color, np.float32)

    big = rng.uniform(0.06, 0.25)
    _discs(out, int(rng.integers(15, 70)), (0.3 * big, big), light, rng)
    return out


def plain(size: int, rng: np.random.Generator) -> np.ndarray:
    """One colour, as in a passport photograph, or a gradient of two."""
    x, y = _grid(size)
    first = _color(rng, (0.02, 0.95), (0.0, 0.25) if rng.random() < 0.6 else (0.3, 1.0))
    if rng.random() < 0.5:
        return first * np.ones((size, size, 1), np.float32)
    second, angle = _color(rng, (0.05, 0.9), (0.0, 0.7)), rng.uniform(0, 2 * np.pi)
    t = ramp(-1.2, 1.2, x * np.cos(angle) + y * np.sin(angle))[..., None]
    return first * (1 - t) + second * t


# Kind -> relative frequency, smallest and largest blur (standard deviation in 256ths of the side).
SCENES: dict[Callable, tuple[float, float, float]] = {
    studio: (0.17, 0.0, 3.0),
    backdrop: (0.09, 0.0, 4.0),
    wall: (0.13, 0.8, 6.0),
    room: (0.18, 2.5, 11.0),
    foliage: (0.13, 2.0, 10.0),
    sky: (0.06, 0.8, 6.0),
    bricks: (0.05, 0.6, 4.0),
    books: (0.05, 1.5, 6.0),
    city: (0.06, 2.0, 9.0),
    bokeh: (0.04, 0.5, 2.0),
    plain: (0.04, 0.0, 0.0),
}


def background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A random background (size, size, 3) float32 linear, 0..4, of one of SCENES."""
    kinds = list(SCENES)
    shares = np.array([SCENES[kind][0] for kind in kinds])
    kind = kinds[rng.choice(len(kinds), p=shares / shares.sum())]
    picture = np.ascontiguousarray(kind(size, rng), np.float32)
    low, high = SCENES[kind][1:]
    picture = blur(picture, rng.uniform(low, high) * size / 256)
    return np.clip(picture * rng.uniform(0.7, 1.15), 0.0, 4.0).astype(np.float32)
