"""Lips of real faces from an independent network: mediapipe's face mesh (468 points, Apache-2.0).

It must not be used in any training of the project. Its file, face_landmark.tflite, is in the npm package
@mediapipe/face_mesh; the package ai-edge-litert runs it.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import FadaError
from ..face.region import FaceRegion

SIDE = 192  #: of the network's input, in pixels
ROOM = 1.5  #: side of the input square, relative to the longer side of the landmarks' box, as in mediapipe's graph
LOOKS = 3  #: number of passes; each takes its square from the landmarks of the pass before
UPPER, LOWER, CORNERS = 13, 14, (78, 308)  #: landmarks of the inner lips: middle and corners
EYES = 33, 263  #: outer corners
JAW = (132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361)  #: from ear to ear
LIDS = ((33, 159, 133, 145), (362, 386, 263, 374))  #: corners and middles of the lids of both eyes


class FaceMesh:
    """mediapipe's face mesh.

    Args:
        path: of face_landmark.tflite.

    Raises:
        FadaError: the file or ai-edge-litert is missing, or the file is another network.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise FadaError("Reading lips needs the package ai-edge-litert; run: pip install ai-edge-litert") from error
        if not Path(path).is_file():
            raise FadaError(f"There is no file '{path}'; it is in the npm package @mediapipe/face_mesh.")
        try:
            self._network = Interpreter(model_path=str(path), num_threads=1)
            self._network.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise FadaError(f"'{path}' cannot be run by ai-edge-litert; give face_landmark.tflite.") from error
        self._input = self._network.get_input_details()[0]
        outputs = self._network.get_output_details()
        self._output = next((o["index"] for o in outputs if math.prod(o["shape"]) == 468 * 3), None)
        if self._output is None or tuple(self._input["shape"]) != (1, SIDE, SIDE, 3):
            raise FadaError(f"'{path}' is not mediapipe's face mesh; give face_landmark.tflite.")

    def __call__(self, frames: Tensor, region: FaceRegion) -> Tensor:
        """Landmarks (n, 468, 2) in pixels of the frames (n, 3, s, s) in -1..1, which show the region's square.

        The same input square is used for all frames, so that its jitter is not taken for lip movement.
        """
        scale = frames.shape[-1] / region.side
        box = region.face.shifted(-region.left, -region.top)
        middle = torch.tensor([box.x0 + box.x1, box.y0 + box.y1]) * scale / 2
        side, angle = 1.25 * scale * max(box.width, box.height), 0.0
        some = frames[:: max(1, len(frames) // 5)]
        for _ in range(LOOKS - 1):
            points = self._look(some, middle, side, angle).mean(0)
            eyes = points[EYES[1]] - points[EYES[0]]
            angle = math.atan2(float(eyes[1]), float(eyes[0]))
            turned = points @ _rotation(-angle).T
            low, high = turned.amin(0), turned.amax(0)
            middle, side = (low + high) / 2 @ _rotation(angle).T, ROOM * float((high - low).max())
        return self._look(frames, middle, side, angle)

    def _look(self, frames: Tensor, middle: Tensor, side: float, angle: float) -> Tensor:
        size = frames.shape[-1]
        turn = _rotation(angle) * side
        # The map from output to input coordinates for affine_grid, both -1..1.
        matrix = torch.cat([turn / size, (2 * middle / size - 1)[:, None]], 1)[None]
        grid = F.affine_grid(matrix.expand(len(frames), -1, -1), [len(frames), 3, SIDE, SIDE], align_corners=False)
        seen = F.grid_sample(frames.float(), grid, padding_mode="border", align_corners=False)
        landmarks = []
        for picture in ((seen + 1) / 2).movedim(1, -1).numpy():
            self._network.set_tensor(self._input["index"], picture[None].astype(np.float32))
            self._network.invoke()
            landmarks.append(self._network.get_tensor(self._output).reshape(468, 3)[:, :2].copy())
        unit = torch.from_numpy(np.stack(landmarks)) / SIDE - 0.5
        return unit @ turn.T + middle


def _rotation(angle: float) -> Tensor:
    return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def openness(landmarks: Tensor) -> Tensor:
    """Gap of the inner lips relative to the width of the mouth (n,), from landmarks (n, 468, 2)."""
    gap = (landmarks[:, UPPER] - landmarks[:, LOWER]).norm(dim=-1)
    return gap / (landmarks[:, CORNERS[0]] - landmarks[:, CORNERS[1]]).norm(dim=-1).clamp(min=1e-3)


def still_mask(landmarks: Tensor, size: int) -> Tensor:
    """Mask (1, 1, size, size) of the part that does not speak: 0 in the boxes of the lower face and the eyes."""
    ys, xs = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    place = torch.stack([xs, ys], -1)
    mask = torch.ones(size, size)
    nose = landmarks[:, 1]
    for box in (torch.cat([landmarks[:, list(JAW)], nose[:, None]], 1), *(landmarks[:, list(lid)] for lid in LIDS)):
        low, high = box.amin((0, 1)), box.amax((0, 1))
        room = 0.15 * (high - low).amax()
        mask[((place > low - room) & (place < high + room)).all(-1)] = 0
    return mask[None, None]
