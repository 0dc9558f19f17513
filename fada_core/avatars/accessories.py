"""Glasses, earrings, scarves and a face mask, and a microphone or a hand that occludes the lower face."""

from collections.abc import Iterable

import numpy as np
from scipy.ndimage import gaussian_filter1d

from . import assets
from .fabric import weave
from .garments import cloth
from .glue import attach, project_front
from .mesh import Kind, Material, Mesh, Part, Triple, triple
from .neckline import contour
from .scalp import Skull, base, smooth, unit
from .shapes import Shape, ball, join, sheet, tube

FRAMES = ("", "round", "oval", "square", "half")
PROP_AWAY = np.array([0.5, -4.0, 0.6], np.float32)  # shift in dm that takes a prop out of every picture
EAR_TOP, EAR_LOBE = (0.76, 7.27, 0.60), (0.79, 6.83, 0.47)  # on the base mesh: where temples rest, where rings hang


def solid(
    name: str, part: Part, shape: Shape, color: Iterable[float], gloss: float, neck: float = 1.0, kind: Kind = "plain"
) -> Mesh:
    """A rigid mesh of one colour. `neck`: how far it turns with the skull, 0 (not at all) .. 1 (fully)."""
    material = Material(kind, triple(color), gloss=gloss, two_sided=True)
    turns = np.full(len(shape.points), neck, np.float32)
    return Mesh(name, part, shape.faces, shape.uv, material, shape.points, turns)


def on_skin(skull: Skull, place: Triple) -> np.ndarray:
    """Position (3,) on this person of the skin vertex that is nearest to `place` on the base mesh."""
    static = base()
    skin = np.unique(static["faces"])
    return skull.points[skin[((static["points"][skin] - place) ** 2).sum(1).argmin()]]


def glasses(skull: Skull, kind: str, color: np.ndarray, tint: float, rng: np.random.Generator) -> list[Mesh]:
    """Glasses that rest on the bridge of the nose and on the ears: a frame and its lenses.

    `kind`: one of FRAMES except ""; `color` (3,) linear; `tint`: 0 clear .. 1 dark.
    """
    head = assets.load()
    eyes = [skull.points[head.helpers[f"{s}_eye"].base] for s in ("right", "left")]
    anchor, weight = project_front(np.array([[0.0, 7.27]]))
    bridge = (weight[0][:, None] * skull.points[anchor[0]]).sum(0)
    middle = 0.5 * (eyes[0].mean(0) + eyes[1].mean(0))
    apart = abs(eyes[1].mean(0)[0] - eyes[0].mean(0)[0]) / 2
    front = max(bridge[2] + 0.015, max(e[:, 2].max() for e in eyes) + 0.13)
    wide, high = (
        apart * rng.uniform(0.78, 0.84),
        apart * {"round": 0.76, "oval": 0.6, "square": 0.66, "half": 0.56}[kind],
    )
    power = {"round": 2.0, "oval": 2.3, "square": 4.0, "half": 2.6}[kind]
    thick = rng.uniform(0.012, 0.03)
    centre_y, turn = middle[1] - 0.045, np.linspace(0, 2 * np.pi, 33)[:-1]

    def wrap(points: np.ndarray) -> np.ndarray:
        out = points.copy()
        out[..., 2] = front - 0.16 * np.abs(points[..., 0]) ** 2 + points[..., 2]
        return out

    shapes, lenses = [], []
    for side in (-1, 1):
        c, s = np.cos(turn), np.sin(turn)
        reach = 1 / (np.abs(c) ** power + np.abs(s) ** power) ** (1 / power)
        outline = np.stack(
            [side * apart * 1.03 + wide * reach * c, centre_y + high * reach * s * (1 - 0.06 * c * side), 0 * c], 1
        )
        outline = wrap(outline)
        rim = outline if kind != "half" else outline[(s > -0.35)]
        if kind == "half":
            order = np.argsort(-np.arctan2(rim[:, 0] - side * apart * 1.03, rim[:, 1] - centre_y))
            shapes.append(tube(rim[order], thick * 0.9, 5))
        else:
            shapes.append(tube(rim, thick, 5, closed=True))
        hub = outline.mean(0) + [0, 0, 0.02]
        fan = np.stack([np.broadcast_to(hub, outline.shape), 0.55 * hub + 0.45 * outline + [0, 0, 0.008], outline])
        lenses.append(sheet(fan[:, np.r_[0 : len(outline), 0]]))
        # The temple, from the hinge to the ear.
        hinge = wrap(np.array([side * (apart * 1.03 + wide * 0.98), centre_y + 0.35 * high, 0.0]))
        ear = on_skin(skull, (side * EAR_TOP[0], *EAR_TOP[1:])) + [side * 0.02, 0.035, 0]
        t = np.linspace(0, 1, 7)[:, None]
        arm = hinge * (1 - t) + ear * t
        arm[1:5, 0] += side * 0.03 * np.sin(np.pi * t[1:5, 0])
        bare = skull.push(arm[1:].astype(np.float32), np.float32(0.022), ears=False)
        hook = ear + np.array([[0, -0.05, -0.12], [-side * 0.01, -0.16, -0.19]])
        shapes.append(tube(np.concatenate([arm[:1], bare, hook]), thick * 0.85, 4))
    inner = apart * 1.03 - wide * 0.96
    span = np.linspace(-inner, inner, 7)
    arch = wrap(np.stack([span, centre_y + 0.22 * high + 0.035 * (1 - (span / inner) ** 2), 0 * span], 1))
    shapes.append(tube(arch, thick * 0.9, 5))
    metal = color.max() > 0.35 and rng.random() < 0.6
    frame = solid("glasses", Part.GLASSES, join(shapes), color, 0.9 if metal else 0.6)
    lens_color = 1 - 0.95 * tint + 0.1 * tint * rng.random(3)
    return [frame, solid("lenses", Part.GLASSES, join(lenses), lens_color, 1.0, kind="glass")]


