"""Evaluation on pictures of faces, which have no true video: whether the portrait speaks and keeps its looks.

All portraits say the same words of a rendered person, whose mouth openness is known; `mesh` measures the lips. Models
can also be compared with another system's video of a portrait and a recording; then its lips are the truth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..avatars.performance import perform
from ..data.avatars import HELD_OUT_SEED
from ..errors import FadaError
from ..face.detect import LIPS, Detector, load_detector
from ..face.finder import load_finder
from ..face.region import FaceRegion, crop, find_face
from ..media.audio import SAMPLE_RATE, load_audio
from ..media.image import from_uint8, load_image
from ..media.video import probe, read_video
from .cases import Case, EvaluationSet
from .lips import correlation
from .mesh import FaceMesh, openness, still_mask
from .metrics import RESTING, flicker, masked_psnr

PICTURES = (".jpg", ".jpeg", ".png", ".webp")
RECORDINGS, VIDEOS = (".mp3", ".wav", ".flac", ".m4a"), (".mp4", ".webm", ".mkv")


@dataclass(frozen=True)
class PortraitsConfig:
    """Pictures of faces instead of rendered people."""

    portraits: Path | None = None
    """A folder of pictures, which all say the same words."""
    peers: Path | None = None
    """A folder of folders, each with a picture, a recording, and another system's video of them."""
    mesh: Path | None = None
    """mediapipe's face_landmark.tflite (npm package @mediapipe/face_mesh), which measures the lips."""
    words: int = 0
    """Number of the words to say, from 0."""


@dataclass(frozen=True, eq=False)
class Setting:
    """How cases are made of pictures, and judged: `size` of the squares, `fps` and `clip` (frames per clip) of the
    models, and the networks that find faces and measure lips."""

    size: int
    fps: float
    clip: int
    mesh: FaceMesh
    detector: Detector

    def case(self, path: Path, name: str, waveform: Tensor, truth: Tensor, frames: Tensor | None = None) -> Case:
        """A picture that says `waveform` with the openness `truth` (n,); without a true video, `frames` is a still."""
        picture = load_image(path)
        region = find_face(picture, detector=self.detector, required=False)
        square = crop(picture, region, self.size)
        frames = square.expand(len(truth), -1, -1, -1) if frames is None else frames
        judge = partial(measure, portrait=square, truth=truth, mesh=self.mesh, region=region, clip=self.clip)
        return Case(picture[0], waveform, frames, judge, region=region, name=name)


def _peers(folders: Iterable[tuple[Path, Path, Path]], seconds: float, setting: Setting) -> Iterator[Case]:
    """A case for the picture and recording of each folder, with the lips of its video as the truth."""
    for picture, recording, video in folders:
        waveform = load_audio(recording, 0.0, seconds)
        frames = _frames(video, setting.fps, math.ceil(len(waveform) * setting.fps / SAMPLE_RATE))
        where = find_face(frames[:1], detector=setting.detector, required=False)
        theirs = torch.cat([crop(frame[None], where, setting.size) for frame in frames])
        truth = openness(setting.mesh(theirs, where))
        samples = int(len(theirs) / setting.fps * SAMPLE_RATE)
        yield setting.case(picture, picture.parent.name, waveform[:samples], truth, theirs)


