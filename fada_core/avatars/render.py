"""The renderer: draws the frames of a scene and a motion, with the part that each pixel shows."""

from dataclasses import dataclass

import numpy as np

from ..errors import FadaError
from . import assets, pixels, raster
from .head import Head, Posed
from .light import direction
from .mesh import Part
from .scene import SHADOW_SIZE, SHADOW_SPAN, Scene

EXPOSURE = 0.72  # exposure before metering, for a key lamp of 1.8 and a sky of 0.6
# Target of the face's mean linear brightness, its factor at night, and how far metering corrects: 0 not, 1 fully.
METERED, NIGHT, FOLLOWS = 0.3, 0.55, 0.45


@dataclass(frozen=True)
class Motion:
    """Motion of a head in n frames: `units` (n, 52); `yaw`, `pitch`, `roll` (n,) and `gaze` (n, 2) in radians.

    `prop` (n, 3): shift in dm of an object in front of the face, None for none. Raises `FadaError` for other shapes.
    """

    units: np.ndarray
    yaw: np.ndarray
    pitch: np.ndarray
    roll: np.ndarray
    gaze: np.ndarray
    prop: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.units)
        shapes = {"units": (n, len(assets.UNITS)), "yaw": (n,), "pitch": (n,), "roll": (n,), "gaze": (n, 2)}
        if self.prop is not None:
            shapes["prop"] = (n, 3)
        for name, shape in shapes.items():
            if np.shape(getattr(self, name)) != shape:
                given = np.shape(getattr(self, name))
                raise FadaError(f"A motion of {n} frames needs {name} of shape {shape}, not {given}.")

    def pose(self, head: Head, i: int) -> Posed:
        """`head` in frame `i`."""
        return head.pose(self.units[i], float(self.yaw[i]), float(self.pitch[i]), float(self.roll[i]), self.gaze[i])

    @staticmethod
    def still(units: np.ndarray) -> "Motion":
        """A motion of units (n, 52) without rotation of head and eyes."""
        n = len(units)
        return Motion(np.asarray(units), np.zeros(n), np.zeros(n), np.zeros(n), np.zeros((n, 2)))


