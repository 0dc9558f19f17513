"""Node: the animated square goes back into the picture that it was cut from."""

from __future__ import annotations

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor

from ..fada_core.face.paste import FEATHER, PasteBack
from ..fada_core.face.region import FaceRegion
from .encode import single
from .types import CATEGORY, RegionType, advanced, aliases, from_images, to_images, to_preview


class FADAPasteBack(io.ComfyNode):
    """IMAGE, IMAGE, FADA_REGION -> IMAGE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FADAPasteBack",
            display_name="FADA Paste Back",
            category=CATEGORY,
            **aliases("uncrop", "composite", "stitch"),
            description="Puts the animated square back into the whole portrait, with a soft edge. All frames are in "
            "memory at once, in the portrait's size.",
            inputs=[
                io.Image.Input(
                    "frames", tooltip="From FADA Decode. Tip: upscale them first where the portrait is large."
                ),
                io.Image.Input("image", tooltip="The portrait that went into FADA Encode."),
                RegionType.Input("region", tooltip="From FADA Encode."),
                io.Float.Input(
                    "feather",
                    default=FEATHER,
                    min=0.0,
                    max=0.5,
                    step=0.01,
                    optional=True,
                    tooltip="Width of the soft edge, in parts of the square. 0: hard. Tip: raise it if the edge shows.",
                    **advanced(io.Float.Input),
                ),
                io.Boolean.Input(
                    "match_colour",
                    default=True,
                    optional=True,
                    tooltip="Shift each frame's colours so that its edge fits the portrait. Tip: turn it off if the "
                    "brightness flickers.",
                    **advanced(io.Boolean.Input),
                ),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="Frames in the portrait's size.")],
        )

    @classmethod
    def execute(
        cls, frames: Tensor, image: Tensor, region: FaceRegion, feather: float = FEATHER, match_colour: bool = True
    ) -> io.NodeOutput:
        paste = PasteBack(single(image), region, feather=feather, match_colour=match_colour)
        bar = comfy.utils.ProgressBar(len(frames))
        images = torch.empty(len(frames), region.height, region.width, 3)
        for i, frame in enumerate(from_images(frames).split(1)):
            comfy.model_management.throw_exception_if_processing_interrupted()
            pasted = paste(frame)
            images[i] = to_images(pasted)[0]
            bar.update_absolute(i + 1, len(frames), to_preview(pasted) if i % 8 == 0 else None)
        return io.NodeOutput(images)
