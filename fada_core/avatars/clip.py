"""A whole clip by its seed: who speaks, what is heard, how the face moves, and the frames that show it."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch

from ..errors import FadaError
from ..face.region import MARGIN
from . import sound, styles
from .camera import develop, sample_camera_look
from .degrade import degrade
from .landmarks import boxes, hair_box, landmarks
from .light import Camera
from .performance import Performance, Pool, generator, perform
from .person import Person, make_scene
from .phones import SAMPLE_RATE, Phoneme
from .render import Motion, Renderer
from .scene import Scene
from .skin import polished
from .speech import Speech, sample_voice, talk

Framing = Literal["any", "face"]
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
    `eyes_box`, `face_box`, `hair_box` (n, 4). `degradations` name the defects of picture and sound with their
    strengths; `style` is one of `styles.STYLES`.
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


@dataclass
class Utterance:
    """What is heard of a clip, `waveform` (samples,) float32 mono 16 kHz, and `performance`, in step with it."""

    waveform: np.ndarray
    performance: Performance


def utter(seed: int, pool: Pool = "high", seconds: float = 4.0, *, fps: float = 25.0) -> Utterance:
    """The clip of `seed` without its pictures, at a tenth of the cost; of the moderate pool, its sound is in step.

    Raises:
        FadaError: an unknown pool, no frames, or espeak-ng is needed but missing.
    """
    act = perform(seed, pool, seconds, fps)
    return Utterance(_recorded(act.speech.waveform, seed, pool)[0], act)


def _recorded(waveform: np.ndarray, seed: int, pool: Pool) -> tuple[np.ndarray, list[str]]:
    """The speech of the clip of `seed` as it was recorded, and the defects of the recording."""
    others = _others(generator(seed, pool, "others"), len(waveform)) if pool == "moderate" else None
    return sound.record(waveform, pool, generator(seed, pool, "recording"), others)


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
    if framing not in get_args(Framing):
        raise FadaError(f"There is no framing '{framing}'; choose any or face.")
    if size < 16:
        raise FadaError(f"An avatar clip needs at least 16 pixels a side, not {size}.")
    act = perform(seed, pool, seconds, fps, person_seed=person_seed, words_seed=words_seed, speech=speech)
    person, speech, motion = act.person, act.speech, act.motion

    def rng(purpose: str) -> np.random.Generator:
        return generator(seed, pool, purpose)

    style = styles.sample_style(rng("style"), pool) if style is None else style
    if style in FIGURES:
        person = replace(person, skin=polished(person.skin))
    elif style in styles.STATUES:  # nobody carves a hand before the mouth, which hides what a model is to learn
        person = replace(person, wardrobe=replace(person.wardrobe, mask=False, prop=""))
    scene = make_scene(person, rng("scene"), pool, size, style)
    if framing == "face":
        scene.camera = _on_the_face(scene, motion, size, rng("camera"))
    pictures, parts, poses = Renderer(size).frames(scene, motion)
    pictures = styles.apply(styles.prepare(style, pictures[0], parts[0], rng("style")), pictures, parts)
    if style in FILMED:
        lens = rng("lens")
        pictures = develop(sample_camera_look(lens, pool), pictures, lens)

    points = np.stack([landmarks(posed, scene.camera, size) for posed in poses[1:]])
    where = [boxes(each) for each in points]
    truth = {f"{name}_box": torch.tensor([row[name] for row in where]) for name in where[0]}
    truth["hair_box"] = torch.tensor([hair_box(each) for each in parts[1:]])
    truth["landmarks"] = torch.from_numpy(points)
    truth |= {name: torch.from_numpy(value) for name, value in act.mouth.items()}
    for name in ("units", "yaw", "pitch", "roll", "gaze"):
        truth[name] = torch.from_numpy(getattr(motion, name)[1:]).float()
    waveform, heard = _recorded(speech.waveform, seed, pool)
    frames = torch.from_numpy(pictures).movedim(-1, 1).contiguous()
    clean, defects, av_offset = frames, [], 0
    if pool == "moderate":
        suffered = rng("defects")
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
