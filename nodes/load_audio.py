"""Node: load the speech, or a part of it, from ComfyUI's input folder."""

from __future__ import annotations

import os
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..fada_core.errors import FadaError
from ..fada_core.media.audio import SAMPLE_RATE, load_audio
from .types import CATEGORY, aliases


def input_path(name: str) -> str:
    """Path of a file in ComfyUI's input folder (or, with the suffix [output] or [temp], in that folder).

    Raises:
        FadaError: there is no such file, or the name leads out of the folder.
    """
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise FadaError(f"audio is {name!r}; choose a file in ComfyUI's input folder, or upload one.")
    file, folder = folder_paths.annotated_filepath(name)
    folder = os.path.abspath(folder or folder_paths.get_input_directory())
    path = os.path.abspath(os.path.join(folder, file.strip()))
    if not path.startswith(folder + os.sep):
        raise FadaError(f"'{name}' lies outside of ComfyUI's folders; upload the file instead.")
    if not os.path.isfile(path):
        raise FadaError(f"There is no file '{name}' in ComfyUI's input folder; upload it.")
    return path


class FADALoadAudio(io.ComfyNode):
    """File -> AUDIO."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        files = os.listdir(folder_paths.get_input_directory())
        return io.Schema(
            node_id="FADALoadAudio",
            display_name="FADA Load Audio",
            category=CATEGORY,
            **aliases("speech", "voice", "sound of a video"),
            description="Loads speech, or a part of it, from any file with sound, including videos, as 16 kHz mono. "
            "For the original sound in the finished video, connect ComfyUI's own Load Audio to Video Combine.",
            inputs=[
                io.Combo.Input(
                    "audio",
                    options=sorted(folder_paths.filter_files_content_types(files, ["audio", "video"])),
                    upload=io.UploadType.audio,
                    tooltip="A file in ComfyUI's input folder: wav, mp3, flac, ogg, m4a, mp4, mkv and others.",
                ),
                io.Float.Input(
                    "start",
                    default=0.0,
                    min=0.0,
                    max=86400.0,
                    step=0.1,
                    tooltip="Start within the file, in seconds.",
                ),
                io.Float.Input(
                    "duration",
                    default=0.0,
                    min=0.0,
                    max=86400.0,
                    step=0.1,
                    tooltip="Length in seconds. 0: to the end of the file. Tip: use 3 seconds to try settings.",
                ),
                # The frontend's upload button plays the file in a widget with this name.
                io.Custom("AUDIO_UI").Input("audioUI", optional=True),
            ],
            outputs=[io.Audio.Output(display_name="audio", tooltip="For FADA Encode, or any node that takes AUDIO.")],
        )

    @classmethod
    def validate_inputs(cls, audio: Any) -> bool | str:
        # ComfyUI does not check inputs that are named here against their options, which lack files uploaded since.
        try:
            return audio is None or bool(input_path(audio))  # None: the name will come from another node
        except FadaError as error:
            return str(error)

    @classmethod
    def fingerprint_inputs(cls, audio: str, **_: Any) -> str:
        status = os.stat(input_path(audio))
        return f"{status.st_mtime_ns} {status.st_size}"

    @classmethod
    def execute(cls, audio: str, start: float, duration: float, audioUI: Any = None) -> io.NodeOutput:
        samples = load_audio(input_path(audio), start, duration or None)
        return io.NodeOutput({"waveform": samples[None, None], "sample_rate": SAMPLE_RATE})
