"""Moving previews in the sampler node: of the clip that is being sampled, and finally of the finished video."""

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

_STRIDE = 2  #: only every second frame is shown
_LASTS = 10.0  #: length of the finished video's preview, at most, in seconds: it is held in memory as a whole


class ClipPreview:
    """Context manager with progress bar and preview of a sampling; it is the callback of `Pipeline.sample`.

    ComfyUI can only show single pictures, so a thread sends one after the other: the current prediction of the clip
    plays at its own speed, in a loop. It is decoded again only after the last one has been played, so that steps of a
    few milliseconds are not slowed down. With ComfyUI's preview method "none" there is only the progress bar.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._show = None if args.preview_method == LatentPreviewMethod.NoPreviews else _shown_by(pipeline)
        self._bar = comfy.utils.ProgressBar(1)
        self._interval = _STRIDE / pipeline.config.fps
        self._pictures: list[tuple[str, Image.Image, int]] = []
        self._due = 0.0  # time at which to decode the next pictures
        self._changed, self._over = threading.Event(), threading.Event()
        # ComfyUI reads from the context to which node of which prompt the pictures belong.
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
        """Show progress; raises ComfyUI's exception after an interrupt, also in a call that went on after it."""
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
        """Write a preview of the finished video, latents (n, c, h, w); returns the `ui` with which the node plays it.

        None if previews are off.
        """
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
        # method 0 is ten times as fast as the default, with a third more bytes.
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
                    # This check has cleared ComfyUI's interrupt, which is for the sampler: set it again.
                    comfy.model_management.interrupt_current_processing()
                    return
                if self._over.wait(self._interval):
                    return
                if self._changed.is_set():
                    break


def _shown_by(pipeline: Pipeline) -> Callable[[Tensor], Tensor]:
    """The decoder of previews: for Stable Diffusion's latents ComfyUI's TAESD if that is its preview method, otherwise
    the pipeline's."""
    if pipeline.config.vae.kind == "kl":
        previewer = latent_preview.get_previewer(pipeline.device, comfy.latent_formats.SD15())
        taesd = getattr(previewer, "taesd", None)  # other previewers are a linear map, as is the pipeline's
        if taesd is not None:
            return lambda latents: taesd.decode(latents.to(pipeline.device)).clamp(-1, 1)
    return pipeline.preview
