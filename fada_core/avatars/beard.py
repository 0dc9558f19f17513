"""Moustaches and beards: a painted layer on the skin and hair cards over it, both attached to the base vertices."""

import numpy as np

from . import assets
from .cap import noise
from .color import with_alpha
from .face_hair import FaceHairTraits
from .glue import glued
from .mesh import Mesh, Part
from .scalp import Skull, base, smooth, unit
from .strands import STRAIGHT, TONES, WAVY, WHITE, atlas, cards

# (azimuth in degrees, height in dm) on the base mesh: upper and lower borders of a full beard.
CHEEK = np.array(
    [
        (0, 6.80),
        (9, 6.79),
        (15, 6.76),
        (22, 6.70),
        (34, 6.68),
        (48, 6.75),
        (60, 6.86),
        (69, 7.02),
        (75, 7.25),
        (80, 7.3),
        (84, 6.85),
        (92, 6.72),
    ]
)
THROAT = np.array([(0, 6.05), (20, 6.08), (45, 6.16), (70, 6.32), (84, 6.5), (92, 6.68)])
LIPS = (15.0, 6.607, 0.128)  # ellipse without hair: half its width in degrees, height of its centre, half its height


def beard_density(azimuth: np.ndarray, height: np.ndarray, kind: str, phases: np.ndarray) -> np.ndarray:
    """Density 0..1 of a beard of `kind` at an azimuth in degrees and a height in dm on the base mesh.

    `phases` (2,) in radians vary the irregular edge. Nothing grows on the lips.
    """
    a = np.abs(azimuth)
    rough = 0.012 * np.sin(0.5 * azimuth + phases[0]) + 0.01 * np.sin(1.3 * azimuth + phases[1])
    high, low = np.interp(a, CHEEK[:, 0], CHEEK[:, 1]), np.interp(a, THROAT[:, 0], THROAT[:, 1])
    full = smooth((high + rough - height) / 0.09 + 0.2) * smooth((height - low - rough) / 0.16) * smooth((93 - a) / 6)
    full *= smooth((np.sqrt((a / LIPS[0]) ** 2 + ((height - LIPS[1]) / LIPS[2]) ** 2) - 0.93) / 0.16)
    # On most men hair is thinner beside the soul patch.
    full *= 1 - 0.75 * smooth(1 - np.abs(a - 9) / 7) * smooth(1 - np.abs(height - 6.44) / 0.09)
    droop = 10 if kind == "handlebar" else 0
    lip = smooth((height - 6.64 + 0.004 * droop) / 0.05) * smooth((13.5 + 0.4 * droop + 22 * (6.8 - height) - a) / 4)
    chin = smooth((6.60 - height) / 0.08) * smooth((17 + 14 * (6.5 - height) - a) / 7) * smooth((height - 6.1) / 0.1)
    around = smooth((21 - a) / 4) * smooth((a - 10) / 4) * smooth((height - 6.2) / 0.12)
    shape = {
        "moustache": lip,
        "handlebar": lip,
        "chin": chin,
        "goatee": np.maximum(np.maximum(lip, chin), 0.9 * around),
    }
    return full * shape.get(kind, 1.0)


