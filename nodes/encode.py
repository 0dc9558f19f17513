"""Node: a portrait and speech become the condition of a video."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import io
from torch import Tensor

from ..fada_core.errors import FadaError
from ..fada_core.face.detect import installed_detector, load_detector
from ..fada_core.face.identity import identity_embedding
from ..fada_core.face.region import MARGIN, FaceRegion, find_face
from ..fada_core.media.audio import from_waveform
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
    aliases,
    from_images,
)

AUTO, NONE = "auto", "none"


class FADAEncode(io.ComfyNode):
    """FADA_MODEL, IMAGE, AUDIO -> FADA_COND, INT, FLOAT, FADA_REGION, IMAGE; lists, of one entry for each video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FADAEncode",
            display_name="FADA Encode",
            category=CATEGORY,
            **aliases("talking head", "lip sync", "face crop"),
            description="Encodes who speaks and what is said, once for the whole video. Several portraits, several "
            "recordings, or pairs of both make as many videos.",
            inputs=[
                ModelType.Input("model", tooltip="From FADA Load Model."),
                io.Image.Input(
                    "image",
                    tooltip="The portrait: a picture of any size, facing the camera, mouth closed. A square around "
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
                ConditionType.Output(display_name="cond", tooltip="For FADA Sampler.", is_output_list=True),
                io.Int.Output(display_name="frames", tooltip="Frames of the finished video.", is_output_list=True),
                io.Float.Output(display_name="fps", tooltip="The model's frames per second.", is_output_list=True),
                RegionType.Output(
                    display_name="region",
                    tooltip="The square that is animated: for FADA Paste Back or FADA Video Combine.",
                    is_output_list=True,
                ),
                io.Image.Output(
                    display_name="portrait",
                    tooltip="The whole picture that the square is from: goes with region, also for several portraits.",
                    is_output_list=True,
                ),
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
        pipeline = model.for_encoding()
        made = []
        for picture, recording, shape in _videos(image, audio, mask):
            portrait = single(picture)
            speech = from_waveform(recording["waveform"], recording["sample_rate"])
            region = _region(portrait, shape, crop_margin, face_box, face_model)
            identity = None
            if identity_model != NONE:
                identity = identity_embedding(portrait, region, _file(_identity_models(), identity_model))
            condition = pipeline.encode(portrait, speech, region=region, identity=identity)
            made.append(
                (FadaCondition(condition, recording), condition.frames, float(pipeline.config.fps), region, picture)
            )
        return io.NodeOutput(*map(list, zip(*made, strict=True)))


def _videos(image: Tensor, audio: Audio, mask: Tensor | None) -> list[tuple[Tensor, Audio, Tensor | None]]:
    """Portrait, recording and mask of each video; what there is one of is for all of them."""
    pictures = list(image.split(1))
    recordings = [audio | {"waveform": waveform} for waveform in audio["waveform"].split(1)]
    count = max(len(pictures), len(recordings))
    if {len(pictures), len(recordings)} - {1, count}:
        raise FadaError(
            f"There are {len(pictures)} portraits and {len(recordings)} recordings; connect one of either, or as many."
        )
    masks = [None] if mask is None else list(mask.split(1))
    if len(masks) not in (1, count):
        raise FadaError(f"There are {len(masks)} masks for {count} videos; connect one, or as many.")
    pictures, recordings, masks = (x * count if len(x) == 1 else x for x in (pictures, recordings, masks))
    return list(zip(pictures, recordings, masks, strict=True))


def single(image: Tensor) -> Tensor:
    """The one picture of an IMAGE, (1, 3, h, w) in -1..1."""
    if len(image) != 1:
        raise FadaError(
            f"The portrait is a batch of {len(image)} pictures; connect FADA Encode's portrait, which goes with region."
        )
    return from_images(image)


def _region(portrait: Tensor, mask: Tensor | None, margin: float, box: str, model: str) -> FaceRegion:
    if mask is not None and box.strip():
        raise FadaError("Both a mask and a box say where the face is; disconnect the mask or empty face_box.")
    if box.strip():
        return find_face(portrait, box=_numbers(box), margin=margin)
    if mask is not None:
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
