"""Portrait and speech from ComfyUI's VIDEO."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import folder_paths
import numpy as np
import torch
from comfy_api.input import VideoInput as Video
from comfy_api.input_impl import VideoFromComponents
from torch import Tensor

from ..fada_core.errors import FadaError
from ..fada_core.media.audio import load_recording
from ..fada_core.media.clear_frame import LOOKED_AT, after, first_clear_frame
from ..fada_core.media.soundtrack import soundtrack
from ..fada_core.media.video import probe, read_video
from .types import Audio


def picture_of(video: Video) -> Tensor:
    """The first clear frame of a video, as IMAGE (1, h, w, 3)."""
    if isinstance(video, VideoFromComponents):
        images = video.get_components().images[:LOOKED_AT, ..., :3]
        frames = (images * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        chosen = first_clear_frame(frames)
    else:
        with _file(video) as path:
            start, _ = _window(video)
            frames = read_video(path)
            chosen = first_clear_frame(after(frames, start, probe(path).fps) if start else frames)
    return torch.from_numpy(chosen)[None].float() / 255


def sound_of(video: Video) -> Audio:
    """The sound of a video as AUDIO, at its own rate, in one or two channels.

    Raises:
        FadaError: the video has no sound.
    """
    if isinstance(video, VideoFromComponents):
        audio = video.get_components().audio
        if audio is None:
            raise FadaError("The video has no sound; connect a recording to audio.")
        return audio
    with _file(video) as path:
        start, duration = _window(video)
        track = soundtrack(load_recording(path, start, duration or None))
        samples = torch.from_numpy(np.concatenate(list(track.pieces)))
    if duration:
        samples = samples[: round(duration * track.rate)]
    return {"waveform": samples.T[None].contiguous(), "sample_rate": track.rate}


def _window(video: Video) -> tuple[float, float]:
    """Start and duration in seconds to which the video is trimmed (in newer versions of ComfyUI); 0: to the end."""
    window = getattr(video, "get_active_trim_window", None)
    return window() if window else (0.0, 0.0)


@contextmanager
def _file(video: Video) -> Iterator[str]:
    """Path of the video's file; a video in memory is written to a temporary file."""
    source = video.get_stream_source()
    if isinstance(source, str):
        yield source
        return
    os.makedirs(folder_paths.get_temp_directory(), exist_ok=True)
    handle, path = tempfile.mkstemp(suffix=".video", dir=folder_paths.get_temp_directory())
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(source.getbuffer())
        yield path
    finally:
        os.unlink(path)
