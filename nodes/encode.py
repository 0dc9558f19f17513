"""Node: a portrait and speech become the condition of a video."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import io
from torch import Tensor

from ..fada_core.errors import FadaError
from ..fada_core.media.audio import from_waveform
from ..fada_core.media.face import MARGIN, FaceRegion, find_face
from ..fada_core.media.face_detect import installed_detector, load_detector
from ..fada_core.media.face_identity import identity_embedding
from .load_model import FOLDER
from .model import FadaModel
from .types import (
    CATEGORY,
    Audio,
    ConditionType,
    FadaCondition,
    ModelType,
    RegionType,
    advanced,
    from_images,
)

AUTO, NONE = "auto", "none"


class FADAEncode(io.ComfyNode):
    """FADA_MODEL, IMAGE, AUDIO -> FADA_COND, INT, FLOAT, FADA_REGION."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FADAEncode",
            display_name="FADA Encode",
            category=CATEGORY,
            description="Encodes who speaks and what is said, once for the whole video.",
            inputs=[
                ModelType.Input("model", tooltip="From FADA Load Model."),
                io.Image.Input(
                    "image",
                    tooltip="The portrait: one picture of any size, facing the camera, mouth closed. A square around "
                    "the face is animated. Tip: FADA Paste Back puts it back into the whole picture.",
                ),
                io.Audio.Input(
                    "audio",
                    tooltip="The speech, of any length: from FADA Load Audio or any other AUDIO. Tip: speech without "
                    "music gives the best lips.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where the face is, forehead to chin and ear to ear. Left open: a detector looks for it. "
                    "Tip: paint it in ComfyUI's mask editor.",
                ),
                io.Float.Input(
                    "crop_margin",
                    default=MARGIN,
                    min=0.0,
                    max=3.0,
                    step=0.05,
                    optional=True,
                    tooltip="Room around the face on each side of the square, in parts of the face's size. Tip: 0.4 is "
                    "what the models were trained with; raise it for tall hair or hats.",
                ),
                io.String.Input(
                    "face_box",
                    default="",
                    optional=True,
                    tooltip="Where the face is, instead of a mask: left, top, right and bottom in pixels, such as "
                    "'120 80 420 400'. Empty: not given.",
                    **advanced(io.String.Input),
                ),
                io.Combo.Input(
                    "face_model",
                    options=[AUTO, NONE, *_detectors()],
                    default=AUTO,
                    optional=True,
                    tooltip="What looks for the face without mask and box: face_landmarker.task (needs mediapipe) or "
                    "face_detection_yunet .onnx (needs OpenCV) in models/fada. auto: the first that works, or the "
                    "middle of the picture. none: the middle. Tip: a chosen file refuses pictures without a face.",
                    **advanced(io.Combo.Input),
                ),
                io.Combo.Input(
                    "identity_model",
                    options=[NONE, *_identity_models()],
                    default=NONE,
                    optional=True,
                    tooltip="An ArcFace network (.onnx) in models/fada, for models with identity tokens such as "
                    "Hallo; needs onnxruntime. none: zeros. Tip: try it where the likeness is weak.",
                    **advanced(io.Combo.Input),
                ),
            ],
            outputs=[
                ConditionType.Output(display_name="cond", tooltip="For FADA Sampler."),
                io.Int.Output(display_name="frames", tooltip="Frames of the finished video."),
                io.Float.Output(display_name="fps", tooltip="The model's frames per second."),
                RegionType.Output(display_name="region", tooltip="The square that is animated: for FADA Paste Back."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: FadaModel,
        image: Tensor,
        audio: Audio,
        mask: Tensor | None = None,
        crop_margin: float = MARGIN,
        face_box: str = "",
        face_model: str = AUTO,
        identity_model: str = NONE,
    ) -> io.NodeOutput:
        portrait = single(image)
        speech = from_waveform(audio["waveform"], audio["sample_rate"])
        region = _region(portrait, mask, crop_margin, face_box, face_model)
        identity = None
        if identity_model != NONE:
            identity = identity_embedding(portrait, region, _file(_identity_models(), identity_model))
        pipeline = model.for_encoding()
        condition = pipeline.encode(portrait, speech, region=region, identity=identity)
        return io.NodeOutput(FadaCondition(condition, audio), condition.frames, float(pipeline.config.fps), region)


def single(image: Tensor) -> Tensor:
    """The one picture of an IMAGE, (1, 3, h, w) in -1..1."""
    if len(image) != 1:
        raise FadaError(f"The portrait is a batch of {len(image)} pictures; connect a single one.")
    return from_images(image)


def _region(portrait: Tensor, mask: Tensor | None, margin: float, box: str, model: str) -> FaceRegion:
    if mask is not None and box.strip():
        raise FadaError("Both a mask and a box say where the face is; disconnect the mask or empty face_box.")
    if box.strip():
        return find_face(portrait, box=_numbers(box), margin=margin)
    if mask is not None:
        if len(mask) != 1:
            raise FadaError(f"The mask is a batch of {len(mask)}; connect a single one.")
        return find_face(portrait, mask=mask, margin=margin)
    if model == NONE:
        path = None
    elif model == AUTO:
        path = installed_detector(folder_paths.get_folder_paths(FOLDER))
    else:
        path = _file(_detectors(), model)
    return find_face(portrait, detector=path and load_detector(path), required=model != AUTO, margin=margin)


def _numbers(box: str) -> list[float]:
    try:
        return [float(number) for number in box.replace(",", " ").split()]
    except ValueError as error:
        raise FadaError(f"face_box is '{box}'; write four numbers: left, top, right and bottom in pixels.") from error


def _file(files: dict[str, Path], name: str) -> Path:
    if name not in files:
        raise FadaError(f"There is no file '{name}' in models/{FOLDER}; put it there and reload the page.")
    return files[name]


def _files(suffix: str) -> dict[str, Path]:
    """Files of a kind in models/fada, by name; the listing of ComfyUI itself is for checkpoints."""
    folders = folder_paths.get_folder_paths(FOLDER)
    return {path.name: path for folder in folders for path in sorted(Path(folder).glob(f"*{suffix}"))}


def _detectors() -> dict[str, Path]:
    return _files(".task") | {name: path for name, path in _files(".onnx").items() if "yunet" in name.lower()}


def _identity_models() -> dict[str, Path]:
    return {name: path for name, path in _files(".onnx").items() if name not in _detectors()}
