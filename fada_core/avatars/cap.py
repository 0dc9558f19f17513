"""The scalp cap: a tight layer of painted hair under the hair cards, so that no skin shows between them."""

import numpy as np

from .color import with_alpha
from .mesh import Material, Mesh, Part
from .scalp import Line, Skull, base, smooth, unit
from .strands import WHITE

SIZE = 256
REACH = 160.0  # slope in degrees at the rim of the texture


def project(azimuth: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Texture coordinates (n, 2) by azimuth and slope (n,) in degrees: the crown in the centre, the forehead above."""
    r, a = slope / REACH / 2, np.radians(azimuth)
    return np.stack([0.5 + r * np.sin(a), 0.5 + r * np.cos(a)], -1).astype(np.float32)


def noise(shape: tuple[int, int], cells: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Smooth noise 0..1 of `shape` that repeats along the first axis; `cells` random values along each axis."""
    grid = rng.random(cells).astype(np.float32)
    y = np.arange(shape[0]) * cells[0] / shape[0]
    x = np.arange(shape[1]) * (cells[1] - 1.001) / shape[1]
    i, j = y.astype(int), x.astype(int)
    fy, fx = smooth(y - i)[:, None], smooth(x - j)[None]
    below = (i + 1) % cells[0]
    upper = grid[i][:, j] * (1 - fx) + grid[i][:, j + 1] * fx
    lower = grid[below][:, j] * (1 - fx) + grid[below][:, j + 1] * fx
    return upper * (1 - fy) + lower * fy


def paint(line: Line, color: np.ndarray, grey: float, rng: np.random.Generator) -> np.ndarray:
    """Texture (SIZE, SIZE, 4) uint8 of streaks from the crown outwards; alpha is density, frayed at the hairline.

    `color` (3,) linear; `grey`: share 0..1 of grey hair.
    """
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    x, y = (x + 0.5) / SIZE - 0.5, 0.5 - (y + 0.5) / SIZE
    slope, azimuth = 2 * REACH * np.sqrt(x * x + y * y), np.degrees(np.arctan2(x, y))
    streaks = noise((720, 64), (240, 10), rng) * 0.6 + noise((720, 64), (90, 16), rng) * 0.4
    row = ((azimuth + 180) * 2 + 3 * np.sin(slope / 9)).astype(int) % 720
    streak = streaks[row, (slope / REACH * 40).astype(int).clip(0, 63)]
    density = line.density(azimuth, slope)
    alpha = np.clip(1.5 * density - 0.75 * streak * (1.2 - density), 0, 1) * smooth(1.7 * density)
    base_color = (color * (1 - grey) + WHITE * grey) * 0.55
    rgb = base_color * (0.35 + 1.25 * streak[..., None])
    return with_alpha(rgb, alpha)


def cap(skull: Skull, line: Line, texture: np.ndarray, lift: float, name: str) -> Mesh:
    """The mesh of the cap: some `lift` dm above the skin where the hair is full, close to it at the hairline."""
    static = base()
    inside = line.inside(static["azimuth"], static["slope"])
    faces = static["faces"]
    keep = (inside[faces].max(1) > -6) & ~static["ear"][faces].any(1) & (static["slope"][faces].max(1) < REACH)
    used, faces = np.unique(faces[keep], return_inverse=True)
    azimuth, slope = static["azimuth"][used], static["slope"][used]
    height = 0.012 + lift * smooth(inside[used] / 16)
    points = skull.points[used] + skull.normals[used] * height[:, None]
    away = points - skull.whorl
    tangent = unit(away - (away * skull.normals[used]).sum(1, keepdims=True) * skull.normals[used])
    return Mesh(
        name,
        Part.HAIR,
        faces.reshape(-1, 3).astype(np.int32),
        project(azimuth, slope),
        Material("hair", texture=texture, gloss=0.2, two_sided=True),
        rest=points.astype(np.float32),
        neck=skull.neck(points),
        tangent=tangent.astype(np.float32),
    )