def beard(skull: Skull, traits: FaceHairTraits, rng: np.random.Generator) -> list[Mesh]:
    """A painted layer on the skin and cards over it, which move with jaw and lips; none if `traits.beard` is empty."""
    if not traits.beard:
        return []
    static, kind = base(), traits.beard
    phases = rng.random(2) * 6.28
    faces, points = static["faces"], static["points"]
    back = 1.12 if kind in ("goatee", "chin", "moustache", "handlebar") else 0.25
    own = (
        (points[:, 2] > back)
        & ~static["ear"]
        & (np.abs(static["azimuth"]) < 96)
        & (points[:, 1] > 5.85)
        & (points[:, 1] < 7.4)
    )
    own &= outer_skin(static)
    weight = beard_density(static["azimuth"], points[:, 1], kind, phases) * own
    color, grey = np.array(traits.color, np.float32), traits.beard_grey

    # The painted layer.
    h, w = 128, 256
    y, x = np.mgrid[0:h, 0:w]
    azimuth, height = (x + 0.5) / w * 200 - 100, 7.4 - (y + 0.5) / h * 1.55
    streak = 0.5 * noise((h, w), (26, 130), rng) + 0.5 * noise((h, w), (60, 200), rng)
    dense = beard_density(azimuth, height, kind, phases)
    alpha = np.clip(dense * 1.7 - 0.75 * streak, 0, 1) * smooth(dense * 3) * (0.75 + 0.25 * traits.beard_length)
    rgb = (color * (1 - grey) + WHITE * grey) * (0.45 + 0.6 * streak[..., None])
    texture = with_alpha(rgb, alpha)
    near = faces[own[faces].all(1) & (weight[faces].max(1) > 0)]
    used, near = np.unique(near, return_inverse=True)
    uv = np.stack([(static["azimuth"][used] + 100) / 200, (points[used, 1] - 5.85) / 1.55], 1)
    anchor = np.repeat(used[:, None], 3, 1)
    first = np.tile(np.array([1, 0, 0], np.float32), (len(used), 1))
    down = np.tile(np.array([0, -1, 0], np.float32), (len(used), 1))
    layer = glued(
        skull,
        "beard skin",
        Part.BEARD,
        skull.points[used] + 0.009 * skull.normals[used],
        anchor,
        first,
        near.reshape(-1, 3),
        uv,
        texture,
        down,
    )

    # The cards.
    counts = {"moustache": 220, "handlebar": 240, "chin": 240, "goatee": 420}
    length = {"short": 0.09, "full": 0.24, "long": 0.7}.get(kind, 0.17) * (0.6 + 0.8 * traits.beard_length)
    sparse = weight * (1 - 0.7 * smooth(-1.6 * skull.normals[:, 1] - 0.3))  # fewer below the jaw
    face, corner = skull.roots(sparse, counts.get(kind, 680), rng)
    anchor = faces[face]
    root = np.einsum("nc,ncx->nx", corner, skull.points[anchor])
    normal = unit(np.einsum("nc,ncx->nx", corner, skull.normals[anchor]))
    at = np.einsum("nc,ncx->nx", corner, points[anchor])
    side, lip = np.sign(at[:, 0]), smooth((at[:, 1] - 6.6) / 0.06) * smooth((0.36 - np.abs(at[:, 0])) / 0.06)
    outwards = np.interp(np.abs(at[:, 0]), (0, 0.06, 0.25), (0.3, 1.0, 1.1)) * side
    wish = np.stack([0.1 * side, -np.ones_like(side), 0.12 * np.ones_like(side)], 1) * (1 - lip[:, None])
    wish += np.stack([outwards, -0.75 * np.ones_like(side), np.full_like(side, 0.1)], 1) * lip[:, None]
    wish = unit(wish + rng.normal(0, 0.2, wish.shape))
    flat = unit(wish - (wish * normal).sum(1, keepdims=True) * normal)
    under = smooth(-1.6 * normal[:, 1] - 0.3)  # hair lies flat below the jaw
    lift = np.radians(rng.uniform(12, 34, len(face)) * (1 - 0.8 * under))[:, None]
    heading = flat * np.cos(lift) + normal * np.sin(lift)
    own_length = length * (0.6 + 0.6 * rng.random(len(face))) * np.where(lip > 0.5, 0.2 / max(length, 0.2), 1)
    if kind == "long":
        own_length *= 0.4 + 0.8 * smooth((6.75 - at[:, 1]) / 0.5)
    segments = 4 if kind in ("long", "handlebar") else 3
    track, point = [root - normal * 0.004], root
    for i in range(segments):
        fall = np.array([0, -0.35 if i else 0.0, 0]) * (1 - lip[:, None])
        if kind == "handlebar" and i > 1:
            fall = fall + np.array([0, 0.8, 0]) * (lip * smooth((np.abs(at[:, 0]) - 0.12) / 0.1))[:, None]
        heading = unit(heading + fall - 0.22 * normal * (heading * normal).sum(1, keepdims=True))
        point = point + heading * (own_length / segments)[:, None]
        track.append(point)
    lines = np.stack(track, 1).astype(np.float32)
    outward = np.repeat(normal[:, None], segments + 1, 1)
    depth = rng.random(len(face))
    column = (depth * (len(TONES) - 1)).round().astype(int)
    width = (0.045 + 0.09 * min(1.0, length / 0.3)) * (0.7 + 0.6 * rng.random(len(face)))
    strands = atlas(WAVY if kind in ("full", "long") else STRAIGHT, color, grey, 0.25, rng)
    mesh, card_faces, uv, tangent = cards(
        lines,
        outward.astype(np.float32),
        width.astype(np.float32),
        column,
        rng.normal(0, 0.35, len(face)).astype(np.float32),
        0.6,
    )
    repeat = 2 * (segments + 1)
    hair = glued(
        skull,
        "beard",
        Part.BEARD,
        mesh,
        np.repeat(anchor, repeat, 0),
        np.repeat(corner, repeat, 0),
        card_faces,
        uv,
        strands,
        tangent,
    )
    return [layer, hair]


def outer_skin(static: dict[str, np.ndarray]) -> np.ndarray:
    """Mask (V,) of the skin vertices outside the mouth."""
    head = assets.load()
    out = np.zeros(len(static["points"]), bool)
    out[head.skin_base] = True
    inner = np.unique(head.skin_base[head.region("inside_mouth") > 0.3])
    out[inner] = False
    return out
