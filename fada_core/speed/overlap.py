"""Decodes a clip and copies it to the host while the next one is denoised, and writes it in the background."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from ..finite import FiniteCheck
from ..media.image import to_bytes


def decode_ahead(
    decode: Callable[[Tensor], Tensor],
    clips: Iterable[Tensor],
    device: torch.device,
    finish: Callable[[Tensor], Tensor] = to_bytes,
    dtype: torch.dtype = torch.float32,
) -> Iterator[Tensor]:
    """Decode clip by clip, and yield the frames of each on the host.

    On CUDA, clip k is decoded on a separate stream and copied to pinned memory while clip k + 1 is denoised; it is
    yielded after the work of clip k + 1 has been queued. At most two clips are held in memory. On other devices, each
    clip is decoded before the next one is denoised.

    Args:
        decode: latents (n, c, h, w) to frames (n, 3, size, size) in -1..1.
        clips: latents, clip by clip; advancing the iterator queues the work for one.
        device: of the networks.
        finish: applied to the frames on the device, before the copy.
        dtype: of the networks, for the advice in an error message.

    Raises:
        FadaError: a clip's frames are not finite; the previous clips have been yielded.
    """
    if device.type != "cuda":
        for latents in clips:
            frames = decode(latents)
            FiniteCheck(frames, "The frames", dtype).answer()
            yield finish(frames).cpu()
        return
    stream = torch.cuda.Stream(device)
    waiting: tuple[Tensor, torch.cuda.Event, FiniteCheck] | None = None
    try:
        for latents in clips:
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                frames = decode(latents)
                check = FiniteCheck(frames, "The frames", dtype)
                frames = finish(frames)
                latents.record_stream(stream)  # its memory must not be reused before this stream has read it
                host = torch.empty(frames.shape, dtype=frames.dtype, pin_memory=True)
                host.copy_(frames, non_blocking=True)
                copied = stream.record_event()
            if waiting is not None:
                yield _arrived(*waiting)
            waiting = host, copied, check
    except (Exception, KeyboardInterrupt):  # sampling was stopped: yield the finished clip first
        if waiting is not None:
            yield _arrived(*waiting)
        raise
    if waiting is not None:
        yield _arrived(*waiting)


def _arrived(frames: Tensor, copied: torch.cuda.Event, check: FiniteCheck) -> Tensor:
    copied.synchronize()
    check.answer()
    return frames


class BackgroundCalls:
    """Context manager that runs calls one at a time on a background thread.

    A call first waits until the previous one has returned, so that at most one is pending. An exception is raised again
    by the next call, or at the end of the block, which waits for the last call.

    The calls should not compute with torch while networks run on the CPU: a second thread gets its own pool of OpenMP
    threads. There are then more threads than cores, so GNU's OpenMP puts all of them to sleep between any two
    operations, which makes the networks a third slower.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._running: Future[Any] | None = None

    def __enter__(self) -> BackgroundCalls:
        return self

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._wait()
        self._running = self._thread.submit(function, *arguments)

    def _wait(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._wait()
        finally:
            self._thread.shutdown()
