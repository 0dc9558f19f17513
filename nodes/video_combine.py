"""Node: write frames or latents to a video file with sound."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
from comfy.cli_args import args
from comfy_api.input_impl import VideoFromFile
from comfy_api.latest import io
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ..fada_core.errors import FadaError
from ..fada_core.face.paste import PasteBack, shrunk
from ..fada_core.face.region import FaceRegion
from ..fada_core.media.audio import SAMPLE_RATE
from ..fada_core.media.image import to_uint8
from ..fada_core.media.soundtrack import playable
from ..fada_core.media.video import VideoWriter, playable_size
from ..fada_core.speed.overlap import BackgroundCalls
from .encode import single
from .model import FadaModel
from .names import free_place
from .types import CATEGORY, Audio, ModelType, RegionType, aliases, connected, from_images, from_latent, refused

FORMATS = ["mp4", "webm", "gif", "png"]
DEFAULT_FPS = 25.0
CRF = 18
CHUNK = 16  #: frames that are decoded and written at a time


class FADAVideoCombine(io.ComfyNode):
    """IMAGE or LATENT, AUDIO, IMAGE, FADA_REGION -> file, VIDEO."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FADAVideoCombine",
            display_name="FADA Video Combine",
            category=CATEGORY,
            **aliases("save video", "export mp4", "webm", "gif", "talking video", "VHS"),
            description="Writes frames or latents with their sound to a video in the output folder, piece by piece: "
            "memory does not grow with the length, and after a stop the finished part is playable.",
            inputs=[
                io.MultiType.Input(
                    "frames",
                    [io.Latent, io.Image],
                    tooltip="Latents from FADA Sampler (then connect the model too), or any frames. Tip: for long "
                    "videos, latents take far less memory.",
                ),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=120.0,
                    step=0.01,
                    tooltip="Frames per second of the file. 0: the model's for latents, 25 for frames. Tip: at another "
                    "rate than the model's, lips and speech drift apart.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="FADA/talking",
                    tooltip="Folder and beginning of the file name in the output folder; a number is appended. Dates "
                    "(%date:yyyy-MM-dd%) and inputs of other nodes (%FADASampler.seed%) are filled in.",
                ),
                io.Combo.Input(
                    "format",
                    options=FORMATS,
                    default="mp4",
                    tooltip="mp4: H.264 and AAC, plays everywhere. webm: VP9 and Opus. gif: without sound. png: a "
                    "folder of lossless pictures, with the sound beside them.",
                ),
                ModelType.Input(
                    "model", optional=True, tooltip="Needed for latents: from FADA Load Model, which sampled them."
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="The sound. Not connected: for latents the speech that was encoded, for frames none.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The portrait that went into FADA Encode: each frame is pasted back into it just before it "
                    "is written, so long videos of large pictures take no more memory. Needs region.",
                ),
                RegionType.Input("region", optional=True, tooltip="From FADA Encode: the frames' place in image."),
                io.Int.Input(
                    "crf",
                    default=CRF,
                    min=0,
                    max=51,
                    optional=True,
                    tooltip="Quality of mp4 and webm, on the scale of H.264: 0 is lossless, 18 visually lossless, 28 "
                    "small, 51 the worst. Tip: adding 6 halves the file size.",
                ),
                io.Boolean.Input(
                    "save_output",
                    default=True,
                    optional=True,
                    tooltip="Off: the video goes to ComfyUI's temp folder, which is emptied when ComfyUI starts. Tip: "
                    "turn it off while you try settings.",
                ),
            ],
            outputs=[io.Video.Output(display_name="video", tooltip="The file, for other video nodes (not png).")],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls, frames: Any = None, model: Any = None, audio: Any = None, image: Any = None, region: Any = None
    ) -> bool | str:
        return refused(frames=frames, model=model, audio=audio, image=image, region=region)

    @classmethod
    def execute(
        cls,
        frames: Tensor | dict[str, Any],
        fps: float,
        filename_prefix: str,
        format: str,
        model: FadaModel | None = None,
        audio: Audio | None = None,
        image: Tensor | None = None,
        region: FaceRegion | None = None,
        crf: int = CRF,
        save_output: bool = True,
    ) -> io.NodeOutput:
        connected(frames=frames)
        if (image is None) != (region is None):
            raise FadaError("To put the frames back into a picture, connect both image and region; else neither.")
        still = None  # the reconstructed picture: only the frames' differences from it are pasted
        if isinstance(frames, Tensor):
            chunks, count = _split_images(frames), len(frames)
            height, width = frames.shape[1:3]
            own = {"fps": DEFAULT_FPS, "audio": None}
        else:
            if model is None:
                raise FadaError("Latents need the model to be decoded; connect FADA Load Model to Video Combine too.")
            if region is not None:
                still = model.for_encoding().reconstruct(single(image), region)
            chunks, count = _decode(model, frames), len(frames["samples"])
            height = width = model.pipeline.config.size
            own = frames.get("fada", {"fps": model.pipeline.config.fps, "audio": None})
        if region is not None:
            width, height = playable_size(region.width, region.height, format)
            paste = PasteBack(*shrunk(single(image), region, width, height), still=still)
            # One at a time, as pasted frames may be many times larger.
            chunks = (paste(frame) for chunk in chunks for frame in chunk.split(1))
        heard = audio or own["audio"]
        sound = None if heard is None else playable(heard["waveform"], heard["sample_rate"])
        rate = SAMPLE_RATE if heard is None else heard["sample_rate"]

        prompt = None if cls.hidden is None else cls.hidden.prompt
        place = free_place(filename_prefix, save_output, width, height, prompt)
        path = place.path if format == "png" else place.path.with_name(f"{place.path.name}.{format}")
        bar = comfy.utils.ProgressBar(count)
        made = {"audio_rate": rate, "metadata": cls._metadata(), "crf": crf, "format": format}
        with VideoWriter(path, width, height, fps or own["fps"], sound, **made) as writer, BackgroundCalls() as behind:
            for i, chunk in enumerate(chunks):
                comfy.model_management.throw_exception_if_processing_interrupted()
                pixels = to_uint8(chunk)
                if format == "gif" and i == 0:
                    behind(_still, place.path, pixels[0], made["metadata"])
                behind(writer.write, pixels)
                bar.update(len(chunk))  # without a preview, which the frontend would show instead of the player

        if format == "png":
            first = {"filename": "frame_00000.png", "subfolder": str(Path(place.subfolder) / path.name)}
            return io.NodeOutput(
                None,
                ui={"images": [first | {"type": place.type}]},
                block_execution="png frames are not a VIDEO; choose mp4 or webm.",
            )
        # The frontend plays "animated" files in a video element, which does not support gif.
        shown = {"images": [{"filename": path.name, "subfolder": place.subfolder, "type": place.type}]}
        if format != "gif":
            shown["animated"] = (True,)
        return io.NodeOutput(VideoFromFile(file=str(path)), ui=shown)

    @classmethod
    def _metadata(cls) -> dict[str, str]:
        """The graph, in the form in which ComfyUI restores it from a file that is dropped onto it."""
        if args.disable_metadata or cls.hidden is None:
            return {}
        entries = {"prompt": cls.hidden.prompt, **(cls.hidden.extra_pnginfo or {})}
        return {key: json.dumps(value) for key, value in entries.items() if value is not None}


def _still(path: Path, pixels: Tensor, metadata: dict[str, str]) -> None:
    """Write the first frame beside a gif, as a png with the graph, which a gif cannot store."""
    if metadata:
        texts = PngInfo()
        for name, text in metadata.items():
            texts.add_text(name, text)
        Image.fromarray(pixels.numpy()).save(path.with_name(f"{path.name}.png"), pnginfo=texts)


def _split_images(images: Tensor) -> Iterator[Tensor]:
    for chunk in images.split(CHUNK):
        yield from_images(chunk)


def _decode(model: FadaModel, latent: dict[str, Any]) -> Iterator[Tensor]:
    pipeline = model.for_decoding()
    for chunk in from_latent(pipeline, latent).split(CHUNK):
        yield model.stoppable(partial(pipeline.decode, chunk))