def earrings(skull: Skull, kind: str, color: np.ndarray, rng: np.random.Generator) -> list[Mesh]:
    """A pair of earrings. `kind`: stud, drop or hoop; `color` (3,) linear."""
    shapes, size = [], rng.uniform(0.8, 1.3)
    for side in (-1, 1):
        lobe = on_skin(skull, (side * EAR_LOBE[0], *EAR_LOBE[1:])) + [side * 0.015, 0.02, 0.015]
        if kind == "stud":
            shapes.append(ball(lobe, 0.028 * size, 6, 8))
        elif kind == "drop":
            shapes += [
                ball(lobe, 0.015 * size, 5, 6),
                ball(lobe - [0, 0.1 * size, 0], np.array([0.03, 0.06, 0.03]) * size, 8, 8),
            ]
        else:
            radius, turn = 0.12 * size, np.linspace(0, 2 * np.pi, 21)[:-1]
            ring = np.stack([0 * turn, radius * (np.cos(turn) - 1), radius * np.sin(turn)], 1)
            shapes.append(tube(lobe + ring, 0.011 * size, 5, closed=True))
    return [solid("earrings", Part.EARRING, join(shapes), color, 0.9)]


def scarf(skull: Skull, colors: np.ndarray, rng: np.random.Generator) -> list[Mesh]:
    """A knitted scarf wound two or three times around the neck, with one end hanging down."""
    texture = weave("knit", str(rng.choice(["plain", "stripes", "checks", "melange"])), colors, rng)
    shapes, necks = [], []
    thick = rng.uniform(0.12, 0.17)
    for i, (shift, rise) in enumerate(((0.22, 0.0), (-0.02, 0.03), (0.12, 0.12))[: int(rng.integers(2, 4))]):
        path = contour(skull, "collar", shift)
        a = np.linspace(0, 2 * np.pi, len(path.own), endpoint=False)
        lift = 0.03 * np.sin(2 * a + rng.uniform(0, 6)) + 0.02 * np.sin(5 * a + rng.uniform(0, 6))
        core = path.own + path.normal * (rise + 0.75 * thick) + np.stack([0 * a, lift, 0 * a], 1)
        core = core[::2]
        radius = thick * (1 + 0.12 * np.sin(3 * a[::2] + i) + 0.08 * np.sin(7 * a[::2]))
        ring = tube(core, np.append(radius, radius[0]), 10, closed=True)
        middle = np.tile(np.append(core[:, 1], core[0, 1]), 11)
        ring.points[:, 1] += 0.45 * (ring.points[:, 1] - middle)  # the folds of a scarf are higher than thick
        shapes.append(Shape(ring.points, ring.faces, np.abs(ring.uv * [10, 1] % 2 - 1)))
        necks.append(np.full(len(ring.points), float(path.neck.mean())))
    side = rng.choice([-1, 1])
    top = contour(skull, "collar", 0.2)
    start = top.own[int(side * 5) % len(top.own)] + [0, 0.02, 0.2 + thick]
    t = np.linspace(0, 1, 9)[:, None]
    fall = skull.push((start + t * [side * 0.15, -1.6, 0.3]).astype(np.float32), np.float32(0.27), ears=False)
    across = np.linspace(-1, 1, 7)[None, :, None] * np.array([0.24, 0, 0]) * (0.6 + 0.4 * smooth(2 * t))[:, None]
    wave = 0.035 * np.sin(np.linspace(0, 9, 7))[None, :, None] * np.array([0, 0, 1.0])
    end = sheet(
        fall[:, None] + across + wave,
        np.stack(np.broadcast_arrays(np.linspace(0, 0.5, 7)[None], np.linspace(1, 0, 9)[:, None]), -1),
    )
    shapes.append(end)
    necks.append(np.full(len(end.points), float(top.neck.min()) * 0.6))
    return [cloth("scarf", Part.SCARF, join(shapes), np.concatenate(necks), texture)]


