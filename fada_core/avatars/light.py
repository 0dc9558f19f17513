"""Light and camera of a scene, and their random choice.

Light is a key lamp that casts shadows, ambient light from sky and ground, and a rim lamp from behind. Colours are
linear RGB; directions are unit vectors towards the lamp. The camera is a pinhole; from a short distance it shows the
perspective of a selfie.
"""

import math
from dataclasses import dataclass

import numpy as np

from .head import Head
from .mesh import Triple, triple


@dataclass(frozen=True)
class Light:
    """The light of a scene.

    `softness`: blur of the key lamp's shadow and size of its reflection in the eyes, 0.2 (bare bulb) .. 1.5.
    """

    name: str
    key_direction: Triple
    key_color: Triple
    sky: Triple
    ground: Triple
    rim_direction: Triple
    rim_color: Triple
    softness: float = 0.6


@dataclass(frozen=True)
class Camera:
    """A camera for square pictures. `eye` and `target` in dm; `half`: half the height in dm of the view at the distance
    of the target; `roll` in radians."""

    eye: Triple
    target: Triple
    half: float
    roll: float = 0.0

    def view(self) -> np.ndarray:
        """World to camera (3, 4) float32; its rows give the coordinates right, up and back."""
        eye, target = np.array(self.eye), np.array(self.target)
        back = (eye - target) / np.linalg.norm(eye - target)
        right = np.cross([math.sin(self.roll), math.cos(self.roll), 0.0], back)
        right /= np.linalg.norm(right)
        rows = np.stack([right, np.cross(back, right), back])
        return np.concatenate([rows, -(rows @ eye)[:, None]], 1).astype(np.float32)

    def focal(self, size: int) -> float:
        """Focal length in pixels of a picture of `size`."""
        return size / 2 * float(np.linalg.norm(np.subtract(self.eye, self.target))) / self.half


def direction(azimuth: float, elevation: float) -> Triple:
    """Unit vector of angles in degrees; azimuth 0 is the front, positive towards the person's left."""
    a, e = math.radians(azimuth), math.radians(elevation)
    return (math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e))


def temperature(kelvin: float) -> np.ndarray:
    """Linear RGB (3,) of white light with a colour temperature, mean 1; 6500 K is neutral (our fit to the Planckian
    locus)."""
    t = (kelvin - 6500) / 6500
    color = np.array([1 - 0.55 * t, 1 - 0.05 * t - 0.25 * t * t, 1 + 0.9 * t]).clip(0.05)
    return color / color.mean()


LIGHTS = ("studio", "window", "outdoor", "indoor", "night", "coloured")
_SHARES = {"high": (0.36, 0.24, 0.2, 0.2, 0.0, 0.0), "moderate": (0.2, 0.18, 0.18, 0.2, 0.12, 0.12)}


def sample_light(rng: np.random.Generator, pool: str) -> Light:
    """Random light."""
    kind = LIGHTS[rng.choice(len(LIGHTS), p=_SHARES[pool])]
    side = rng.choice([-1.0, 1.0])
    gray = np.ones(3)
    if kind == "studio":
        azimuth, elevation, softness = rng.uniform(15, 50), rng.uniform(20, 45), rng.uniform(0.6, 1.4)
        key, sky, rim = gray * rng.uniform(1.5, 2.1), gray * rng.uniform(0.4, 0.75), gray * rng.uniform(0, 1.2)
    elif kind == "window":
        azimuth, elevation, softness = rng.uniform(35, 75), rng.uniform(5, 30), rng.uniform(1.0, 1.5)
        key = temperature(rng.uniform(5600, 8000)) * rng.uniform(1.5, 2.1)
        sky, rim = temperature(rng.uniform(4000, 6500)) * rng.uniform(0.35, 0.65), gray * rng.uniform(0, 0.2)
    elif kind == "outdoor":
        azimuth, elevation, softness = rng.uniform(0, 75), rng.uniform(20, 48), rng.uniform(0.25, 1.2)
        key = temperature(rng.uniform(4800, 5800)) * rng.uniform(1.1, 2.2)
        sky, rim = temperature(rng.uniform(7000, 9500)) * rng.uniform(0.6, 1.0), gray * rng.uniform(0, 0.8)
    elif kind == "indoor":
        azimuth, elevation, softness = rng.uniform(0, 50), rng.uniform(20, 48), rng.uniform(0.6, 1.4)
        key = temperature(rng.uniform(3800, 6000)) * rng.uniform(1.1, 1.7)
        sky, rim = temperature(rng.uniform(4200, 6500)) * rng.uniform(0.6, 0.9), gray * rng.uniform(0, 0.4)
    elif kind == "night":
        azimuth, elevation, softness = rng.uniform(10, 70), rng.uniform(0, 45), rng.uniform(0.3, 1.0)
        key = temperature(rng.uniform(2800, 4500)) * rng.uniform(1.0, 1.7)
        sky, rim = temperature(9500) * rng.uniform(0.1, 0.25), temperature(9000) * rng.uniform(0.2, 1.0)
    else:
        azimuth, elevation, softness = rng.uniform(20, 75), rng.uniform(0, 40), rng.uniform(0.5, 1.3)
        hue = rng.uniform(0, 2 * np.pi)
        wheel = 0.62 + 0.5 * np.cos(hue - np.array([0, 2.094, 4.189]))
        key, sky = wheel * rng.uniform(1.6, 2.2), gray * rng.uniform(0.2, 0.4)
        rim = (1.24 - wheel) * rng.uniform(0.6, 2.0)
    ground = sky * rng.uniform(0.35, 0.65) * np.array([1.0, 0.94, 0.87])
    behind = direction(-side * rng.uniform(120, 155), rng.uniform(10, 45))
    lamp = direction(side * azimuth, elevation)
    return Light(kind, lamp, triple(key), triple(sky), triple(ground), behind, triple(rim), softness)


_FRAMES = {"high": (1.45, 2.1), "moderate": (1.3, 2.8)}


def sample_camera(rng: np.random.Generator, head: Head, pool: str) -> Camera:
    """Random camera of a portrait: from a tight face to a bust, from a selfie's distance to that of a tele lens."""
    low, high = _FRAMES[pool]
    half = float(rng.uniform(low, high)) * head.height / 2.35
    wide = pool == "moderate"
    distance = float(np.exp(rng.uniform(math.log(6.5 if wide else 9), math.log(22))))
    # A tight picture is centred on the face, a wide one lower, to leave little room above the hair.
    shift = -0.16 * (half - 1.25 * head.height / 2.35) * 2 + rng.normal(0, 0.05)
    target = (float(rng.normal(0, 0.06 if wide else 0.04)) * half, head.middle + float(shift), 0.9)
    azimuth, elevation = rng.normal(0, 6 if wide else 3), rng.normal(1, 5 if wide else 3)
    eye = np.array(target) + distance * np.array(direction(float(azimuth), float(elevation)))
    return Camera(triple(eye), target, half, float(rng.normal(0, 0.02 if wide else 0.008)))
