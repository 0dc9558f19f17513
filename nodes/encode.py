"""Node: a portrait and speech become the condition of a video."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..fada_core.errors import FadaError
from ..fada_core.media.audio import from_waveform
from .types import CATEGORY, Audio, ConditionType, FadaCondition, FadaModel, ModelType, from_images


class FADAEncode(io.ComfyNode):
    """FADA_MODEL, IMAGE, AUDIO -> FADA_COND, INT, FLOAT."""

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
                    tooltip="The portrait: one picture, head and shoulders, facing the camera, mouth closed. It is cut "
                    "to a square around its middle. Tip: crop it yourself so that the face fills about half.",
                ),
                io.Audio.Input(
                    "audio",
                    tooltip="The speech, of any length: from FADA Load Audio or any other AUDIO. Tip: speech without "
                    "music gives the best lips.",
                ),
            ],
            outputs=[
                ConditionType.Output(display_name="cond", tooltip="For FADA Sampler."),
                io.Int.Output(display_name="frames", tooltip="Frames of the finished video."),
                io.Float.Output(display_name="fps", tooltip="The model's frames per second."),
            ],
        )

    @classmethod
    def execute(cls, model: FadaModel, image: Tensor, audio: Audio) -> io.NodeOutput:
        if len(image) != 1:
            raise FadaError(f"The portrait is a batch of {len(image)} pictures; connect a single one.")
        speech = from_waveform(audio["waveform"], audio["sample_rate"])
        pipeline = model.ready()
        condition = pipeline.encode(from_images(image), speech)
        return io.NodeOutput(FadaCondition(condition, audio), condition.frames, float(pipeline.config.fps))
