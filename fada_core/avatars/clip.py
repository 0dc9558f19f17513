"""A whole clip from a seed: the person, the sound, the motion of the face, and the rendered frames."""

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
from .mesh import triple
from .performance import Performance, Pool, generator, perform
from .person import Person, make_scene
from .phones import SAMPLE_RATE, Phoneme
from .render import Motion, Renderer
from .scene import Scene
from .skin import polished
from .speech import Speech, sample_voice, talk

Framing = Literal["any", "face"]
FILMED = (styles.STYLES[0], "black and white", *styles.STATUES)  #: styles that get the effects of a camera
FIGURES = ("rendering", "anime")  #: styles in which skin has no pores
OFF_STEP = 2  #: largest offset, in frames, of the sound of a moderate clip


@dataclass
class AvatarClip:
    """A clip of a talking person with its ground truth.

    `portrait` (3, size, size) uint8: a still of the same person in the same light, mostly with a closed mouth.
    `frames` (n, 3, size, size) uint8. `clean_portrait` and `clean_frames`: the same without the defects of the moderate
    pool. `parts` (n, size, size) uint8: the `mesh.Part` that each pixel shows, before styling. `waveform` (samples,)
    float32 mono 16 kHz lasts exactly n / fps seconds and is `av_offset` frames late (early if negative); `phonemes` are
    in sync with the frames. `truth` has one row per frame: `openness`, `width`, `rounding` (n,) of the mouth in 0..1,
    `units` (n, 52), `yaw`, `pitch`, `roll` (n,) and `gaze` (n, 2) in radians, and in pixels `landmarks` (n, 68, 2),
    `mouth_box`, `eyes_box`, `face_box`, `hair_box` (n, 4). `degradations` lists the defects of picture and sound with
    their strengths; `style` is one of `styles.STYLES`.
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
    """Move and zoom the scene's camera so that the portrait's face is framed about as by the crop of `face.region`."""
    camera = scene.camera
    posed = motion.pose(scene.head, 0)
    share = rng.uniform(0.85, 1.2) / (1 + 2 * MARGIN)
    aim = size / 2 + rng.normal(0, 0.03, 2) * size
    for _ in range(3):  # repeated, because perspective changes slightly as the camera moves
        left, top, right, bottom = boxes(landmarks(posed, camera, size))["face"]
        right_of, up = camera.view()[:2, :3]
        pixels = np.array([(left + right) / 2, (top + bottom) / 2]) - size / 2
        shift = (pixels[0] * right_of - pixels[1] * up) * 2 * camera.half / size
        half = camera.half * max(right - left, bottom - top) / (share * size)
        shift -= ((aim[0] - size / 2) * right_of - (aim[1] - size / 2) * up) * 2 * half / size
        camera = replace(camera, eye=triple(camera.eye + shift), target=triple(camera.target + shift), half=half)
    return camera


def _others(rng: np.random.Generator, samples: int) -> list[np.ndarray]:
    """Waveforms (samples,) of one to three other people who talk at the same time."""
    voices = [sample_voice(rng, rng.uniform(0.2, 0.8), rng.random(), ("espeak",)) for _ in range(rng.integers(1, 4))]
    return [talk(samples / SAMPLE_RATE, voice, rng).waveform for voice in voices]


@dataclass
class Utterance:
    """The sound of a clip, `waveform` (samples,) float32 mono 16 kHz, and the `performance` in sync with it."""

    waveform: np.ndarray
    performance: Performance


def utter(seed: int, pool: Pool = "high", seconds: float = 4.0, *, fps: float = 25.0) -> Utterance:
    """Sound and motion of the clip of `seed` without its pictures, at a tenth of the cost.

    Unlike in `sample`, the sound of the moderate pool is in sync.

    Raises:
        FadaError: an unknown pool, no frames, or espeak-ng is needed but missing.
    """
    act = perform(seed, pool, seconds, fps)
    return Utterance(_recorded(act.speech.waveform, seed, pool)[0], act)


def _recorded(waveform: np.ndarray, seed: int, pool: Pool) -> tuple[np.ndarray, list[str]]:
    """Speech `waveform` of the clip of `seed` with the defects of a recording, and the names of these defects."""
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
    """Render the clip of `seed`. The same arguments give the same clip on the same machine.

    Args:
        pool: high has clean photographs; moderate has all styles, harsher light and cameras, defects, and sound out of
            sync.
        size: side of the picture in pixels, at least 16.
        person_seed: seed of face, hair and clothes; default `seed`.
        words_seed: seed of the words and the mouth movement; default `seed`. Clips that differ only in it share the
            person, the light, the expression and the head movement.
        speech: used in place of synthetic speech; cut or padded with silence to `seconds`.
        style: one of `styles.STYLES`; default a photograph in the high pool, any style in the moderate one.
        framing: "any" is between a tight face and a bust; "face" is the square crop that a model is given, with the
            face in its centre.

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
    elif style in styles.STATUES:  # statues have no mask, and no hand in front of the mouth
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
    clean, av_offset = frames, 0
    defects: list[str] = []
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
