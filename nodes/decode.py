"""Node: decode latents to frames."""

from __future__ import annotations

from functools import partial
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io

from .model import FadaModel
from .types import CATEGORY, ModelType, aliases, connected, from_latent, refused, to_images


class FADADecode(io.ComfyNode):
    """FADA_MODEL, LATENT -> IMAGE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FADADecode",
            display_name="FADA Decode",
            category=CATEGORY,
            **aliases("latents to frames"),
            description="Decodes latents to frames, for further processing. All frames are in memory at once: for long "
            "videos connect the latents to FADA Video Combine instead.",
            inputs=[
                ModelType.Input("model", tooltip="From FADA Load Model; the one that sampled the latents."),
                io.Latent.Input("latent", tooltip="From FADA Sampler."),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="The video's frames, without its sound.")],
        )

    @classmethod
    def validate_inputs(cls, model: Any = None, latent: Any = None) -> bool | str:
        return refused(model=model, latent=latent)

    @classmethod
    def execute(cls, model: FadaModel, latent: dict[str, Any]) -> io.NodeOutput:
        connected(model=model, latent=latent)
        pipeline = model.for_decoding()
        clips = from_latent(pipeline, latent).split(pipeline.config.clip_frames)
        bar = comfy.utils.ProgressBar(len(clips))
        images = []
        for clip in clips:
            comfy.model_management.throw_exception_if_processing_interrupted()
            images.append(to_images(model.stoppable(partial(pipeline.decode, clip))))
            bar.update(1)
        return io.NodeOutput(torch.cat(images))
