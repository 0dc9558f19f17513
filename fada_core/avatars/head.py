"""A person's head: its neutral shape from age, sex, ancestry, build and features, and its pose in one frame.

Angles are in radians: yaw > 0 turns the face to the person's left (the viewer's right), pitch > 0 raises it, roll > 0
tilts the head to the person's left shoulder. Gaze is (yaw, pitch) of the eyes relative to the head.
"""

from dataclasses import dataclass, field
from functools import cache

import numpy as np
from scipy import sparse

from ..errors import FadaError
from . import assets
from .assets import UNITS, unit_index
from .mesh import Attachment, Mesh, Triple

ANCESTRIES = ("african", "asian", "caucasian")
PIVOT = np.array([0.0, 6.05, 0.05], np.float32)  # centre of head rotation: the uppermost vertebrae, in dm

CHIN, CROWN = 5225, 881  # vertices of hm08

# The base mesh looks stern; these units are added to every neutral head.
REST = {"browInnerUp": 0.14, "mouthSmileLeft": 0.05, "mouthSmileRight": 0.05, "eyeWideLeft": 0.1, "eyeWideRight": 0.1}

# Vertices of hm08 where closed lips touch, in the middle and to the left of it.
CONTACT_UPPER = (474, 7228, 7226)
CONTACT_LOWER = (493, 7242, 7236)
OVERLAP = 0.005  # of closed lips, in dm

# Rotation of the eyes in radians at weight 1 of the units eyeLook..., measured on the helper eyes of the base mesh.
LOOK = {"Up": 0.19, "Down": 0.28, "In": 0.39, "Out": 0.38}


@dataclass(frozen=True)
class FaceShape:
    """Build and features. `muscle`, `weight`: 0..1, 0.5 is average; `targets`: local target name -> weight 0..1."""

    muscle: float = 0.5
    weight: float = 0.5
    targets: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Body:
    """The traits of a person that shape the head. `age`: 0 (5 years) .. 1 (85); `sex`: 0 female .. 1 male; `ancestry`:
    African, Asian, European shares, which sum to 1."""

    age: float
    sex: float
    ancestry: Triple
    shape: FaceShape


def years(age: float) -> float:
    """Convert an age 0..1 to years: 0 is 5, 0.2 is 20, 0.5 is 42, 1 is 85."""
    return float(np.interp(age, [0, 0.2, 0.5, 1], [5, 20, 42, 85]))


def _ages(age: float) -> dict[str, float]:
    """Weights of MakeHuman's four ages: baby 1, child 10, young 25, old 90 years."""
    names, at = ("baby", "child", "young", "old"), (1.0, 10.0, 25.0, 90.0)
    place = np.interp(years(age), at, range(4))
    return {n: max(0.0, 1 - abs(place - i)) for i, n in enumerate(names)}


def _thirds(value: float, low: str, middle: str, high: str) -> dict[str, float]:
    return {low: max(0.0, 1 - 2 * value), middle: 1 - abs(2 * value - 1), high: max(0.0, 2 * value - 1)}


@cache
def _paired_targets() -> list[tuple[tuple[str, ...], tuple[str, ...], float]]:
    """Axes of variation, each as (positive targets, negative targets, standard deviation)."""
    names = [n[6:] for n in assets.load().target_names if n.startswith("local/")]
    have = set(names)
    done: set[str] = set()
    axes = []
    opposites = {"incr": "decr", "up": "down", "out": "in", "forward": "backward", "concave": "convex"}
    opposites |= {"compress": "uncompress"}
    opposites |= {b: a for a, b in opposites.items()}
    for name in names:
        deviation = _deviation(name)
        if name in done or not deviation:
            continue
        stem, _, end = name.rpartition("-")
        other = f"{stem}-{opposites[end]}" if end in opposites else ""
        sides: list[tuple[str, ...]] = [(name,), (other,) if other in have else ()]
        if name.startswith("l-"):
            sides = [tuple(x for n in s for x in (n, "r-" + n[2:])) for s in sides]
        done.update(*sides)
        axes.append((sides[0], sides[1], deviation))
    return axes


