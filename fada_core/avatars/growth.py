"""Guide strands of hair: their roots, the direction of combing, gravity, curls and locks."""

from dataclasses import dataclass

import numpy as np

from .scalp import CENTRE, Line, Skull, base, capsule, smooth, unit

STEPS = 22


@dataclass(frozen=True)
class Cut:
    """Cut and combing of a hair style. Lengths in dm.

    `count` cards of `segments` pieces, `width` wide; `top`, `side`, `back`: lengths of the hair. `comb`: whorl (away
    from the crown), side (from a parting), back, forward, up (a quiff), out (an afro), fall (down from a parting).
    `lift`: angle in degrees between roots and skin. `gravity`: its weight relative to the combing. `stiff` 0..1: how
    much of its direction hair keeps over 0.03 dm. `volume`: height of the outermost layer. `lock` 0..1: how much
    strands gather in locks. `level`: height on the base mesh at which all hair ends. `covers`: whether hair lies over
    the ears.
    """

    count: int
    segments: int
    width: float
    top: float
    side: float
    back: float
    comb: str
    lift: float
    gravity: float
    stiff: float
    volume: float
    lock: float = 0.4
    level: float | None = None
    covers: bool = False


@dataclass(frozen=True)
class Roots:
    """Roots of strands. `points`, `normals` (n, 3) on the person's skin; `azimuth`, `slope` (n,) in degrees on the base
    mesh; `inside` (n,): degrees inside the hairline."""

    points: np.ndarray
    normals: np.ndarray
    azimuth: np.ndarray
    slope: np.ndarray
    inside: np.ndarray

    def take(self, keep: np.ndarray) -> "Roots":
        return Roots(self.points[keep], self.normals[keep], self.azimuth[keep], self.slope[keep], self.inside[keep])


def plant(skull: Skull, line: Line, count: int, top: float, rng: np.random.Generator) -> Roots:
    """At most `count` roots, distributed like the density of the hair, and 1 + `top` times as dense on top."""
    static = base()
    weight = line.density(static["azimuth"], static["slope"]) * ~static["ear"]
    weight = weight * (1 + top * smooth((74 - static["slope"]) / 30))
    face, corner = skull.roots(weight, count, rng)
    vertex = static["faces"][face]

    def mix(values: np.ndarray) -> np.ndarray:
        return np.einsum("nc,ncx->nx", corner, values[vertex])

    azimuth, slope, _, _ = capsule(mix(static["points"]), CENTRE, np.ones(3, np.float32))
    roots = Roots(mix(skull.points), unit(mix(skull.normals)), azimuth, slope, line.inside(azimuth, slope))
    # Faces are coarse compared to the hairline, so roots beyond it are thinned by their own density.
    full = line.density(azimuth, slope) * (1 + top * smooth((74 - slope) / 30))
    keep = rng.random(count) * weight[vertex].mean(1) < 1.3 * full
    return roots.take(keep & ~static["ear"][vertex].any(1))


def combing(cut: Cut, skull: Skull, points: np.ndarray, roots: Roots, part: np.ndarray) -> np.ndarray:
    """Direction (n, 3) of combing at `points` (n, 3). `part` (n,): side of the parting, -1 or 1 (the person's left)."""
    ones = np.ones(len(points), np.float32)
    away = unit(points - skull.whorl)
    kind = cut.comb
    if kind == "whorl":
        return away + np.array([0, 0, 0.15], np.float32)
    if kind == "forward":
        return away + np.array([0, 0, 0.7], np.float32)
    if kind == "back":
        return np.stack([0.15 * part, 0.1 * ones, -ones], 1)
    if kind == "side":
        top = smooth((75 - roots.slope) / 25)
        over = smooth((88 - skull.coordinates(points)[1]) / 40)
        aside = np.stack([part * over, 0.3 * over - 0.8 * (1 - over), 0.25 * ones], 1)
        return aside * top[:, None] + (away * 0.8 + [0, -0.4, -0.25]) * (1 - top[:, None])
    if kind == "up":
        front = smooth((70 - roots.slope) / 20) * smooth((120 - np.abs(roots.azimuth)) / 60)
        raised = np.stack([0.25 * part, 0.55 * ones, -0.55 * ones], 1)
        return raised * front[:, None] + (away + [0, -0.4, -0.4]) * (1 - front[:, None])
    if kind == "out":
        return 0.7 * unit(roots.points - skull.centre)
    slope = skull.coordinates(points)[1]  # the case of "fall"
    front = smooth((16 - roots.inside) / 10) * smooth((62 - np.abs(roots.azimuth)) / 20)  # combed off the forehead
    aside = np.stack([part, 0.35 * front, -0.25 * ones - 0.5 * front], 1) * smooth((85 - slope) / 40)[:, None]
    behind = smooth((np.abs(roots.azimuth) - 95) / 40)[:, None]
    return aside * (1 - behind) + (away * smooth((80 - slope) / 30)[:, None]) * behind


