"""A moving picture of what is being sampled, in the node that samples it, and of the video when it is finished."""

from __future__ import annotations

import contextvars
import itertools
import os
import threading
import time
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Any

import comfy.latent_formats
import comfy.model_management
import comfy.utils
import folder_paths
import latent_preview
from comfy.cli_args import LatentPreviewMethod, args
from PIL import Image
from torch import Tensor

from ..fada_core.pipeline import Pipeline
from .types import to_preview

_STRIDE = 2  #: every second frame is shown
_LASTS = 10.0  #: seconds of a finished video that its node plays, at most: all of it is held in memory for this


class ClipPreview:
    """Progress bar and preview of a sampling; a context manager.

    ComfyUI shows single pictures, so a thread sends one after the other: the clip, as far as it is known, plays in its
    own speed, over and over. New pictures are made once the last ones have been played, so that steps which take
    milliseconds are not held up. With ComfyUI's preview method "none" there is only the bar.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._show = None if args.preview_method == LatentPreviewMethod.NoPreviews else _shown_by(pipeline)
        self._bar = comfy.utils.ProgressBar(1)
        self._interval = _STRIDE / pipeline.config.fps
        self._pictures: list[tuple[str, Image.Image, int]] = []
        self._due = 0.0  # when the next pictures are wanted
        self._changed, self._over = threading.Event(), threading.Event()
        # The context says which node of which prompt the pictures are for.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._play,), daemon=True)

    def __enter__(self) -> ClipPreview:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._changed.set()
        self._thread.join()

    def __call__(self, step: int, steps: int, latents: Tensor) -> None:
        """The callback of `Pipeline.sample`. Raises what ComfyUI raises at a stop, also in work that it left behind."""
        if self._over.is_set():
            raise comfy.model_management.InterruptProcessingException
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._bar.update_absolute(step, steps)
        now = time.monotonic()
        if self._show is None or now < self._due:
            return
        frames = self._show(latents[::_STRIDE])
        self._pictures = [to_preview(frame) for frame in frames.split(1)]
        self._due = now + self._interval * len(self._pictures)
        self._changed.set()

    def finished(self, latents: Tensor) -> dict[str, Any] | None:
        """What makes the node play the beginning of the finished video, latents (n, c, h, w), from now on."""
        if self._show is None:
            return None
        pictures = []
        for clip in latents[: round(_LASTS * _STRIDE / self._interval) : _STRIDE].split(8):
            comfy.model_management.throw_exception_if_processing_interrupted()
            for frame in self._show(clip).split(1):
                _, picture, size = to_preview(frame)
                picture.thumbnail((size, size))
                pictures.append(picture)
        name = f"fada_preview_{uuid.uuid4().hex}.webp"
        os.makedirs(folder_paths.get_temp_directory(), exist_ok=True)
        path = os.path.join(folder_paths.get_temp_directory(), name)
        # method 0: ten times as quick as the usual one, for a third more bytes.
        moving = {"save_all": True, "append_images": pictures[1:], "duration": round(1000 * self._interval), "loop": 0}
        pictures[0].save(path, quality=80, method=0, **moving)
        return {"images": [{"filename": name, "subfolder": "", "type": "temp"}], "animated": (True,)}

    def _play(self) -> None:
        while self._changed.wait() and not self._over.is_set():
            self._changed.clear()
            for picture in itertools.cycle(self._pictures):
                try:
                    self._bar.update_absolute(self._bar.current, self._bar.total, picture)
                except comfy.model_management.InterruptProcessingException:
                    # The stop is for the sampler: asking takes it back, so say it again.
                    comfy.model_management.interrupt_current_processing()
                    return
                if self._over.wait(self._interval):
                    return
                if self._changed.is_set():
                    break


def _shown_by(pipeline: Pipeline) -> Callable[[Tensor], Tensor]:
    """What turns latents into frames: ComfyUI's TAESD, where it is set to that, for Stable Diffusion's latents."""
    if pipeline.config.vae.kind == "kl":
        previewer = latent_preview.get_previewer(pipeline.device, comfy.latent_formats.SD15())
        taesd = getattr(previewer, "taesd", None)  # its other kind is a linear map like ours
        if taesd is not None:
            return lambda latents: taesd.decode(latents.to(pipeline.device)).clamp(-1, 1)
    return pipeline.preview
