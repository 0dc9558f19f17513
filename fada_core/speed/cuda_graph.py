"""The denoising step as a CUDA graph: captured once, then replayed by one launch instead of thousands."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..models.networks import ClipConditioning, Networks
from ..sampling.denoise import Step
from ..tensors import leaves, map_tensors

log = logging.getLogger("fada.speed")

_TOLERANCE = 0.01  #: largest difference between a replayed and an eager step, relative to the largest value
_Arguments = tuple[Any, ...]  #: of a `Step`


class RecordedStep:
    """A step that is replayed from CUDA graphs, one for each layout (shapes and types) of its arguments.

    The first call with a new layout runs eagerly, the second one captures it. The first replay is compared with the
    eager step; if capturing fails or the values differ, that is logged, and all steps run eagerly from then on. A
    recording keeps the memory of a step's activations until `release`.

    torch's backend "cudagraphs" is not used: it treats weights as arguments, and so keeps a second copy of them that it
    updates in every step (torch 2.13, `num_fw_fixed_arguments`).
    """

    def __init__(self, step: Step, networks: Networks) -> None:
        self._step, self._networks = step, networks
        self._recordings: dict[Any, _Recording] = {}
        self._met: set[Any] = set()
        self._refused = False

    @property
    def recorded(self) -> int:
        """Number of recorded layouts."""
        return len(self._recordings)

    def release(self) -> None:
        """Free the recordings' memory; the next step is recorded again."""
        self._recordings.clear()

    def __call__(self, *arguments: Any) -> tuple[Tensor, Tensor | None]:
        layout = _layout(arguments)
        if self._refused:
            return self._step(*arguments)
        if layout not in self._met:
            self._met.add(layout)
            return self._step(*_copied(arguments))
        recording = self._recordings.get(layout)
        if recording is not None and (
            recording.holds_conditioning_of(arguments) or recording.pointers == self._pointers()
        ):
            return recording.replay(arguments)
        return self._record(layout, arguments)

    def _record(self, layout: Any, arguments: _Arguments) -> tuple[Tensor, Tensor | None]:
        self._recordings.pop(layout, None)
        own = _copied(arguments)
        exact = self._step(*own)
        try:
            pool = next((other.pool for other in self._recordings.values()), None)
            recording = _Recording(self._step, own, _conditioning(arguments), self._pointers(), pool)
            replayed = recording.replay(arguments)
            error, scale = float((replayed[0] - exact[0]).abs().max()), float(exact[0].abs().max())
        except RuntimeError as reason:  # also if memory ran out: the eager step may still fit
            return self._refuse(" ".join(str(reason).split()), exact)
        if not error <= _TOLERANCE * scale:  # also if the error is NaN
            return self._refuse(f"its values, up to {scale:.2g}, were off by {error:.2g}", exact)
        self._recordings[layout] = recording
        return exact

    def _refuse(self, reason: str, exact: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
        log.warning("Denoising steps are not replayed as a CUDA graph: %.200s", reason)
        self._refused = True
        self.release()
        return exact

    def _pointers(self) -> list[int]:
        """Addresses of the weights; a recording is valid only as long as they stay the same."""
        unet = self._networks.denoising_unet
        return [weight.data_ptr() for weight in (*unet.parameters(), *unet.buffers())]


class _Recording:
    """A captured step and its static inputs. The conditioning, which is large, is copied to them only once per clip.

    Recordings may share a memory pool for their activations, as they are never replayed at the same time and results
    are copied out at once.

    Args:
        own: the static inputs, not used anywhere else.
        seen: the conditioning of which `own` contains a copy.
        pointers: addresses of the weights at the time of capture.
        pool: memory pool of another recording; None: a new one.
    """

    def __init__(self, step: Step, own: _Arguments, seen: ClipConditioning, pointers: list[int], pool: Any) -> None:
        self.pointers = pointers
        self._arguments = own
        self._seen = weakref.ref(seen)
        self._replay, self._results, self.pool = record(lambda: step(*self._arguments), own[0].device, pool)

    def holds_conditioning_of(self, arguments: _Arguments) -> bool:
        return self._seen() is _conditioning(arguments)

    def replay(self, arguments: _Arguments) -> tuple[Tensor, Tensor | None]:
        seen = self._seen()
        for given, own in zip(arguments, self._arguments, strict=True):
            if given is not seen:
                _copy(given, own)
        self._seen = weakref.ref(_conditioning(arguments))
        self._replay()
        return map_tensors(Tensor.clone, self._results)


def _copied(arguments: _Arguments) -> _Arguments:
    """Copies with ordinary strides, like the static inputs, so that a compiled step is compiled only once."""
    return map_tensors(Tensor.clone, arguments)


def _conditioning(arguments: _Arguments) -> ClipConditioning:
    return next(each for each in arguments if isinstance(each, ClipConditioning))


def record(step: Callable[[], Any], device: torch.device, pool: Any) -> tuple[Callable[[], None], Any, Any]:
    """Capture the step; returns a function that replays it, the tensors that then hold its results, and a memory pool.

    Args:
        pool: memory pool of another recording; None: a new one.

    Raises:
        RuntimeError: the step contains an operation that cannot be captured, or memory ran out.
    """
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.device(device):
        with torch.cuda.stream(stream):
            step()  # libraries allocate their workspaces at the first call in a stream
        with torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"):
            results = step()
    return graph.replay, results, graph.pool()


def _layout(value: Any) -> tuple[Any, ...]:
    """Key of a recording: shapes, types and devices of all tensors, and all other values."""
    return tuple((leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf for leaf in leaves(value))


def _copy(source: Any, target: Any) -> None:
    """Copy the values of all tensors."""
    for mine, other in zip(leaves(source), leaves(target), strict=True):
        if isinstance(mine, Tensor):
            other.copy_(mine)