def grow_lines(
    cut: Cut, skull: Skull, roots: Roots, length: np.ndarray, layer: np.ndarray, part_at: float, fringe: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Strands (n, segments + 1, 3) from the roots, and unit vectors out of the head at their points.

    `length` (n,) dm; `layer` (n,): 0 (innermost) .. 1; `part_at`: place of the parting, in dm to the person's left;
    `fringe` (n,) bool: strands that fall over the forehead.
    """
    n = len(roots.points)
    part = np.where(roots.points[:, 0] - part_at + rng.normal(0, 0.03, n) > 0, 1.0, -1.0).astype(np.float32)
    side = np.where((np.abs(roots.azimuth) > 50) & (part * roots.azimuth < 0), -part, part)
    forward = rng.random(n) < smooth((118 - np.abs(roots.azimuth)) / 50)  # which fall in front of the shoulder
    edge = rng.normal(66, 5, n).astype(np.float32)  # smallest azimuth of hair beside the face
    points = roots.points.copy()
    above = 0.45 + 0.55 * smooth((80 - roots.slope) / 30) if cut.comb != "out" else 1.0
    above = np.where(fringe, 0.8, above)
    raised = np.radians(cut.lift * above * (0.7 + 0.6 * rng.random(n)))[:, None].astype(np.float32)
    forth = np.stack([0.12 * part, np.full(n, -0.1), np.ones(n)], 1).astype(np.float32)
    comb = np.where(fringe[:, None], forth, combing(cut, skull, points, roots, part))
    comb = comb + rng.normal(0, 0.45 if cut.comb == "out" else 0.12, (n, 3)).astype(np.float32)
    flat = unit(comb - (comb * roots.normals).sum(1, keepdims=True) * roots.normals)
    heading = flat * np.cos(raised) + roots.normals * np.sin(raised)
    track = [points]
    step = (length / STEPS)[:, None].astype(np.float32)
    inertia = cut.stiff ** (step / 0.03)
    clearance = 0.012 + (cut.volume * (0.25 + 0.75 * layer)).astype(np.float32)
    for i in range(1, STEPS + 1):
        t = i / STEPS
        azimuth, slope, _, _ = skull.coordinates(points)
        east = np.stack([np.cos(np.radians(azimuth)), 0 * azimuth, -np.sin(np.radians(azimuth))], 1) * side[:, None]
        pull = np.where(fringe[:, None], forth * (t < 0.4), combing(cut, skull, points, roots, part)) * (
            0.35 - 0.25 * t
        )
        fall = np.full(n, cut.gravity * min(1.0, 0.3 + 1.2 * t), np.float32)
        if cut.level is not None:
            turned = azimuth * side
            beside = smooth((edge - turned) / 14) * smooth((turned + 80) / 20) * smooth((slope - 48) / 14)
            shoulder = (
                smooth((slope - 135) / 30) * smooth((np.abs(azimuth) - 58) / 15) * smooth((150 - np.abs(azimuth)) / 15)
            )
            beside, shoulder = beside * ~fringe, shoulder * ~fringe
            fall = fall * (1 - 0.9 * beside)
            pull = pull + beside[:, None] * np.array([0, 0.5, -0.6], np.float32)  # backwards over the temple
            pull = pull + east * (1.1 * beside + 0.45 * shoulder * np.where(forward, -1, 1))[:, None]
        pull[:, 1] -= np.where(fringe, np.maximum(fall, 0.5), fall)
        heading = unit(heading * inertia + pull)
        moved = points + heading * step
        room = clearance * min(1.0, 0.15 + 2.0 * t) + 0.1 * smooth((slope - 150) / 25)
        moved = skull.push(moved, room.astype(np.float32), cut.covers and i > 3)
        if cut.level is not None:  # keep long hair beside the face and off the throat
            least = 0.42 * smooth((slope - 95) / 25) * (np.abs(azimuth) < 95) * ~fringe
            moved[:, 0] = np.where(moved[:, 0] * side < least, least * side, moved[:, 0])
        heading = unit(moved - points)
        points = points + heading * step
        points = skull.push(points, room * 0.9, cut.covers and i > 3)
        track.append(points)
    lines = np.stack(track, 1)
    for _ in range(3):  # smooth the kinks from collisions with the skull
        lines[:, 1:-1] = 0.25 * lines[:, :-2] + 0.5 * lines[:, 1:-1] + 0.25 * lines[:, 2:]
    lines[:, 3:] = skull.push(lines[:, 3:], 0.6 * clearance[:, None], cut.covers)
    level = np.full(n, -9.0 if cut.level is None else cut.level)
    level = np.where(fringe, rng.normal(7.5, 0.06) + rng.normal(0, 0.04, n), level + rng.normal(0, 0.05, n))
    level = skull.scale[1] * level + skull.shift[1]
    lines = shorten(lines, level, cut.segments)
    lines = gather(lines, cut.lock, rng)
    lines[:, 2:] = skull.push(lines[:, 2:], 0.3 * clearance[:, None])
    flat_lines = lines.reshape(-1, 3)
    outward = skull.coordinates(flat_lines)[2].reshape(lines.shape)
    return lines, outward


def shorten(lines: np.ndarray, level: np.ndarray, segments: int) -> np.ndarray:
    """Cut strands (n, m, 3) where they first fall below `level` (n,) and resample them to (n, segments + 1, 3)."""
    below = lines[:, :, 1] < level[:, None]
    last = np.where(below.any(1), np.maximum(below.argmax(1), 2), lines.shape[1] - 1)
    spacing = np.linspace(0, 1, segments + 1) ** (1.4 if segments > 4 else 1)  # denser over the curve of the skull
    at = spacing[None] * last[:, None]
    low = np.minimum(at.astype(int), lines.shape[1] - 2)
    part = (at - low)[..., None].astype(np.float32)
    rows = np.arange(len(lines))[:, None]
    return lines[rows, low] * (1 - part) + lines[rows, low + 1] * part


def gather(lines: np.ndarray, lock: float, rng: np.random.Generator) -> np.ndarray:
    """Draw strands (n, m, 3) towards the leader of their lock, most at the tips, by `lock` 0..1."""
    n = len(lines)
    if n < 12 or lock == 0:
        return lines
    leaders = rng.choice(n, max(1, n // 7), replace=False)
    apart = ((lines[:, None, 1] - lines[None, leaders, 1]) ** 2).sum(-1)
    leader = leaders[apart.argmin(1)]
    t = np.linspace(0, 1, lines.shape[1], dtype=np.float32)[None, :, None]
    amount = lock * (0.4 + 0.6 * rng.random(n)).astype(np.float32)[:, None, None] * t**1.3
    reach = np.sqrt(((lines[leader, -1] - lines[:, -1]) ** 2).sum(1))
    amount = amount * np.clip(0.5 / (reach + 1e-3), 0, 1)[:, None, None]
    return lines + (lines[leader] - lines) * amount


def curl(
    lines: np.ndarray, outward: np.ndarray, height: float, wavelength: float, rng: np.random.Generator
) -> np.ndarray:
    """Wind strands (n, m, 3) around their course: `height` dm to either side, one turn per `wavelength` dm.

    Neighbouring strands have similar phases. `wavelength` is raised to three segments where it is too short to show.
    """
    along = unit(np.gradient(lines, axis=1))
    across = np.cross(outward, along)
    pieces = np.sqrt((np.diff(lines, axis=1) ** 2).sum(-1))
    wavelength = max(wavelength, 3 * float(np.quantile(pieces.max(1), 0.8)))  # at least three segments
    length = np.concatenate([np.zeros((len(lines), 1)), np.cumsum(pieces, 1)], 1)
    phase = 7 * np.sin(lines[:, :1] @ np.array([2.1, 1.3, 1.7], np.float32) * 3) + rng.normal(0, 0.5, (len(lines), 1))
    angle = 2 * np.pi * length / wavelength + phase
    grown = height * np.minimum(1, length / (1.5 * wavelength))
    return (
        lines + (grown * np.sin(angle))[..., None] * across + (0.5 * grown * (1 + np.cos(angle)))[..., None] * outward
    )
