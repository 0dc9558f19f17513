"""Node: encode a portrait and speech as the condition of a video."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..fada_core.errors import FadaError
from ..fada_core.face.identity import identity_embedding
from ..fada_core.face.region import MARGIN
from ..fada_core.media.audio import from_waveform
from .face import AUTO, NONE, detectors, identity_models, locate, looks_for_it, model_file, shown
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
    connected,
    from_images,
    refused,
)
from .video_in import Video, picture_of, sound_of


class FADAEncode(io.ComfyNode):
    """FADA_MODEL, IMAGE or VIDEO, AUDIO or VIDEO -> FADA_COND, INT, FLOAT, FADA_REGION, IMAGE.

    The outputs are lists with one entry per video.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FADAEncode",
            display_name="FADA Encode (Portrait, Speech)",
            category=CATEGORY,
            **aliases("talking head", "lip sync", "lipsync", "face crop", "avatar", "hallo"),
            description="Encodes portrait and speech, once for the whole video, and shows the square that will be "
            "animated: drag a box around the face on the picture to change it. Several portraits, several recordings, "
            "or pairs of both give one video each.",
            inputs=[
                ModelType.Input("model", tooltip="From FADA Load Model."),
                io.MultiType.Input(
                    "image",
                    [io.Image, io.Video],
                    tooltip="The portrait: a picture of any size, facing the camera, with the mouth closed; of a "
                    "video, the first clear frame is used. A square around the face is animated. Tip: connect region "
                    "and portrait to FADA Video Combine to get the whole picture back.",
                ),
                io.MultiType.Input(
                    "audio",
                    [io.Audio, io.Video],
                    tooltip="The speech, of any length: from FADA Load Audio or any other AUDIO, or the sound of a "
                    "video. Tip: speech without music gives the best lip sync.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="A mask of the face, from forehead to chin and from ear to ear. Not connected: the face is "
                    "detected. Tip: paint it in ComfyUI's mask editor.",
                ),
                io.Float.Input(
                    "crop_margin",
                    default=MARGIN,
                    min=0.0,
                    max=3.0,
                    step=0.05,
                    optional=True,
                    tooltip="Margin around the face on each side, as a fraction of the face's size. Tip: the models "
                    "were trained with 0.4; raise it for tall hair or hats.",
                ),
                io.String.Input(
                    "face_box",
                    default="",
                    optional=True,
                    tooltip="The place of the face, instead of a mask: left, top, right and bottom in pixels, such as "
                    "'120 80 420 400'. Empty: none.",
                    **advanced(io.String.Input),
                ),
                io.Combo.Input(
                    "face_model",
                    options=[AUTO, NONE, *detectors()],
                    default=AUTO,
                    optional=True,
                    tooltip="The face detector, used without mask and box. auto: FADA's own detector, or the middle of "
                    "the picture if it finds no face. none: always the middle. Or a file in models/fada: "
                    "face_landmarker.task (needs mediapipe) or face_detection_yunet .onnx (needs OpenCV). Tip: with a "
                    "file, pictures without a face are refused.",
                    **advanced(io.Combo.Input),
                ),
                io.Combo.Input(
                    "identity_model",
                    options=[NONE, *identity_models()],
                    default=NONE,
                    optional=True,
                    tooltip="An ArcFace network (.onnx) in models/fada, for models with identity tokens such as "
                    "Hallo; needs onnxruntime. none: zeros. Tip: try it if the likeness is weak.",
                    **advanced(io.Combo.Input),
                ),
                io.Int.Input(
                    "face_index",
                    default=0,
                    min=0,
                    max=8,
                    optional=True,
                    tooltip="Which face to animate if the detector finds several: 1 is the leftmost. 0: the largest.",
                    **advanced(io.Int.Input),
                ),
            ],
            outputs=[
                ConditionType.Output(display_name="cond", tooltip="For FADA Sampler.", is_output_list=True),
                io.Int.Output(display_name="frames", tooltip="Number of frames of the video.", is_output_list=True),
                io.Float.Output(display_name="fps", tooltip="The model's frames per second.", is_output_list=True),
                RegionType.Output(
                    display_name="region",
                    tooltip="The square that is animated: for FADA Paste Back or FADA Video Combine.",
                    is_output_list=True,
                ),
                io.Image.Output(
                    display_name="portrait",
                    tooltip="The whole picture that the square is from; connect it together with region. With several "
                    "portraits there is one for each video.",
                    is_output_list=True,
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, model: Any = None, image: Any = None, audio: Any = None, mask: Any = None) -> bool | str:
        return refused(model=model, image=image, audio=audio, mask=mask)

    @classmethod
    def execute(
        cls,
        model: FadaModel,
        image: Tensor | Video,
        audio: Audio | Video,
        mask: Tensor | None = None,
        crop_margin: float = MARGIN,
        face_box: str = "",
        face_model: str = AUTO,
        identity_model: str = NONE,
        face_index: int = 0,
    ) -> io.NodeOutput:
        connected(model=model, image=image, audio=audio)
        if isinstance(image, Video):
            image = picture_of(image)
        if isinstance(audio, Video):
            audio = sound_of(audio)
        videos = _videos(image, audio, mask)
        # Locate faces first, so that a picture without a face is refused before the networks are moved.
        regions = [
            locate(single(picture), shape, crop_margin, face_box, face_model, face_index)
            for picture, _, shape in videos
        ]
        pipeline = model.for_encoding()
        made: list[tuple[Any, ...]] = []
        views = []
        for (picture, recording, _), region in zip(videos, regions, strict=True):
            portrait = single(picture)
            speech = from_waveform(recording["waveform"], recording["sample_rate"])
            identity = None
            if identity_model != NONE:
                identity = identity_embedding(portrait, region, model_file(identity_models(), identity_model))
            condition = pipeline.encode(portrait, speech, region=region, identity=identity)
            cond = FadaCondition(condition, recording)
            made.append((cond, condition.frames, float(pipeline.config.fps), region, picture))
            views.append(shown(portrait, region, looks_for_it(face_model)))
        return io.NodeOutput(*map(list, zip(*made, strict=True)), ui={"fada_face": views})


def _videos(image: Tensor, audio: Audio, mask: Tensor | None) -> list[tuple[Tensor, Audio, Tensor | None]]:
    """Portrait, recording and mask of each video; a single one is used for all videos."""
    pictures = list(image.split(1))
    recordings = [audio | {"waveform": waveform} for waveform in audio["waveform"].split(1)]
    count = max(len(pictures), len(recordings))
    if {len(pictures), len(recordings)} - {1, count}:
        raise FadaError(
            f"There are {len(pictures)} portraits and {len(recordings)} recordings; connect one of either, or the same "
            "number of both."
        )
    masks = [None] if mask is None else list(mask.split(1))
    if len(masks) not in (1, count):
        raise FadaError(f"There are {len(masks)} masks for {count} videos; connect one, or one for each video.")
    pictures, recordings, masks = (x * count if len(x) == 1 else x for x in (pictures, recordings, masks))
    return list(zip(pictures, recordings, masks, strict=True))


def single(image: Tensor) -> Tensor:
    """The picture of an IMAGE that has only one, as (1, 3, h, w) in -1..1.

    Raises:
        FadaError: there are several.
    """
    if len(image) != 1:
        raise FadaError(
            f"The portrait is a batch of {len(image)} pictures; connect FADA Encode's portrait, which goes with region."
        )
    return from_images(image)