# Standard deviations of local targets by the first matching prefix of their names, small enough to avoid caricatures.
DEVIATIONS = (
    (("head-trans", "neck-trans", "head-angle", "l-ear-shape-pointed", "ear-", "asymm", "neck-double", "r-"), 0.0),
    (("head-age", "head-fat"), 0.1),
    (("head-back", "head-scale", "head-"), 0.12),
    (("asym-eye", "asym-brown", "asym-nose", "asym-mouth", "asym-jaw"), 0.05),
    (("asym",), 0.05),
    (("nose-trans-in", "nose-trans-out", "mouth-trans-in", "mouth-trans-out", "eyebrows-trans"), 0.08),
    (("eyebrows-angle",), 0.12),
    (("nose-",), 0.22),
    (("mouth-laugh", "mouth-dimples"), 0.1),
    (("mouth-angles",), 0.08),
    (("mouth-",), 0.16),
    (("l-eye-epicanthus", "l-eye-eyefold"), 0.2),
    (("l-eye-bag",), 0.15),
    (("l-eye-",), 0.14),
    (("l-ear",), 0.2),
    (("chin-", "l-cheek", "forehead"), 0.2),
    (("neck",), 0.15),
)


def _deviation(name: str) -> float:
    return next((d for starts, d in DEVIATIONS if name.startswith(starts)), 0.0)


def sample_shape(rng: np.random.Generator) -> FaceShape:
    """A random face: each axis is drawn from a normal distribution, clipped at two standard deviations."""
    targets = {}
    for positive, negative, deviation in _paired_targets():
        value = float(np.clip(rng.normal(0, deviation), -2 * deviation, 2 * deviation))
        for name in positive if value > 0 else negative:
            targets[name] = abs(value)
    muscle, weight = np.clip(rng.normal([0.5, 0.5], [0.13, 0.16]), 0.1, 0.9)
    return FaceShape(float(muscle), float(weight), targets)


@cache
def _normal_operator() -> tuple[sparse.csr_matrix, np.ndarray]:
    """Sparse matrix (V, F) that sums face normals at base vertices, and the faces (F, 3) of skin and helpers."""
    head = assets.load()
    faces = np.concatenate([head.skin_base[head.skin_faces], *(p.base[p.faces] for p in head.helpers.values())])
    rows, columns = faces.ravel(), np.repeat(np.arange(len(faces)), 3)
    shape = (len(head.vertices), len(faces))
    return sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape), faces


