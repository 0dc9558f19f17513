"""Node: paste the animated square back into the picture that it was cropped from."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor

from ..fada_core.face.paste import FEATHER, PasteBack
from ..fada_core.face.region import FaceRegion
from .encode import single
from .model import FadaModel
from .types import (
    CATEGORY,
    ModelType,
    RegionType,
    advanced,
    aliases,
    connected,
    from_images,
    refused,
    to_images,
    to_preview,
)


class FADAPasteBack(io.ComfyNode):
    """IMAGE, IMAGE, FADA_REGION -> IMAGE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FADAPasteBack",
            display_name="FADA Paste Back",
            category=CATEGORY,
            **aliases("uncrop", "composite", "stitch"),
            description="Pastes the animated square back into the whole portrait, with a soft edge. All frames are in "
            "memory at once, in the portrait's size.",
            inputs=[
                io.Image.Input("frames", tooltip="From FADA Decode. Tip: upscale them first if the portrait is large."),
                io.Image.Input("image", tooltip="The portrait that went into FADA Encode."),
                RegionType.Input("region", tooltip="From FADA Encode."),
                ModelType.Input(
                    "model",
                    optional=True,
                    tooltip="From FADA Load Model; the one that sampled the frames. The portrait then keeps its own "
                    "detail where nothing moves.",
                ),
                io.Float.Input(
                    "feather",
                    default=FEATHER,
                    min=0.0,
                    max=0.5,
                    step=0.01,
                    optional=True,
                    tooltip="Width of the soft edge, as a fraction of the square. 0: a hard edge. Tip: raise it if the "
                    "edge is visible.",
                    **advanced(io.Float.Input),
                ),
                io.Boolean.Input(
                    "match_colour",
                    default=True,
                    optional=True,
                    tooltip="Shift each frame's colours so that its edge matches the portrait. Tip: turn it off if the "
                    "brightness flickers.",
                    **advanced(io.Boolean.Input),
                ),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="Frames in the portrait's size.")],
        )

    @classmethod
    def validate_inputs(
        cls, frames: Any = None, image: Any = None, region: Any = None, model: Any = None
    ) -> bool | str:
        return refused(frames=frames, image=image, region=region, model=model)

    @classmethod
    def execute(
        cls,
        frames: Tensor,
        image: Tensor,
        region: FaceRegion,
        model: FadaModel | None = None,
        feather: float = FEATHER,
        match_colour: bool = True,
    ) -> io.NodeOutput:
        connected(frames=frames, image=image, region=region)
        picture = single(image)
        still = None if model is None else model.for_encoding().reconstruct(picture, region)
        paste = PasteBack(picture, region, still=still, feather=feather, match_colour=match_colour)
        bar = comfy.utils.ProgressBar(len(frames))
        images = torch.empty(len(frames), region.height, region.width, 3)
        for i, frame in enumerate(from_images(frames).split(1)):
            comfy.model_management.throw_exception_if_processing_interrupted()
            pasted = paste(frame)
            images[i] = to_images(pasted)[0]
            bar.update_absolute(i + 1, len(frames), to_preview(pasted) if i % 8 == 0 else None)
        return io.NodeOutput(images)
