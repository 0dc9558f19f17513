"""The denoising step as a CUDA graph: captured once, then replayed, one launch in place of thousands of kernels."""

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

_TOLERANCE = 0.01  #: of the largest value, between a replayed step and the step itself; a wrong one is off by all of it
_Arguments = tuple[Any, ...]  #: of a `Step`


class RecordedStep:
    """A step that is replayed from CUDA graphs, one for each layout of arguments.

    A new layout (another batch of branches) runs as it is once, and is captured when it comes again. The first replay
    is compared with the step itself; if capturing fails or the values differ, one line of log says so, and all steps
    run as they are. A recording keeps the memory of a step's activations until `release`.

    Not torch's backend "cudagraphs": it takes weights for arguments, and so keeps a second copy of them, to which it
    copies them in every step (torch 2.13, `num_fw_fixed_arguments`).
    """

    def __init__(self, step: Step, networks: Networks) -> None:
        self._step, self._networks = step, networks
        self._recordings: dict[Any, _Recording] = {}
        self._met: set[Any] = set()
        self._refused = False

    @property
    def recorded(self) -> int:
        """Layouts that are replayed."""
        return len(self._recordings)

    def release(self) -> None:
        """Give the recordings' memory back; the next step is recorded anew."""
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
        except RuntimeError as reason:  # out of memory, too: the step as it is may still fit
            return self._refuse(" ".join(str(reason).split()), exact)
        if not error <= _TOLERANCE * scale:  # not so if it is NaN
            return self._refuse(f"its values, up to {scale:.2g}, were off by {error:.2g}", exact)
        self._recordings[layout] = recording
        return exact

    def _refuse(self, reason: str, exact: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
        log.warning("Denoising steps are not replayed as a CUDA graph: %.200s", reason)
        self._refused = True
        self.release()
        return exact

    def _pointers(self) -> list[int]:
        """The addresses of the weights, which a recording depends on."""
        unet = self._networks.denoising_unet
        return [weight.data_ptr() for weight in (*unet.parameters(), *unet.buffers())]


class _Recording:
    """A captured step and its static inputs; a clip's conditioning, which is large, is copied to them once a clip.

    Recordings may share the memory `pool` of their activations, as each is replayed by itself and its results are
    copied out at once.

    Args:
        own: the static inputs, which nobody else holds.
        seen: the conditioning that they hold a copy of.
    """

    def __init__(self, step: Step, own: _Arguments, seen: ClipConditioning, pointers: list[int], pool: Any) -> None:
        self.pointers = pointers  #: to the weights, when it was captured
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
    """Copies without expanded axes, as a recording holds them: a compiled step is compiled for these at once."""
    return map_tensors(Tensor.clone, arguments)


def _conditioning(arguments: _Arguments) -> ClipConditioning:
    return next(each for each in arguments if isinstance(each, ClipConditioning))


def record(step: Callable[[], Any], device: torch.device, pool: Any) -> tuple[Callable[[], None], Any, Any]:
    """A function that runs the step again, the tensors that then hold its results, and its memory pool.

    Args:
        pool: of another recording; None: a new one.

    Raises:
        RuntimeError: the step does something that a CUDA graph cannot do, or memory ran out.
    """
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.device(device):
        with torch.cuda.stream(stream):
            step()  # libraries get their workspaces at a stream's first call
        with torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"):
            results = step()
    return graph.replay, results, graph.pool()


def _layout(value: Any) -> tuple[Any, ...]:
    """What has to be equal for a recording to fit: shapes and types of tensors, all other values."""
    return tuple((leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf for leaf in leaves(value))


def _copy(source: Any, target: Any) -> None:
    """Copy the values of all tensors."""
    for mine, other in zip(leaves(source), leaves(target), strict=True):
        if isinstance(mine, Tensor):
            other.copy_(mine)