def face_mask(skull: Skull, color: np.ndarray, rng: np.random.Generator) -> list[Mesh]:
    """A pleated mask over nose, mouth and chin that moves with the face, with loops around the ears."""
    rows, columns = 14, 21
    t = np.linspace(0, 1, rows)[:, None]
    a = np.linspace(-1, 1, columns)[None]
    half = 52 - 6 * t + 0 * a
    azimuth = half * a
    slope = 104 + (177 - 104) * t + 7 * np.abs(a) ** 2 * (1 - 1.7 * t) - 6 * np.exp(-((a / 0.18) ** 2)) * (1 - t)
    radius = skull.radius(azimuth, slope)
    for _ in range(14):  # stretch the cloth between nose, cheeks and chin
        wide = np.pad(radius, 1, mode="edge")
        around = 0.25 * (wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:])
        radius = np.maximum(radius, around - 0.004)
    pleats = 0.02 * np.abs(np.sin(3.2 * np.pi * t)) * smooth((t - 0.12) / 0.1) * smooth((0.9 - t) / 0.1)
    points = skull.place(azimuth, slope, radius - skull.radius(azimuth, slope) + 0.035 + pleats)
    flat = points.reshape(-1, 3)
    # Anchored to the bridge of the nose and to the chin only: the sides hang from the loops.
    ends, corner = project_front(np.array([[0.0, 7.05], [0.0, 6.25]], np.float32))
    bridge, chin = ends[0, corner[0].argmax()], ends[1, corner[1].argmax()]
    low = (smooth((t - 0.25) / 0.7) * (1 - 0.6 * a**2)).reshape(-1)
    anchor = np.broadcast_to(np.array([bridge, chin, chin]), (len(flat), 3))
    weight = np.stack([1 - low, low, 0 * low], 1).astype(np.float32)
    shape = sheet(points)
    texture = weave("woven", "plain", np.stack([color, color]), rng)
    line = (0.82 + 0.18 * np.abs(np.sin(3.2 * np.pi * np.linspace(0, 1, len(texture))))) ** 1.5
    texture = (texture * line[:, None, None]).astype(np.uint8)
    material = Material("cloth", texture=texture, gloss=0.1, two_sided=True)
    cover = Mesh("mask", Part.MASK, shape.faces, shape.uv, material, attach(skull, flat, anchor, weight))
    loops = []
    for side, column in ((-1, 0), (1, -1)):
        for row, ear in ((1, EAR_TOP), (rows - 3, EAR_LOBE)):
            start, end = points[row, column], on_skin(skull, (side * ear[0], *ear[1:])) + [side * 0.02, 0, 0]
            s = np.linspace(0, 1, 5)[:, None]
            loops.append(
                tube(
                    skull.push((start * (1 - s) + end * s).astype(np.float32), np.float32(0.015), ears=False), 0.008, 4
                )
            )
    return [cover, solid("mask loops", Part.MASK, join(loops), np.array([0.8, 0.8, 0.8]), 0.1)]


