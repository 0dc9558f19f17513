"""Command: compare face detectors on pictures, on degraded versions of them, and on pictures without faces.

python -m fada_core.evaluate.faces --pictures portraits --truth faces.json --out faces.md

The truth is a JSON file with the boxes of the faces in each picture by its name, [[left, top, right, bottom], ...] in
pixels, from forehead to chin and from ear to ear; the list is empty for a picture without faces.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..atomic import whole_file
from ..command import run_command
from ..errors import FadaError
from ..face.detect import Detector, load_detector
from ..face.finder import load_finder
from ..pretrain.nonfaces import draw
from .blazeface import load_blazeface

Spoilt = tuple[Image.Image, np.ndarray]
"""A degraded picture, and the matrix (3, 3) from pixels of the original to its pixels."""
_DRAWN_SEED = 1_000_000  #: first seed of drawn pictures, which no training uses


@dataclass
class FacesConfig:
    """Compare the project's face finder with other detectors."""

    pictures: Path
    """Folder of pictures."""
    truth: Path
    """JSON file with the boxes of their faces."""
    out: Path
    """File for the table, in Markdown."""
    face_models: tuple[Path, ...] = ()
    """Model files of other detectors, as for `fada_core.generate`."""
    blazeface: Path | None = None
    """mediapipe's face_detection_short_range.tflite, run by ai-edge-litert."""
    drawn: int = 100
    """Number of drawn pictures without faces (textures, rooms, texts, stripes) on which false alarms are counted."""


def _turned(picture: Image.Image, degrees: float) -> Spoilt:
    middle, turn = np.array(picture.size) / 2, np.radians(degrees)
    matrix = np.eye(3)
    matrix[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    matrix[:2, 2] = middle - matrix[:2, :2] @ middle
    inverse = np.linalg.inv(matrix)[:2].ravel().tolist()
    return picture.transform(picture.size, Image.Transform.AFFINE, inverse, Image.Resampling.BICUBIC), matrix


def _sized(picture: Image.Image, side: int) -> Spoilt:
    scale = side / max(picture.size)
    size = [round(length * scale) for length in picture.size]
    return picture.resize(size, Image.Resampling.LANCZOS), np.diag([scale, scale, 1])


def _padded(picture: Image.Image, factor: int) -> Spoilt:
    """Shrink the picture by `factor` and put it in the centre of a grey square with the old longer side."""
    small, matrix = _sized(picture, max(picture.size) // factor)
    whole = Image.new("RGB", (max(picture.size),) * 2, (128, 128, 128))
    corner = ((whole.width - small.width) // 2, (whole.height - small.height) // 2)
    whole.paste(small, corner)
    matrix[:2, 2] = corner
    return whole, matrix


def _noisy(picture: Image.Image) -> Spoilt:
    pixels = np.asarray(picture) + np.random.default_rng(0).normal(0, 25, (*picture.size[::-1], 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), np.eye(3)


SPOILT: dict[str, Callable[[Image.Image], Spoilt]] = {
    "as is": lambda picture: (picture, np.eye(3)),
    "256 px": lambda picture: _sized(picture, 256),
    "128 px": lambda picture: _sized(picture, 128),
    "padded x2": lambda picture: _padded(picture, 2),
    "padded x4": lambda picture: _padded(picture, 4),
    "turned 20": lambda picture: _turned(picture, 20),
    "turned -20": lambda picture: _turned(picture, -20),
    "turned -45": lambda picture: _turned(picture, -45),
    "grey": lambda picture: (picture.convert("L").convert("RGB"), np.eye(3)),
    "noise": _noisy,
}


def agrees(found: tuple[float, ...], true: tuple[float, ...]) -> bool:
    """Whether a box matches a face: its centre is within a third of the face's size, and it is half to twice as large.

    The boxes of detectors contain different parts of a face, so their overlap would say little.
    """
    (x0, y0, x1, y1), (u0, v0, u1, v1) = found, true
    size = np.sqrt((u1 - u0) * (v1 - v0))
    far = np.hypot((x0 + x1 - u0 - u1) / 2, (y0 + y1 - v0 - v1) / 2)
    return bool(far < size / 3 and 0.5 < np.sqrt((x1 - x0) * (y1 - y0)) / size < 2)


def compare(detector: Detector, pictures: dict[str, Image.Image], truth: dict[str, list]) -> dict[str, tuple[int, int]]:
    """For each kind in SPOILT: the number of faces that are found, and of boxes without a face."""
    results = {}
    for kind, spoil in SPOILT.items():
        found, wrong = 0, 0
        for name, picture in pictures.items():
            spoilt, matrix = spoil(picture)
            boxes = [tuple(face.box) for face in detector(np.asarray(spoilt))]
            for x0, y0, x1, y1 in truth[name]:
                middle = matrix @ [(x0 + x1) / 2, (y0 + y1) / 2, 1]
                half = np.hypot(*matrix[:2, 0]) * np.array([x1 - x0, y1 - y0]) / 2
                true = (*(middle[:2] - half), *(middle[:2] + half))
                matching = [box for box in boxes if agrees(box, true)]
                found += bool(matching)
                boxes = [box for box in boxes if box not in matching]
            wrong += len(boxes)
        results[kind] = (found, wrong)
    return results


def run(config: FacesConfig) -> Path:
    """Compare the detectors, write the table and return its path.

    Raises:
        FadaError: the pictures, the truth or a detector cannot be read.
    """
    try:
        truth = json.loads(config.truth.read_text())
        pictures = {name: Image.open(config.pictures / name).convert("RGB") for name in truth}
    except (OSError, ValueError) as error:
        raise FadaError(f"The pictures or their truth cannot be read ({error}); see --help.") from error
    detectors = {"FADA's finder": load_finder()}
    if config.blazeface is not None:
        detectors["BlazeFace, short range"] = load_blazeface(config.blazeface)
    detectors |= {path.stem: load_detector(path) for path in config.face_models}
    faces = sum(map(len, truth.values()))
    rows = [["found of " + str(faces), *SPOILT, f"false alarms, {config.drawn} drawn without a face"]]
    for name, detector in detectors.items():
        results = compare(detector, pictures, truth)
        alarms = sum(len(detector(draw(_DRAWN_SEED + n, 384))) for n in range(config.drawn))
        cells = [str(found) + (f" (+{wrong})" if wrong else "") for found, wrong in results.values()]
        rows.append([name, *cells, str(alarms)])
    lines = ["| " + " | ".join(row) + " |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]]]
    with whole_file(config.out) as partial:
        partial.write_text("\n".join(lines) + "\n")
    return config.out


def main() -> int:
    return run_command(run, FacesConfig, "evaluate.faces", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
