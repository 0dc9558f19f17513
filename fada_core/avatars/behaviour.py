"""Movement other than speech: blinks, gaze, brows, nods, sway, breath, a mood, and the movements of an idle mouth.

Angles are in radians as in `head`: yaw to the person's left, pitch up, roll to the left shoulder; gaze is relative to
the head. Of speech, only the loudness has an influence (`emphasis`).
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from .assets import UNITS, unit_index, units

#: Moods at full strength. They do not set mouthClose: `articulation.seal` closes the lips.
MOODS = {
    "neutral": units(),
    "smile": units(mouthSmile=0.6, cheekSquint=0.5, eyeSquint=0.25, mouthDimple=0.15, mouthUpperUp=0.08),
    "sad": units(browInnerUp=0.75, browDown=0.15, mouthFrown=0.4, mouthShrugLower=0.15, eyeSquint=0.1, eyeBlink=0.1),
    "angry": units(browDown=0.95, noseSneer=0.35, eyeSquint=0.3, mouthFrown=0.15, mouthStretch=0.1),
    "surprised": units(browInnerUp=0.8, browOuterUp=0.85, eyeWide=0.5, jawOpen=0.04),
}
_MOOD_SHARES = (0.42, 0.3, 0.09, 0.09, 0.1)
#: Share of portraits whose mouth is not closed.
OPEN_PORTRAITS = 0.3
BLINK = ("eyeBlinkLeft", "eyeBlinkRight")


@dataclass(frozen=True)
class Mood:
    """One of `MOODS` with a strength 0..1."""

    name: str = "neutral"
    strength: float = 0.0

    @property
    def units(self) -> np.ndarray:
        """Face units (52,) float32."""
        return MOODS[self.name] * np.float32(self.strength)


def sample_mood(rng: np.random.Generator) -> Mood:
    """A random mood as in everyday footage: mostly neutral or a slight smile."""
    name = list(MOODS)[rng.choice(len(MOODS), p=_MOOD_SHARES)]
    return Mood(name, float(rng.beta(2, 2.2)) if name != "neutral" else 0.0)


def wander(n: int, fps: float, period_s: float, rng: np.random.Generator, channels: int = 1) -> np.ndarray:
    """Smooth random curves (channels, n) of about unit standard deviation that change over `period_s` seconds."""
    sigma = max(0.4 * period_s * fps, 0.5)
    margin = int(4 * sigma) + 1
    noise = gaussian_filter1d(rng.normal(size=(channels, n + 2 * margin)), sigma, axis=1)
    return noise[:, margin : margin + n] * np.sqrt(2 * np.sqrt(np.pi) * sigma)


def _bump(times: np.ndarray, at: float, rise: float, hold: float, fall: float) -> np.ndarray:
    """Smooth curve (n,): up from 0 to 1 in the `rise` s before `at`, at 1 for `hold` s, back to 0 in `fall` s."""
    x = np.minimum((times - at) / rise, (at + hold - times) / fall).clip(-1, 0) + 1
    return x * x * (3 - 2 * x)


def _gaze(times: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[float]]:
    """Gaze (n, 2) relative to the world, where (0, 0) is towards the camera, and the times of large saccades."""
    target = np.zeros((len(times), 2))
    jumps: list[float] = []
    distracted = rng.choice([0.12, 0.3, 0.6], p=[0.5, 0.35, 0.15])
    home = rng.normal(0, 0.02, 2) if rng.random() < 0.8 else rng.normal(0, [0.18, 0.06])
    time, at = -float(rng.uniform(0, 1)), home
    while time < times[-1]:
        away = rng.random() < distracted
        aim = home + (rng.normal(0, [0.22, 0.1]) if away else rng.normal(0, 0.012, 2))
        aim = aim.clip([-0.5, -0.3], [0.5, 0.2])
        size = float(np.hypot(*(aim - at)))
        duration = 0.025 + 0.12 * size  # the main sequence of saccades
        target += np.clip((times - time) / duration, 0, 1)[:, None] * (aim - at)
        if size > 0.12:
            jumps.append(time)
        at = aim
        time += float(rng.uniform(0.35, 1.0) if away else rng.uniform(0.5, 2.2))
    return target, jumps


def _blinks(times: np.ndarray, jumps: list[float], rng: np.random.Generator) -> np.ndarray:
    """Blinks (n,), 0 open .. 1 closed: about 0.25 s each, 8 to 30 a minute.

    Some coincide with a large saccade, some are double, some close the lids only in part.
    """
    out = np.zeros(len(times))
    pause = float(rng.uniform(2.0, 7.0))
    starts = [j for j in jumps if rng.random() < 0.4]
    time = float(rng.exponential(0.6 * pause)) + 0.25
    while time < times[-1] + 0.2:
        starts.append(time)
        if rng.random() < 0.1:
            starts.append(time + float(rng.uniform(0.28, 0.4)))
        time += 0.6 + float(rng.exponential(pause - 0.6))
    for start in starts:
        depth = 1.0 if rng.random() < 0.85 else float(rng.uniform(0.5, 0.85))
        slow = float(rng.uniform(0.85, 1.25))
        out = np.maximum(out, depth * _bump(times, start, 0.075 * slow, 0.035 * slow, 0.15 * slow))
    return out


def _nods(times: np.ndarray, emphasis: np.ndarray, fps: float, rng: np.random.Generator) -> np.ndarray:
    """Nods (n,), 0..1 with a slightly negative rebound, at some of the peaks of `emphasis`."""
    smooth = gaussian_filter1d(emphasis.astype(float), 0.06 * fps)
    peaks = [i for i in range(1, len(smooth) - 1) if smooth[i - 1] < smooth[i] >= smooth[i + 1] and smooth[i] > 0.35]
    out = np.zeros(len(times))
    last = -1.0
    for i in peaks:
        if times[i] - last > 0.35 and rng.random() < 0.5:
            last = times[i]
            size = smooth[i] * float(rng.uniform(0.3, 1.0))
            out += size * (_bump(times, last, 0.16, 0.0, 0.22) - 0.25 * _bump(times, last + 0.34, 0.16, 0.0, 0.25))
    return out


def behave(
    n: int,
    fps: float,
    emphasis: np.ndarray,
    rng: np.random.Generator,
    *,
    mood: Mood | None = None,
    turned: tuple[float, float, float] = (0.0, 0.0, 0.0),
    amount: float = 1.0,
) -> dict[str, np.ndarray]:
    """Motion of `n` frames.

    Args:
        emphasis: (n,) 0..1, loudness of the speech, which makes the head nod and the brows move.
        turned: constant yaw, pitch and roll, to which movement is added.
        amount: scale of the head and brow movement.

    Returns:
        `yaw`, `pitch`, `roll` (n,) and `gaze` (n, 2) in radians; `breath` (n,) -1..1; `units` (n, 52) of lids, brows
        and the mood, which are meant as the `expression` of `articulation.track`. All float32.
    """
    times = (np.arange(n) + 0.5) / fps
    mood = Mood() if mood is None else mood
    temper = float(rng.uniform(0.4, 1.6)) * amount
    slow = wander(n, fps, 1.8, rng, 6)
    quick = wander(n, fps, 0.5, rng, 3)
    nods = _nods(times, emphasis, fps, rng)
    world, jumps = _gaze(times, rng)
    follow = gaussian_filter1d(world, 0.18 * fps, axis=0, mode="nearest") * 0.3
    yaw = turned[0] + temper * (0.075 * slow[0] + 0.012 * quick[0]) + follow[:, 0]
    pitch = turned[1] + temper * (0.035 * slow[1] + 0.01 * quick[1] - 0.075 * nods) + 0.6 * follow[:, 1]
    roll = turned[2] + temper * (
        0.028 * slow[2] + 0.006 * quick[2] + 0.2 * (yaw - turned[0]) * float(rng.normal(0, 0.5))
    )
    # The eyes compensate for the movement of the head, as far as they turn easily.
    gaze = (world + np.array(turned[:2]) * rng.uniform(0, 0.25) - np.stack([yaw, pitch], 1)).clip(-0.45, 0.45)
    blink = _blinks(times, jumps, rng)
    lively = float(rng.uniform(0.0, 0.5)) * amount
    calm = gaussian_filter1d(emphasis.astype(float), 0.15 * fps, mode="nearest")
    raised = (lively * (0.7 * nods.clip(0, 1) + 0.5 * calm * slow[3].clip(0, 2)) + 0.06 * slow[3]).clip(0, 1)
    face = np.zeros((n, len(UNITS)))
    face += mood.units
    for name, share in (("browInnerUp", 0.8), ("browOuterUpLeft", 1.0), ("browOuterUpRight", 1.0)):
        face[:, unit_index(name)] += share * raised
    frown = (0.12 * slow[4] - 0.05).clip(0, 0.3) * float(rng.uniform(0, 1))
    for name in ("browDownLeft", "browDownRight"):
        face[:, unit_index(name)] += frown
    lean = float(rng.normal(0, 0.12))  # the brows are never quite symmetric
    face[:, unit_index("browOuterUpLeft")] *= 1 + lean
    face[:, unit_index("browOuterUpRight")] *= 1 - lean
    for name in BLINK:
        i = unit_index(name)
        face[:, i] = face[:, i] + blink * (1 - face[:, i])
    for name in ("eyeWide", "eyeSquint"):
        columns = [i for i, unit in enumerate(UNITS) if unit.startswith(name)]
        face[:, columns] *= 1 - 0.9 * blink[:, None]
    rate = float(rng.uniform(0.22, 0.35))
    breath = np.sin(2 * np.pi * (rate * times + rng.random()))
    motion = {"yaw": yaw, "pitch": pitch + 0.004 * amount * breath, "roll": roll, "gaze": gaze, "breath": breath}
    return {k: v.astype(np.float32) for k, v in (motion | {"units": face.clip(0, 1)}).items()}


def idle(n: int, fps: float, rng: np.random.Generator) -> np.ndarray:
    """Units (n, 52) float32 of a silent, closed mouth with small movements: a swallow, pressed lips, a brief smile."""
    times = (np.arange(n) + 0.5) / fps
    moves = (
        units(mouthShrugLower=0.3, mouthPress=0.12, mouthRollLower=0.1),
        units(mouthPress=0.2, mouthRollLower=0.2, mouthRollUpper=0.2),
        units(mouthSmile=0.3, cheekSquint=0.15),
        units(mouthLeft=0.15, mouthPress=0.1),
    )
    face = np.zeros((n, len(UNITS)))
    for move in moves:
        if rng.random() < 0.3:
            at = float(rng.uniform(0, times[-1]))
            curve = _bump(
                times, at, float(rng.uniform(0.2, 0.5)), float(rng.uniform(0, 0.5)), float(rng.uniform(0.2, 0.6))
            )
            face += float(rng.uniform(0.3, 1.0)) * curve[:, None] * move
    return face.astype(np.float32)


def portrait_units(rng: np.random.Generator, mood: Mood | None = None) -> tuple[np.ndarray, bool]:
    """Units (52,) float32 of the portrait to animate, and whether its lips are closed.

    Most mouths are closed; the others are parted, smile with bare teeth, or are in the middle of a word. Pass the units
    of a closed mouth to `articulation.seal` with the contact of a rest.
    """
    mood = Mood() if mood is None else mood
    face = mood.units.copy()
    if rng.random() >= OPEN_PORTRAITS:
        return face, True
    strength = float(rng.uniform(0.7, 1.1))
    pictures = (
        units(jawOpen=0.15, mouthUpperUp=0.25, mouthLowerDown=0.2),
        units(mouthSmile=0.6, mouthUpperUp=0.55, mouthLowerDown=0.6, cheekSquint=0.5, eyeSquint=0.25, jawOpen=0.13),
        units(jawOpen=0.32, mouthUpperUp=0.35, mouthLowerDown=0.2),
        units(jawOpen=0.12, mouthFunnel=0.35, mouthPucker=0.4),
    )
    return np.maximum(face, pictures[rng.choice(4, p=(0.3, 0.4, 0.15, 0.15))] * np.float32(strength)), False