def _fist(grip: np.ndarray, axis: np.ndarray, side: float) -> list[Shape]:
    """A hand closed around a rod of 0.16 dm that passes through `grip` (3,) along `axis` (3,), knuckles in front."""
    axis = unit(axis)
    front = unit(np.array([0.0, 0.25, 1.0]) - axis * np.array([0.0, 0.25, 1.0]) @ axis)
    across = np.cross(axis, front) * side
    shapes = []
    for i in range(4):  # fingers, from the index down
        at = grip + axis * (0.27 - 0.185 * i)
        turn = np.radians(np.linspace(-150, 120, 9))[:, None]
        reach = 0.21 + 0.03 * np.exp(-((turn - 0.3) ** 2) * 4)
        path = at + reach * (np.cos(turn) * front + np.sin(turn) * across)
        shapes.append(tube(path, 0.098 * (1 - 0.12 * (i == 3)) * np.linspace(1.05, 0.85, 9), 8))
        shapes.append(ball(path[-1], 0.083, 5, 7))
    turn = np.radians(np.linspace(200, 60, 6))[:, None]
    thumb = grip + axis * np.linspace(0.12, 0.4, 6)[:, None] + 0.24 * (np.cos(turn) * front + np.sin(turn) * across)
    shapes += [tube(thumb, 0.105 * np.linspace(1.1, 0.85, 6), 8), ball(thumb[-1], 0.09, 5, 7)]
    palm = grip - front * 0.12 - across * 0.18
    shapes.append(
        tube(palm + axis * np.linspace(0.36, -0.45, 6)[:, None], np.array([0.14, 0.2, 0.21, 0.2, 0.18, 0.17]), 9)
    )
    wrist = palm - axis * 0.4
    way = unit(-axis * 0.9 - front * 0.1 + np.array([0.3 * side, -0.5, 0.0]))
    shapes.append(tube(wrist + way * np.linspace(0, 2.6, 6)[:, None], np.linspace(0.19, 0.27, 6), 9))
    return shapes


def prop(skull: Skull, kind: str, skin: np.ndarray, rng: np.random.Generator) -> list[Mesh]:
    """A hand with a microphone in front of the chin, or a hand alone in front of the mouth.

    Both are fixed to the chest, and `prop_motion` moves them in and out of the picture. `kind`: microphone or hand;
    `skin`: colour (3,) linear.
    """
    mouth = on_skin(skull, (0.0, 6.62, 1.58))
    side = float(rng.choice([-1, 1]))
    lean = np.array([0.3 * side * rng.uniform(0.3, 1), -0.75, 0.45])
    top = mouth + [0.1 * side, -0.16 - rng.uniform(0, 0.2), 0.36]
    axis = -unit(lean)
    out = []
    if kind == "microphone":
        body = tube(top - axis * np.linspace(0.1, 1.9, 5)[:, None], np.array([0.15, 0.13, 0.12, 0.11, 0.1]), 10)
        out.append(solid("microphone", Part.PROP, body, np.array([0.02, 0.02, 0.022]), 0.5, 0.0))
        out.append(
            solid("microphone head", Part.PROP, ball(top, 0.21, 9, 12), rng.choice([0.05, 0.3]) * np.ones(3), 0.4, 0.0)
        )
        grip = top - axis * 0.8
    else:
        grip = top + [0, 0.12, -0.05]
    return [*out, solid("hand", Part.PROP, join(_fist(grip, axis, side)), skin, 0.15, 0.0)]


def prop_motion(kind: str, n: int, fps: float, rng: np.random.Generator) -> np.ndarray:
    """Shift (n, 3) float32 in dm of a prop from its place in each frame.

    A microphone is in place most of the time; a hand comes up for one or two seconds at a time.
    """
    stays, leaves = (6.0, 1.2) if kind == "microphone" else (1.4, 2.5)
    here, at, present = np.zeros(n), 0.0, rng.random() < stays / (stays + leaves)
    while at < n:
        until = at + fps * max(0.4, rng.exponential(stays if present else leaves))
        here[int(at) : int(until)] = present
        at, present = until, not present
    here = gaussian_filter1d(here, 0.15 * fps, mode="nearest")[:, None]
    tremble = gaussian_filter1d(rng.normal(0, 1, (n, 3)), 0.2 * fps, axis=0, mode="nearest") * np.sqrt(fps) * 0.03
    return ((1 - here) * PROP_AWAY + tremble).astype(np.float32)
