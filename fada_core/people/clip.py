"""A whole clip by its seed: who speaks, what is heard, how the face moves, and the frames that show it."""

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d

from ..errors import FadaError
from ..face.region import MARGIN
from . import sound, styles
from .articulation import loudness, mouth, seal, track
from .behaviour import behave, idle, portrait_units, sample_mood
from .camera import develop, sample_camera_look
from .degrade import degrade
from .landmarks import boxes, landmarks
from .light import Camera
from .person import Person, make_scene, sample_person
from .phones import SAMPLE_RATE, Phoneme
from .render import Motion, Renderer
from .scene import Scene
from .skin import polished
from .speech import Speech, fitted, sample_voice, talk

Pool = Literal["high", "moderate"]
Framing = Literal["any", "face"]
SPEECHLESS = 0.12  #: share of clips in which nobody speaks, so that a model learns to keep the mouth closed
CALM = 0.5  #: share of the clips in which the head hardly moves
_RESTING = np.array([[0.0], [0.0], [1.0]])  # contacts of lips that rest on each other
FILMED = (styles.STYLES[0], "black and white", *styles.STATUES)  #: styles of pictures that a camera took
FIGURES = ("rendering", "anime")  #: styles in which skin has no pores
OFF_STEP = 2  #: frames by which the sound of a moderate clip is early or late at most


@dataclass
class AvatarClip:
    """A talking person with everything that is true about the clip.

    `portrait` (3, size, size) uint8: a still of the same person in the same light, mostly with a closed mouth.
    `frames` (n, 3, size, size) uint8. `clean_portrait` and `clean_frames`: the same before any defect of the moderate
    pool. `parts` (n, size, size) uint8: what a pixel shows (`mesh.Part`), before any style. `waveform` (samples,)
    float32 mono 16 kHz, exactly n / fps seconds, comes `av_offset` frames late; `phonemes` are in step with the
    frames. `truth` has a row a frame: `openness`, `width`, `rounding` (n,) of the mouth in 0..1, `units` (n, 52),
    `yaw`, `pitch`, `roll` (n,) and `gaze` (n, 2) in radians, and in pixels `landmarks` (n, 68, 2), `mouth_box`,
    `eyes_box`, `face_box` (n, 4). `degradations` name the defects of picture and sound with their strengths; `style`
    is one of `styles.STYLES`.
    """

    portrait: torch.Tensor
    clean_portrait: torch.Tensor
    frames: torch.Tensor
    clean_frames: torch.Tensor
    parts: torch.Tensor
    waveform: torch.Tensor
    truth: dict[str, torch.Tensor]
    person: Person
    phonemes: list[Phoneme]
    voice: str
    text: str
    style: str
    pool: Pool
    degradations: list[str]
    av_offset: int
    seed: int
    fps: float


def _turned(rng: np.random.Generator, pool: str) -> tuple[float, float, float]:
    """Yaw, pitch and roll, in radians, that the head keeps: mostly to the camera."""
    deviation, most = (0.14, 0.52) if pool == "high" else (0.3, 0.87)
    yaw = float(np.clip(rng.normal(0, deviation), -most, most))
    return yaw, float(rng.normal(0, 0.05)), float(rng.normal(0, 0.04))


def _amount(rng: np.random.Generator, pool: str) -> float:
    """How much the head moves, as `behave` takes it."""
    if rng.random() < CALM:
        return float(rng.uniform(0.05, 0.2))
    return float(rng.uniform(0.2, 0.6 if pool == "high" else 1.2))


def _on_the_face(scene: Scene, motion: Motion, size: int, rng: np.random.Generator) -> Camera:
    """The scene's camera moved and zoomed until the still's face lies about as `face.region` cuts portraits."""
    camera = scene.camera
    posed = scene.head.pose(
        motion.units[0], float(motion.yaw[0]), float(motion.pitch[0]), float(motion.roll[0]), gaze=tuple(motion.gaze[0])
    )
    share = rng.uniform(0.85, 1.2) / (1 + 2 * MARGIN)
    aim = size / 2 + rng.normal(0, 0.03, 2) * size
    for _ in range(3):  # perspective changes a little as the camera moves
        left, top, right, bottom = boxes(landmarks(posed, camera, size))["face"]
        right_of, up = camera.view()[:2, :3]
        pixels = np.array([(left + right) / 2, (top + bottom) / 2]) - size / 2
        shift = (pixels[0] * right_of - pixels[1] * up) * 2 * camera.half / size
        half = camera.half * max(right - left, bottom - top) / (share * size)
        shift -= ((aim[0] - size / 2) * right_of - (aim[1] - size / 2) * up) * 2 * half / size
        eye, target = (tuple((np.array(p) + shift).tolist()) for p in (camera.eye, camera.target))
        camera = replace(camera, eye=eye, target=target, half=half)
    return camera


def _others(rng: np.random.Generator, samples: int) -> list[np.ndarray]:
    """Voices of some who talk at the same time."""
    voices = [sample_voice(rng, rng.uniform(0.2, 0.8), rng.random(), ("espeak",)) for _ in range(rng.integers(1, 4))]
    return [talk(samples / SAMPLE_RATE, voice, rng).waveform for voice in voices]


