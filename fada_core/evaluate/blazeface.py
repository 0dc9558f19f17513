"""mediapipe's short-range BlazeFace (Bazarevsky et al. 2019, Apache-2.0), run by ai-edge-litert, for comparison."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import FadaError
from ..face.detect import Detector, Face, face_of_box
from ..face.finder import best
from ..face.masks import Box

SIDE = 128  #: of the network's input, in pixels
ANCHORS = ((16, 2), (8, 6))  #: cells per side of each map, and anchors per cell
CERTAIN = 0.5  #: smallest certainty of a face
OVERLAP = 0.3  #: shared area, relative to the smaller of two boxes, above which they count as one face


def load_blazeface(path: str | Path) -> Detector:
    """Load a detector from face_detection_short_range.tflite.

    Raises:
        FadaError: the file or ai-edge-litert is missing.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise FadaError("BlazeFace needs the package ai-edge-litert; run: pip install ai-edge-litert") from error
    if not Path(path).is_file():
        raise FadaError(f"There is no file '{path}'; it is in the npm package @mediapipe/face_detection.")
    network = Interpreter(model_path=str(path), num_threads=1)
    network.allocate_tensors()
    outputs = sorted(network.get_output_details(), key=lambda output: output["shape"][-1])
    where = np.concatenate(
        [((np.mgrid[:n, :n][::-1].reshape(2, -1).T + 0.5) / n).repeat(times, 0) for n, times in ANCHORS]
    )

    def detect(pixels: np.ndarray) -> list[Face]:
        height, width = pixels.shape[:2]
        longer = max(height, width)
        square = Image.new("RGB", (longer, longer))
        square.paste(Image.fromarray(pixels), ((longer - width) // 2, (longer - height) // 2))
        small = np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32) / 127.5 - 1
        network.set_tensor(network.get_input_details()[0]["index"], small[None])
        network.invoke()
        logits, cells = (network.get_tensor(output["index"])[0] for output in outputs)
        middle, half = where + cells[:, :2] / SIDE, cells[:, 2:4] / SIDE / 2
        boxes = np.concatenate([middle - half, middle + half], 1) * longer
        boxes -= np.tile([(longer - width) // 2, (longer - height) // 2], 2)
        certainty = 1 / (1 + np.exp(-logits[:, 0].clip(-80, 80)))
        return [face_of_box(Box(*boxes[n].tolist())) for n in best(boxes, certainty, CERTAIN, OVERLAP)]

    return detect