def portrait_sets(
    config: PortraitsConfig, seconds: float, size: int, fps: float, clip: int, face_model: Path | None = None
) -> Iterator[EvaluationSet]:
    """The sets `portraits` and `peers`, where `config` has their folders.

    Args:
        seconds: length of each video.
        size, fps, clip: picture side, frame rate and frames per clip of the models.
        face_model: model file of a face detector, as for `fada_core.generate` (default: the project's own finder).

    Raises:
        FadaError: a folder without pictures, no mesh, or a file that cannot be read.
    """
    if config.mesh is None:
        raise FadaError("The lips of portraits are measured by mediapipe's face mesh; give its file with --mesh.")
    detector = load_finder() if face_model is None else load_detector(face_model)
    setting = Setting(size, fps, clip, FaceMesh(config.mesh), detector)
    if config.portraits is not None:
        paths = _files(config.portraits, PICTURES)
        if not paths:
            raise FadaError(f"There is no picture in '{config.portraits}'; give a folder of portraits.")
        said = perform(HELD_OUT_SEED + config.words, "high", seconds, fps)
        waveform, opened = (torch.from_numpy(value) for value in (said.speech.waveform, said.mouth["openness"]))
        cases = (setting.case(path, path.name, waveform, opened) for path in paths)
        yield EvaluationSet("portraits", len(paths), cases, {})
    if config.peers is not None:
        folders = []
        for folder in sorted(path for path in config.peers.iterdir() if path.is_dir()):
            pictures, recordings, videos = (_files(folder, kind) for kind in (PICTURES, RECORDINGS, VIDEOS))
            if pictures and recordings and videos:
                folders.append((pictures[0], recordings[0], videos[0]))
        if not folders:
            raise FadaError(f"No folder in '{config.peers}' has a picture, a recording and a video; correct --peers.")
        yield EvaluationSet("peers", len(folders), _peers(folders, seconds, setting), {})


def measure(
    frames: Tensor, *, portrait: Tensor, truth: Tensor, mesh: FaceMesh, region: FaceRegion, clip: int
) -> dict[str, float]:
    """Metrics of a portrait's video.

    Args:
        frames: (n, 3, s, s) in -1..1.
        portrait: the square of the portrait, (1, 3, s, s).
        truth: openness of the lips, (n,).
        region: of the face in the picture from which the square was cropped.
        clip: number of frames that are denoised together.

    Returns:
        lips_r: correlation between the openness measured by `mesh` and the true one.
        lips_reach: 95th minus 5th percentile of the openness, which is relative to the width of the mouth.
        openness_at_rest: mean openness while the true mouth is closed.
        psnr_first_clip, psnr_last_clip: PSNR in dB between the portrait and the part that does not speak, in the first
            and the last clip; their difference shows drift.
        flicker: see `metrics.flicker`, on the same part.
        mouth_sharpness: mean gradient of the mouth's pixels, relative to that of the portrait.
    """
    landmarks = mesh(frames, region)
    opened = openness(landmarks)
    low, high = np.percentile(opened.numpy(), (5, 95))
    mask = still_mask(landmarks, frames.shape[-1])
    lips = landmarks[:, list(LIPS)]
    box = torch.cat([lips.amin((0, 1)), lips.amax((0, 1))]).round().long().clamp(0, frames.shape[-1] - 2)
    mouth = slice(None), slice(None), slice(int(box[1]), int(box[3]) + 2), slice(int(box[0]), int(box[2]) + 2)
    values = {
        "lips_r": correlation(opened, truth),
        "lips_reach": float(high - low),
        "psnr_first_clip": masked_psnr(frames[:clip], portrait, mask),
        "psnr_last_clip": masked_psnr(frames[-clip:], portrait, mask),
        "flicker": flicker(frames, mask),
        "mouth_sharpness": _slope(frames[mouth]) / max(_slope(portrait[mouth]), 1e-6),
    }
    resting = truth < RESTING
    if resting.any():
        values["openness_at_rest"] = float(opened[resting].mean())
    return values


def _slope(pictures: Tensor) -> float:
    return float(pictures.diff(dim=-1).abs().mean() + pictures.diff(dim=-2).abs().mean())


def _frames(path: Path, fps: float, count: int) -> Tensor:
    """At most `count` frames of a video at `fps`, (n, 3, h, w) in -1..1: of another rate, the nearest in time."""
    step = probe(path).fps / fps
    wanted = [round(i * step) for i in range(count)]
    frames = [frame for i, frame in enumerate(islice(read_video(path), wanted[-1] + 1)) if i in set(wanted)]
    return from_uint8(torch.from_numpy(np.stack(frames)).movedim(-1, 1))


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    if not folder.is_dir():
        raise FadaError(f"There is no folder '{folder}'; correct the path.")
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