def normals(vertices: np.ndarray) -> np.ndarray:
    """Unit normals (V, 3) of base vertices (V, 3), averaged over their faces with weights by area."""
    operator, faces = _normal_operator()
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    total = operator @ np.cross(b - a, c - a)
    return total / (np.linalg.norm(total, axis=1, keepdims=True) + 1e-12)


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Rotation matrix (3, 3) float32 for column vectors: roll, then pitch, then yaw."""
    (cy, sy), (cp, sp), (cr, sr) = ((np.cos(a), np.sin(a)) for a in (yaw, pitch, roll))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    about_z = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
    return (about_y @ about_x @ about_z).astype(np.float32)


@dataclass(frozen=True)
class Posed:
    """A head in one frame. `vertices`, `normals` (V, 3): base vertices after face units and rotation; `still` (V, 3):
    vertices before rotation; `turn` (3, 3): rotation of the skull about `PIVOT`; `gaze` (2,) and `units` (52,): as
    passed to `Head.pose`."""

    vertices: np.ndarray
    normals: np.ndarray
    still: np.ndarray
    turn: np.ndarray
    gaze: np.ndarray
    units: np.ndarray

    def rotate(self, points: np.ndarray, neck: np.ndarray | None = None) -> np.ndarray:
        """Rotate points (n, 3) of the unrotated head; `neck` (n,) as in `Mesh`."""
        turned = (points - PIVOT) @ self.turn.T + PIVOT
        return turned if neck is None else points + neck[:, None] * (turned - points)

    def rotate_direction(self, directions: np.ndarray, neck: np.ndarray | None = None) -> np.ndarray:
        """Rotate directions (n, 3); `neck` (n,) as in `Mesh`."""
        turned = directions @ self.turn.T
        return turned if neck is None else directions + neck[:, None] * (turned - directions)

    def place(self, mesh: Mesh) -> np.ndarray:
        """Vertex positions (n, 3) of a mesh in this frame."""
        if isinstance(mesh.rest, Attachment):
            corners = self.vertices[mesh.rest.anchor]
            return (corners * mesh.rest.weight[..., None]).sum(1) + mesh.rest.offset @ self.turn.T
        return self.rotate(mesh.rest, mesh.neck)


class Head:
    """The shape of a person's head. `neutral` (V, 3) float32: base vertices at rest, moved so that the mean of the eyes
    is where it is on the base mesh.

    `height`: from the chin to the crown of the bald head, in dm; `middle`: y half way between them. The constructor
    raises `FadaError` for an age, sex or ancestry out of range and for an unknown target.
    """

    def __init__(self, person: Body):
        if not 0 <= person.age <= 1 or not 0 <= person.sex <= 1 or abs(sum(person.ancestry) - 1) > 1e-3:
            raise FadaError("A person's age and sex must lie in 0..1, and the three shares of ancestry must sum to 1.")
        data = assets.load()
        self.neutral = data.vertices.copy()
        for name, weight in self._weights(person):
            index, delta = data.target(name)
            self.neutral[index] += np.float32(weight) * delta
        eyes = np.concatenate([data.helpers[k].base for k in ("left_eye", "right_eye")])
        self.neutral += data.vertices[eyes].mean(0) - self.neutral[eyes].mean(0)
        for name, weight in REST.items():
            self.neutral += np.float32(weight) * data.unit_deltas[unit_index(name)]
        self._close_lips(data.rows(CONTACT_UPPER), data.rows(CONTACT_LOWER))
        chin, crown = self.neutral[data.rows((CHIN, CROWN)), 1]
        self.height, self.middle = float(crown - chin), float(crown + chin) / 2

    def _close_lips(self, upper: list[int], lower: list[int]) -> None:
        """Close the lips, which do not quite meet on the base mesh and may be further apart on a person."""
        close = assets.load().unit_deltas[unit_index("mouthClose")]
        gap = self.neutral[upper, 1] - self.neutral[lower, 1] + OVERLAP
        gain = close[lower, 1] - close[upper, 1]
        self.neutral += np.float32((gap / gain).max().clip(0, 0.2)) * close

    @staticmethod
    def _weights(person: Body) -> list[tuple[str, float]]:
        have = set(assets.load().target_names)
        muscles = _thirds(person.shape.muscle, "minmuscle", "averagemuscle", "maxmuscle")
        weights = _thirds(person.shape.weight, "minweight", "averageweight", "maxweight")
        out = [("local/" + n, w) for n, w in person.shape.targets.items()]
        for sex, of_sex in (("female", 1 - person.sex), ("male", person.sex)):
            for age, of_age in _ages(person.age).items():
                part = of_sex * of_age
                out += [(f"macro/{a}-{sex}-{age}", part * w) for a, w in zip(ANCESTRIES, person.ancestry, strict=True)]
                out += [
                    (f"macro/universal-{sex}-{age}-{m}-{w}", part * of_m * of_w)
                    for m, of_m in muscles.items()
                    for w, of_w in weights.items()
                ]
        unknown = [n for n, _ in out if n.startswith("local/") and n not in have]
        if unknown:
            raise FadaError(f"There is no local target {unknown[0][6:]!r}; see HeadData.target_names.")
        return [(n, w) for n, w in out if w > 1e-5 and n in have]

    def pose(
        self,
        units: np.ndarray,
        yaw: float = 0.0,
        pitch: float = 0.0,
        roll: float = 0.0,
        gaze: np.ndarray | tuple[float, float] = (0.0, 0.0),
    ) -> Posed:
        """Pose the head. `units` (52,): weights of the face units, usually 0..1, in the order of `UNITS`.

        The lids follow the gaze. Raises `FadaError` for units of another shape or not finite.
        """
        data = assets.load()
        units = np.asarray(units, np.float32)
        if units.shape != (len(UNITS),) or not np.isfinite(units).all():
            raise FadaError(f"A pose takes {len(UNITS)} finite face units, not an array of shape {units.shape}.")
        look = np.asarray(gaze, np.float32)
        lids = units.copy()
        for side, outward in (("Left", look[0]), ("Right", -look[0])):
            for name, angle in (("Out", outward), ("In", -outward), ("Up", look[1]), ("Down", -look[1])):
                open_ = 1 - min(1.0, max(0.0, float(units[unit_index("eyeBlink" + side)])))
                lids[unit_index(f"eyeLook{name}{side}")] += open_ * max(0.0, float(angle)) / LOOK[name]
        used = np.flatnonzero(lids)
        still = self.neutral
        if len(used):
            deltas = data.unit_deltas.reshape(len(UNITS), -1)
            still = still + (lids[used] @ deltas[used]).reshape(-1, 3)
        turn = rotation(yaw, pitch, roll)
        turned = (still - PIVOT) @ turn.T + PIVOT
        vertices = still + data.neck[:, None] * (turned - still)
        return Posed(vertices, normals(vertices), still, turn, look, units)
