"""The interface of face detectors, and detectors of optional libraries, which need a model file from the user.

These are mediapipe's FaceLandmarker (`face_landmarker.task`, Apache-2.0) and OpenCV's YuNet
(`face_detection_yunet_2023mar.onnx`, MIT). The project's own detector is in `finder`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import FadaError
from .masks import Box

Points = tuple[tuple[float, float], ...]
"""(x, y) in pixels of both eyes, the tip of the nose and both mouth corners; of each pair the left one in the picture
comes first."""

# Vertices of mediapipe's face mesh (478 points).
SILHOUETTE = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
_POINTS = ((33, 133), (362, 263), (1,), (61,), (291,))  # each of the five points is the mean of these vertices

# Proportions of mediapipe's canonical face, relative to the width and height of the silhouette.
_LIPS_IN_FACE = Box(0.34, 0.66, 0.66, 0.78)
_POINTS_IN_FACE = ((0.295, 0.32), (0.705, 0.32), (0.5, 0.52), (0.34, 0.713), (0.66, 0.713))
_LIP_HEIGHT = 0.43  #: height of the lips, relative to the width of the mouth

_MAX_FACES = 8
_SCORE = 0.6  #: smallest score 0..1 of a face found by YuNet


class Face(NamedTuple):
    """A face in a picture, in pixels; parts of it may lie outside the picture."""

    box: Box  #: the silhouette, from forehead to chin and from ear to ear
    lips: Box
    points: Points


Detector = Callable[[np.ndarray], list[Face]]
"""Takes a picture (h, w, 3) uint8 RGB and returns the faces in it, in any order."""


def face_of_box(box: Box) -> Face:
    """A face that fills `box`, with lips and points in the places of an average frontal face."""
    x, y = box.x0, box.y0
    low, high = _LIPS_IN_FACE[:2], _LIPS_IN_FACE[2:]
    corners = [(x + px * box.width, y + py * box.height) for px, py in (low, high, *_POINTS_IN_FACE)]
    return Face(box, Box(*corners[0], *corners[1]), tuple(corners[2:]))


def face_of_landmarks(landmarks: np.ndarray) -> Face:
    """The face of mediapipe's landmarks (478, 2) in pixels."""

    def bounds(vertices: tuple[int, ...]) -> Box:
        chosen = landmarks[list(vertices)]
        return Box(*chosen.min(0).tolist(), *chosen.max(0).tolist())

    points = tuple(tuple(landmarks[list(vertices)].mean(0).tolist()) for vertices in _POINTS)
    return Face(bounds(SILHOUETTE), bounds(LIPS), points)


def load_detector(path: str | Path) -> Detector:
    """Load a detector from its model file: `.task` for mediapipe's FaceLandmarker, `.onnx` for YuNet.

    Raises:
        FadaError: the file is missing or not a detector's, or the library that runs it is missing.
    """
    path = Path(path)
    kind = next((kind for kind in _KINDS if path.suffix.lower() == kind.suffix), None)
    if kind is None:
        raise FadaError(f"'{path.name}' is not a face detector; give a face_landmarker.task or a YuNet .onnx file.")
    if not path.is_file():
        raise FadaError(f"There is no file '{path}'; give the path of a face detector's model.")
    if importlib.util.find_spec(kind.library) is None:
        raise FadaError(f"'{path.name}' needs the library {kind.library}; run: pip install {kind.package}")
    try:
        return kind.load(path)
    except ImportError as error:  # installed for another Python, or one of its own requirements is missing
        raise FadaError(f"The library {kind.library} cannot be loaded ({error}); install it again.") from error


def _face_landmarker(path: Path) -> Detector:
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    try:
        landmarker = vision.FaceLandmarker.create_from_options(
            vision.FaceLandmarkerOptions(
                # As bytes, because mediapipe cannot open paths with non-ASCII characters on every system.
                base_options=BaseOptions(model_asset_buffer=path.read_bytes()),
                num_faces=_MAX_FACES,
            )
        )
    except (RuntimeError, ValueError) as error:
        raise FadaError(f"'{path.name}' is not a model of mediapipe's FaceLandmarker; download it again.") from error

    def detect(pixels: np.ndarray) -> list[Face]:
        picture = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(pixels))
        height, width = pixels.shape[:2]
        found = landmarker.detect(picture).face_landmarks
        return [face_of_landmarks(np.array([(mark.x * width, mark.y * height) for mark in face])) for face in found]

    return detect


def _yunet(path: Path) -> Detector:
    import cv2

    try:
        network = cv2.FaceDetectorYN.create(str(path), "", (320, 320), score_threshold=_SCORE)
    except cv2.error as error:
        raise FadaError(f"'{path.name}' is not a model of OpenCV's YuNet; download it again.") from error

    def detect(pixels: np.ndarray) -> list[Face]:
        network.setInputSize((pixels.shape[1], pixels.shape[0]))
        try:
            _, found = network.detect(np.ascontiguousarray(pixels[..., ::-1]))
        except cv2.error as error:
            raise FadaError(f"'{path.name}' does not run as YuNet; give a face_detection_yunet file.") from error
        return [] if found is None else [_face_of_yunet(row) for row in found.astype(float)]

    return detect


def _face_of_yunet(row: np.ndarray) -> Face:
    """The face of a row (15,) of YuNet: left, top, width and height of the box, five points, score."""
    x, y, width, height = row[:4].tolist()
    points = tuple(tuple(point) for point in row[4:14].reshape(5, 2).tolist())
    (left, upper), (right, lower) = points[3:]
    reach, middle = abs(right - left) / 2, (upper + lower) / 2
    lips = Box(min(left, right), middle - _LIP_HEIGHT * reach, max(left, right), middle + _LIP_HEIGHT * reach)
    return Face(Box(x, y, x + width, y + height), lips, points)


class _Kind(NamedTuple):
    suffix: str
    library: str
    package: str
    load: Callable[[Path], Detector]


_KINDS = (
    _Kind(".task", "mediapipe", "mediapipe", _face_landmarker),
    _Kind(".onnx", "cv2", "opencv-python-headless", _yunet),
)