def sample(
    seed: int,
    pool: Pool = "high",
    seconds: float = 4.0,
    *,
    size: int = 256,
    fps: float = 25.0,
    person_seed: int | None = None,
    words_seed: int | None = None,
    speech: Speech | None = None,
    style: str | None = None,
    framing: Framing = "any",
) -> AvatarClip:
    """The clip of `seed`: the same on one machine every time.

    Args:
        pool: high is clean photographs; moderate has all styles, wilder light and cameras, defects, sound out of step.
        size: side of the picture in pixels, at least 16.
        person_seed: whose face, hair and clothes; default `seed`.
        words_seed: what is said, and how the mouth moves; default `seed`. Clips that differ in it alone have the same
            person, light, expression and head movement, and other words.
        speech: is spoken instead, cut or padded with silence to `seconds`.
        style: one of `styles.STYLES`; default a photograph in the high pool, any in the moderate one.
        framing: "any" is a photographer's, from a tight face to a bust; "face" the square that a model is given, with
            the face in its middle.

    Raises:
        FadaError: an unknown pool, style or framing, no frames, too small a size, or espeak-ng is needed but missing.
    """
    if pool not in get_args(Pool):
        raise FadaError(f"There is no pool '{pool}' of avatars; choose high or moderate.")
    if framing not in get_args(Framing):
        raise FadaError(f"There is no framing '{framing}'; choose any or face.")
    n = round(seconds * fps) if math.isfinite(seconds * fps) else 0
    if n < 1 or size < 16:
        raise FadaError("An avatar clip needs at least one frame and 16 pixels; raise seconds, fps or size.")
    moderate = pool == "moderate"

    def rng(purpose: int, who: int | None = None) -> np.random.Generator:
        return np.random.default_rng([seed if who is None else who, moderate, purpose])

    person = sample_person(rng(0, person_seed), pool)
    style = styles.sample_style(rng(5), pool) if style is None else style
    if style in FIGURES:
        person = replace(person, skin=polished(person.skin))
    elif style in styles.STATUES:  # nobody carves a hand before the mouth, which hides what a model is to learn
        person = replace(person, wardrobe=replace(person.wardrobe, mask=False, prop=""))
    scene = make_scene(person, rng(1), pool, size, style)

    words = rng(3, words_seed)
    samples = round(n / fps * SAMPLE_RATE)
    silent = speech is None and words.random() < SPEECHLESS
    if silent:
        waveform, kind = sound.speechless(samples / SAMPLE_RATE, words)
        speech = Speech(waveform, [], "", kind)
    elif speech is None:
        speech = talk(samples / SAMPLE_RATE, sample_voice(words, person.age, person.sex), words)
    speech = fitted(speech, samples)

    # For the same movement with other words, what the head does cannot follow these words' loudness.
    acting = rng(4)
    emphasis = loudness(speech.waveform, n, fps) if speech.phonemes else np.zeros(n, np.float32)
    if words_seed is not None:
        emphasis = gaussian_filter1d(np.abs(acting.normal(0, 1.0, n)), 0.08 * fps).clip(0, 1)
    mood = sample_mood(acting)
    moved = behave(n, fps, emphasis, acting, mood=mood, turned=_turned(acting, pool), amount=_amount(acting, pool))
    face = track(speech.phonemes, speech.waveform, n, fps, person.habits, words, moved["units"])
    if not speech.phonemes:
        face["units"] = seal(np.maximum(face["units"], idle(n, fps, words)), _RESTING.repeat(n, 1))
        face |= mouth(face["units"])

    # One rendering for all: the still to be animated, then the frames.
    still, closed = portrait_units(acting, mood)
    still = seal(still[None], _RESTING) if closed else still[None]
    pose = {name: np.append(moved[name][:1] + acting.normal(0, 0.02), moved[name]) for name in ("yaw", "pitch", "roll")}
    gaze = np.concatenate([moved["gaze"][:1] * 0.3, moved["gaze"]])
    motion = Motion(np.concatenate([still, face["units"]]), gaze=gaze, **pose)
    if framing == "face":
        scene.camera = _on_the_face(scene, motion, size, rng(2))
    pictures, parts, poses = Renderer(size).frames(scene, motion)
    pictures = styles.apply(styles.prepare(style, pictures[0], parts[0], rng(5)), pictures, parts)
    if style in FILMED:
        lens = rng(6)
        pictures = develop(sample_camera_look(lens, pool), pictures, lens)

    points = np.stack([landmarks(posed, scene.camera, size) for posed in poses[1:]])
    where = [boxes(each) for each in points]
    truth = {f"{name}_box": torch.tensor([row[name] for row in where]) for name in where[0]}
    truth["landmarks"] = torch.from_numpy(points)
    for name in ("openness", "width", "rounding", "units"):
        truth[name] = torch.from_numpy(face[name])
    for name in ("yaw", "pitch", "roll", "gaze"):
        truth[name] = torch.from_numpy(moved[name])
    waveform, heard = sound.record(speech.waveform, pool, rng(7), _others(rng(8), samples) if moderate else None)
    frames = torch.from_numpy(pictures).movedim(-1, 1).contiguous()
    clean, defects, av_offset = frames, [], 0
    if moderate:
        suffered = rng(9)
        frames, defects = degrade(frames, torch.Generator().manual_seed(int(suffered.integers(2**62))))
        av_offset = int(suffered.integers(-OFF_STEP, OFF_STEP + 1))
        waveform = sound.delay(waveform, round(av_offset / fps * SAMPLE_RATE))
    return AvatarClip(
        portrait=frames[0],
        clean_portrait=clean[0],
        frames=frames[1:],
        clean_frames=clean[1:],
        parts=torch.from_numpy(parts[1:]),
        waveform=torch.from_numpy(waveform),
        truth=truth,
        person=person,
        phonemes=speech.phonemes,
        voice=speech.voice,
        text=speech.text,
        style=style,
        pool=pool,
        degradations=defects + heard,
        av_offset=av_offset,
        seed=seed,
        fps=fps,
    )
