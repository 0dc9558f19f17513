"""Locates the face in a portrait by mask, box or detector, and describes it for FADA Encode's display."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import folder_paths
from PIL import Image
from server import PromptServer
from torch import Tensor

from ..fada_core.errors import FadaError
from ..fada_core.face.detect import load_detector
from ..fada_core.face.finder import load_finder
from ..fada_core.face.region import ASSUMED, DETECTED, FaceRegion, find_face
from ..fada_core.media.image import load_image, to_uint8
from .load_audio import input_path
from .start import FOLDER

if TYPE_CHECKING:
    from aiohttp import web

AUTO, NONE = "auto", "none"
_SHOWN = 1024  #: longer side, at most, of the picture that the node shows, in pixels


def locate(portrait: Tensor, mask: Tensor | None, margin: float, box: str, model: str, index: int) -> FaceRegion:
    """The region of the face in a portrait, (1, 3, h, w) in -1..1, by the inputs of FADA Encode.

    Raises:
        FadaError: as in `find_face`; or there are both mask and box, the box is not four numbers, or the detector's
            file does not exist.
    """
    if mask is not None and box.strip():
        raise FadaError("Both a mask and a box say where the face is; disconnect the mask or empty face_box.")
    if box.strip():
        return find_face(portrait, box=_numbers(box), margin=margin)
    if mask is not None:
        return find_face(portrait, mask=mask, margin=margin)
    if model == NONE:
        return find_face(portrait, index=index, margin=margin)
    detector = load_finder() if model == AUTO else load_detector(model_file(detectors(), model))
    return find_face(portrait, detector=detector, index=index, required=model != AUTO, margin=margin)


def described(region: FaceRegion, detected: bool) -> dict[str, Any]:
    """The region as JSON values for the node's display, in pixels of the whole picture.

    Args:
        detected: whether a detector was used.
    """
    count = len(region.faces)
    if region.source == ASSUMED:
        told = "No face found" if detected else "Face detection is off"
        told += ": the middle of the picture is used. Drag a box around the face."
    elif region.source == DETECTED:
        told = "Face found." if count == 1 else f"{count} faces found, counted from the left."
    else:
        told = "Face given by the box or mask."
    return {
        "width": region.width,
        "height": region.height,
        "square": [region.left, region.top, region.side],
        "face": list(region.face),
        "faces": [list(box) for box in region.faces],
        "source": region.source,
        "message": told,
    }


def shown(portrait: Tensor, region: FaceRegion, detected: bool) -> dict[str, Any]:
    """As `described`, with a picture that is written to ComfyUI's temp folder for the browser."""
    name = f"fada_face_{uuid.uuid4().hex}.jpg"
    folder = folder_paths.get_temp_directory()
    os.makedirs(folder, exist_ok=True)
    picture = Image.fromarray(to_uint8(portrait)[0].numpy())
    picture.thumbnail((_SHOWN, _SHOWN))
    picture.save(os.path.join(folder, name), quality=90)
    return described(region, detected) | {"image": {"filename": name, "subfolder": "", "type": "temp"}}


def looks_for_it(model: str) -> bool:
    """Whether a detector is used if there is neither mask nor box."""
    return model != NONE


def model_file(files: dict[str, Path], name: str) -> Path:
    if name not in files:
        raise FadaError(f"There is no file '{name}' in models/{FOLDER}; put it there and press R in ComfyUI.")
    return files[name]


def detectors() -> dict[str, Path]:
    return _files(".task") | {name: path for name, path in _files(".onnx").items() if "yunet" in name.lower()}


def identity_models() -> dict[str, Path]:
    return {name: path for name, path in _files(".onnx").items() if name not in detectors()}


def _files(suffix: str) -> dict[str, Path]:
    """Files in models/fada with this suffix, by name. ComfyUI's own list of this folder has checkpoints only."""
    folders = folder_paths.get_folder_paths(FOLDER)
    return {path.name: path for folder in folders for path in sorted(Path(folder).glob(f"*{suffix}"))}


def _numbers(box: str) -> list[float]:
    try:
        return [float(number) for number in box.replace(",", " ").split()]
    except ValueError as error:
        raise FadaError(f"face_box is '{box}'; write four numbers: left, top, right and bottom in pixels.") from error


def face_of_upload(query: Mapping[str, str]) -> dict[str, Any]:
    """The face in a picture of ComfyUI's input folder, as `described`.

    Args:
        query: `image` is the picture's name as in Load Image; `margin`, `box`, `model` and `index` are as in FADA
            Encode.

    Raises:
        FadaError: as in `locate`; or there is no such picture, or margin or index is not a number.
    """
    path, model = input_path(query.get("image", "")), query.get("model", AUTO)
    try:
        margin, index = float(query.get("margin", "")), int(query.get("index", ""))
    except ValueError as error:
        raise FadaError(f"The margin or index of the face is not a number ({error}); correct it.") from error
    region = locate(load_image(path), None, margin, query.get("box", ""), model, index)
    return described(region, looks_for_it(model))


@PromptServer.instance.routes.get("/fada/face")
async def _answer(request: web.Request) -> web.Response:
    """Answer requests of web/face.js, which shows the face in FADA Encode before it runs."""
    from aiohttp import web

    try:
        return web.json_response(await asyncio.to_thread(face_of_upload, request.query))
    except FadaError as error:
        return web.json_response({"message": str(error)}, status=400)