class Renderer:
    """Draws square pictures of `size` pixels with `supersampling` x `supersampling` samples per pixel.

    Raises `FadaError` for a size below 16 or a supersampling outside 1..4.
    """

    def __init__(self, size: int = 256, supersampling: int = 2):
        if size < 16 or supersampling not in (1, 2, 3, 4):
            raise FadaError("A renderer needs a size of at least 16 pixels and a supersampling of 1 to 4.")
        self.size, self.factor = size, supersampling
        side = size * supersampling
        self._near, self._ids = np.empty((side, side), np.float32), np.empty((side, side), np.int32)
        self._lens = np.empty((side, side), np.int32)
        self._depth = np.empty((SHADOW_SIZE, SHADOW_SIZE), np.float32)

    def frames(self, scene: Scene, motion: Motion) -> tuple[np.ndarray, np.ndarray, list[Posed]]:
        """Draw n frames: pictures (n, s, s, 3) uint8 sRGB, parts (n, s, s) uint8 (`mesh.Part`), and n poses.

        Raises `FadaError` for a background of another size.
        """
        if scene.background.shape != (self.size, self.size, 3):
            raise FadaError(
                f"The background has shape {scene.background.shape}; this renderer needs {(self.size, self.size, 3)}."
            )
        n = len(motion.units)
        pictures = np.empty((n, self.size, self.size, 3), np.uint8)
        parts = np.empty((n, self.size, self.size), np.uint8)
        setting = self._setting(scene)
        setting["exposure"] *= self._meter(scene, setting)
        poses = []
        for i in range(n):
            posed = motion.pose(scene.head, i)
            scene.prop_shift = np.zeros(3, np.float32) if motion.prop is None else motion.prop[i]
            self._draw(scene, posed, setting, pictures[i], parts[i])
            poses.append(posed)
        return pictures, parts, poses

    def _setting(self, scene: Scene) -> dict[str, np.ndarray]:
        """Light and camera as arrays, which stay the same for a clip."""
        scene.focus()
        light = scene.light
        edge = 1 - 0.012 * (1 + 2 * light.softness)  # cosine at the edge of the lamp's reflection in an eye
        lamp = np.array(
            [
                light.key_direction, light.key_color, light.sky, light.ground, light.rim_direction, light.rim_color,
                (edge, 0, 0), _catchlight(light.key_direction),
            ],
            np.float32,
        )  # fmt: skip
        return {
            "lamp": lamp,
            "view": scene.camera.view(),
            "eye": np.array(scene.camera.eye, np.float32),
            "matrix": scene.light_matrix(np.array(light.key_direction), SHADOW_SIZE, SHADOW_SPAN),
            "exposure": np.full(3, EXPOSURE, np.float32),
            "background": np.ascontiguousarray(scene.background, np.float32),
            "screen": np.empty_like(scene.points),
        }

    def _meter(self, scene: Scene, setting: dict) -> np.float32:
        """Factor of the exposure from metering the face at rest, one for all frames of a scene."""
        picture, parts = np.empty((self.size, self.size, 3), np.uint8), np.empty((self.size, self.size), np.uint8)
        self._draw(scene, scene.head.pose(np.zeros(len(assets.UNITS))), setting, picture, parts)
        face = picture[parts == Part.SKIN]
        if not len(face):
            return np.float32(1)
        mean = float(((face.mean(1) / 255).clip(0.02) ** 2.2).mean())
        aim = METERED * (NIGHT if scene.light.name == "night" else 1)
        return np.float32(np.clip((aim / mean) ** FOLLOWS, 0.65, 2.2))

    def _draw(self, scene: Scene, posed: Posed, s: dict, picture: np.ndarray, parts: np.ndarray) -> None:
        scene.pose(posed)
        side = self.size * self.factor
        focal, middle = np.float32(scene.camera.focal(side)), np.float32(side / 2)
        raster.project(scene.points, s["view"], focal, middle, s["screen"])
        self._near.fill(0)
        self._ids.fill(-1)
        self._lens.fill(-1)
        self._depth.fill(1e9)
        raster.rasterise(
            s["screen"], scene.faces, scene.mesh_of, scene.lots, scene.flags, scene.uv, scene.texels, scene.texture,
            self._near, self._ids, self._lens,
        )  # fmt: skip
        raster.depth_map(scene.points, scene.faces, scene.mesh_of, scene.no_shadow, s["matrix"], self._depth)
        metal = np.float32(scene.overrides.metal if scene.overrides else 0)
        pixels.picture(
            self._ids, self._near, self._lens, s["screen"], self.factor, s["exposure"], s["background"], pixels.ENCODE,
            scene.part, scene.faces, scene.mesh_of, scene.kind, scene.color, scene.gloss, scene.two_sided,
            scene.texture, scene.texels, scene.uv, scene.points, scene.normals, scene.tangents, scene.attributes,
            scene.slopes, scene.crease_weights(posed), s["eye"], s["lamp"], s["matrix"], self._depth,
            np.float32(1.05 + scene.light.softness * 1.1), mouth_frame(posed), metal, picture, parts,
        )  # fmt: skip


def _catchlight(key: tuple[float, float, float]) -> tuple[float, float, float]:
    """Direction of the key lamp's reflection in the eyes, limited so that it stays visible in the iris."""
    azimuth, elevation = np.degrees([np.arctan2(key[0], key[2]), np.arcsin(key[1])])
    return direction(float(np.clip(azimuth, -38, 38)), float(np.clip(elevation, 8, 32)))


def mouth_frame(posed: Posed) -> np.ndarray:
    """Mouth geometry (3, 3) float32 for the darkness inside it: the point between the lips, the direction out of the
    mouth, and (rate of darkening, rate for teeth, depth without darkening)."""
    upper, lower = posed.vertices[_LIPS[0]], posed.vertices[_LIPS[1]]
    opened = float(np.linalg.norm(upper - lower))
    rates = (4.0 / (0.4 + 3.0 * opened), 1.6 / (0.5 + 2.0 * opened), 0.08)
    return np.stack([(upper + lower) / 2, posed.turn @ np.array([0, 0, 1], np.float32), rates]).astype(np.float32)


_LIPS = assets.load().rows((474, 494))  # the middle of the inner edges of the upper and the lower lip
