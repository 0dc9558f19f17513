"""Rendered stills of people to train the face finder on: one file per person, rendered once and read one by one.

A person's stills differ in pose, expression, light, camera and style. Their ground truth is the mask of the person and
the points of the face.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from tqdm import tqdm

from ..atomic import whole_file
from ..avatars import styles
from ..avatars.articulation import seal
from ..avatars.assets import UNITS, load
from ..avatars.behaviour import BLINK, portrait_units, sample_mood
from ..avatars.camera import develop, sample_camera_look
from ..avatars.head import Head, Posed
from ..avatars.landmarks import project, vertices
from ..avatars.light import Camera, sample_camera, sample_light
from ..avatars.mesh import Part
from ..avatars.person import make_scene, sample_person
from ..avatars.render import Motion, Renderer

POOL = "moderate"
FOREHEAD = ((-0.26, 0.40), (0.0, 0.47), (0.26, 0.40))
"""The three points of the forehead, on the upper edge of mediapipe's face mesh: x from the eyes' centre in face widths,
and height above the eyes in units of the distance from eyes to chin."""
_RESTING = np.array([[0.0], [0.0], [1.0]])  # `articulation.seal`: contacts of closed lips
_MOST = 0.85  #: largest angle of a head in radians
_TEXTURE = 256  #: side of the skin textures in pixels


@dataclass(frozen=True)
class Still:
    """`picture` (s, s, 3) uint8; `person` (s, s) bool: the pixels of the person, including hair and clothes; `points`
    (71, 2) float32 in pixels: the 68 of `avatars.landmarks` and three of the forehead."""

    picture: np.ndarray
    person: np.ndarray
    points: np.ndarray


@dataclass(frozen=True)
class StillSet:
    """`people` people with `each` stills of `size` pixels per person, stored under `root`; indexed by still."""

    root: Path
    people: int
    each: int = 4
    size: int = 192

    def __len__(self) -> int:
        return self.people * self.each

    def path(self, person: int) -> Path:
        return self.root / f"{self.size}px-{self.each}" / f"{person:06d}.safetensors"

    def render(self, workers: int) -> None:
        """Render the missing files in `workers` processes. It may be interrupted; the next call resumes."""
        self.path(0).parent.mkdir(parents=True, exist_ok=True)
        missing = [n for n in range(self.people) if not self.path(n).exists()]
        if missing:
            with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
                jobs = pool.map(_render, [(self, n) for n in missing], chunksize=4)
                for _ in tqdm(jobs, total=len(missing), desc="rendering people", mininterval=5):
                    pass

    def __getitem__(self, index: int) -> Still:
        person, row = divmod(index, self.each)
        with safe_open(self.path(person), "np") as file:
            picture, who, points = (file.get_slice(name)[row] for name in ("pictures", "people", "points"))
        return Still(picture, who.astype(bool), points)


def _one_thread() -> None:
    torch.set_num_threads(1)


def _render(job: tuple[StillSet, int]) -> None:
    data, person = job
    stills = draw(person, data.each, data.size)
    arrays = {
        "pictures": np.stack([still.picture for still in stills]),
        "people": np.stack([still.person for still in stills]).astype(np.uint8),
        "points": np.stack([still.points for still in stills]),
    }
    with whole_file(data.path(person)) as partial:
        save_file(arrays, partial)


def draw(seed: int, count: int, size: int) -> list[Still]:
    """Render `count` stills of `size` pixels of the person of `seed`."""
    rng = np.random.default_rng([seed, 21])
    person = sample_person(rng, POOL)
    material = styles.sample_style(rng, POOL)
    scene = make_scene(person, rng, POOL, size, material, _TEXTURE)
    renderer = Renderer(size, 1)
    out = []
    for _ in range(count):
        scene.light, scene.camera = sample_light(rng, POOL), sample_camera(rng, scene.head, POOL)
        pictures, parts, (posed,) = renderer.frames(scene, _motion(rng))
        style = styles.sample_style(rng, POOL)
        style = material if material in styles.STATUES else styles.STYLES[0] if style in styles.STATUES else style
        pictures = styles.apply(styles.prepare(style, pictures[0], parts[0], rng), pictures, parts)
        if style == styles.STYLES[0]:
            pictures = develop(sample_camera_look(rng, POOL), pictures, rng)
        out.append(Still(pictures[0], parts[0] != Part.BACKGROUND, points(scene.head, posed, scene.camera, size)))
    return out


def _motion(rng: np.random.Generator) -> Motion:
    """A motion of one frame with a random expression, and a larger rotation than in most portraits."""
    face, closed = portrait_units(rng, sample_mood(rng))
    if rng.random() < 0.15:
        face[[UNITS.index(name) for name in BLINK]] = rng.uniform(0.3, 1)
    face = seal(face[None], _RESTING) if closed else face[None]
    yaw, pitch, roll = (np.clip(rng.normal(0, deviation, 1), -_MOST, _MOST) for deviation in (0.35, 0.16, 0.08))
    return Motion(face, yaw, pitch, roll, rng.normal(0, 0.15, (1, 2)).clip(-0.4, 0.4))


def points(head: Head, posed: Posed, camera: Camera, size: int) -> np.ndarray:
    """The points of a `Still` of `size` pixels, (71, 2) float32: visible or not."""
    return project(posed.vertices[np.concatenate([vertices(), _forehead(head)])], camera, size).astype(np.float32)


def _forehead(head: Head) -> np.ndarray:
    """Indices (3,) of the vertices nearest to FOREHEAD on the front of the neutral head."""
    marks = head.neutral[vertices()]
    eyes, width = marks[36:48].mean(0), marks[16, 0] - marks[0, 0]
    skin = np.unique(load().skin_base)
    skin = skin[head.neutral[skin, 2] > marks[27:31, 2].mean() - 0.6 * width]
    found = []
    for side, up in FOREHEAD:
        target = eyes[:2] + np.array([side * width, up * (eyes[1] - marks[8, 1])])
        found.append(skin[np.linalg.norm(head.neutral[skin, :2] - target, axis=1).argmin()])
    return np.array(found)
