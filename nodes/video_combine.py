"""Node: frames or latents become a video file with sound."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
from comfy.cli_args import args
from comfy_api.input_impl import VideoFromFile
from comfy_api.latest import io
from torch import Tensor

from ..fada_core.errors import FadaError
from ..fada_core.face.paste import PasteBack
from ..fada_core.face.region import FaceRegion
from ..fada_core.media.audio import SAMPLE_RATE, from_waveform
from ..fada_core.media.image import to_uint8
from ..fada_core.media.video import VideoWriter
from ..fada_core.speed.overlap import BackgroundCalls
from .encode import single
from .model import FadaModel
from .types import CATEGORY, Audio, ModelType, RegionType, aliases, from_images, from_latent

FORMATS = ["mp4", "webm", "gif", "png"]
DEFAULT_FPS = 25.0
CHUNK = 16  #: frames that are written at once


class FADAVideoCombine(io.ComfyNode):
    """IMAGE or LATENT, AUDIO, IMAGE, FADA_REGION -> file, VIDEO."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FADAVideoCombine",
            display_name="FADA Video Combine",
            category=CATEGORY,
            **aliases("save video", "export mp4", "webm", "gif"),
            description="Writes frames or latents and their sound to a video in the output folder, piece by piece: the "
            "memory it takes does not grow with the length, and what is written so far stays playable after a stop.",
            inputs=[
                io.MultiType.Input(
                    "frames",
                    [io.Latent, io.Image],
                    tooltip="Latents from FADA Sampler (need the model), or any frames. Tip: latents take far less "
                    "memory in long videos.",
                ),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=120.0,
                    step=0.01,
                    tooltip="Frames per second of the file. 0: the model's for latents, 25 for frames. Tip: another "
                    "rate than the model's moves lips and speech apart.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="FADA/talking",
                    tooltip="Folder and beginning of the file's name in the output folder; %year%, %month%, %day% and "
                    "the like are filled in.",
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
                    tooltip="The sound. Left open: the speech that latents come with, or none for frames.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The portrait that went into FADA Encode: each frame is put back into it while it is "
                    "written, so long videos of large pictures take no more memory. Needs region.",
                ),
                RegionType.Input("region", optional=True, tooltip="From FADA Encode: where in image the frames go."),
            ],
            outputs=[io.Video.Output(display_name="video", tooltip="The file, for other video nodes (not png).")],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

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
    ) -> io.NodeOutput:
        if (image is None) != (region is None):
            raise FadaError("To put the frames back into a picture, connect both image and region; else neither.")
        paste = None if region is None else PasteBack(single(image), region)
        if isinstance(frames, Tensor):
            chunks, count = _split_images(frames), len(frames)
            height, width = frames.shape[1:3]
            own = {"fps": DEFAULT_FPS, "audio": None}
        else:
            if model is None:
                raise FadaError("Latents need the model to be decoded; connect FADA Load Model to Video Combine too.")
            chunks, count = _decode(model, frames), len(frames["samples"])
            height = width = model.pipeline.config.size
            own = frames.get("fada", {"fps": model.pipeline.config.fps, "audio": None})
        if paste is not None:
            height, width = region.height, region.width
            chunks = (paste(frame) for chunk in chunks for frame in chunk.split(1))  # may be many times larger
        sound, rate = _sound(audio or own["audio"])

        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), width, height
        )
        path = Path(folder) / f"{name}_{counter:05}_{'' if format == 'png' else '.' + format}"
        bar = comfy.utils.ProgressBar(count)
        made = {"audio_rate": rate, "metadata": cls._metadata()}
        with VideoWriter(path, width, height, fps or own["fps"], sound, **made) as writer, BackgroundCalls() as behind:
            for chunk in chunks:
                comfy.model_management.throw_exception_if_processing_interrupted()
                behind(writer.write, to_uint8(chunk))
                bar.update(len(chunk))  # without a preview: the frontend would keep it in place of the player

        if format == "png":
            first = {"filename": "frame_00000.png", "subfolder": str(Path(subfolder) / path.name), "type": "output"}
            return io.NodeOutput(
                None, ui={"images": [first]}, block_execution="png frames are no VIDEO; choose mp4 or webm."
            )
        # The frontend plays what is called animated in a video element, which knows no gif.
        shown = {"images": [{"filename": path.name, "subfolder": subfolder, "type": "output"}]}
        if format != "gif":
            shown["animated"] = (True,)
        return io.NodeOutput(VideoFromFile(file=str(path)), ui=shown)

    @classmethod
    def _metadata(cls) -> dict[str, str]:
        """The graph, as ComfyUI finds it again in a file that is dropped onto it."""
        if args.disable_metadata or cls.hidden is None:
            return {}
        entries = {"prompt": cls.hidden.prompt, **(cls.hidden.extra_pnginfo or {})}
        return {key: json.dumps(value) for key, value in entries.items() if value is not None}


def _sound(audio: Audio | None) -> tuple[Tensor | None, int]:
    """Samples (1 or 2 channels, samples) and their rate; more channels are mixed down."""
    if audio is None:
        return None, SAMPLE_RATE
    waveform, rate = audio["waveform"], audio["sample_rate"]
    if len(waveform) != 1 or waveform.shape[1] > 2:
        return from_waveform(waveform, rate), SAMPLE_RATE
    return waveform[0], rate


def _split_images(images: Tensor) -> Iterator[Tensor]:
    for chunk in images.split(CHUNK):
        yield from_images(chunk)


def _decode(model: FadaModel, latent: dict[str, Any]) -> Iterator[Tensor]:
    pipeline = model.for_decoding()
    for chunk in from_latent(pipeline, latent).split(CHUNK):
        yield pipeline.decode(chunk)
