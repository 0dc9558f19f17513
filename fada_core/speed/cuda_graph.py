"""A denoising step as a CUDA graph: recorded once, then replayed, so that the host queues one thing for thousands."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..models.networks import Networks
from ..models.unet import Conditioning

log = logging.getLogger("fada.speed")

_TOLERANCE = 0.01  #: of the largest value, between a replayed step and the step itself; a wrong one is off by all of it
_Step = Callable[..., tuple[Tensor, Tensor | None]]
_Arguments = tuple[Any, ...]  #: of `Networks.guided_step`


class ReplayedStep:
    """Stands in for `Networks.guided_step`, with its arguments and results.

    Each new layout of arguments (another batch of branches) runs as it is once, and is recorded when it is met again.
    The recording is compared with the step itself; if it cannot be made or is wrong, one line of log says so, and all
    steps run as they are. A recording keeps the memory of a step's activations until `release`.

    Not torch's backend "cudagraphs": it takes weights for arguments, and so keeps a second copy of them, to which it
    copies them in every step (torch 2.13, `num_fw_fixed_arguments`).
    """

    def __init__(self, networks: Networks) -> None:
        self._step: _Step = networks.guided_step
        self._networks = networks
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
        if recording is not None and (recording.has_conditions_of(arguments) or recording.places == self._places()):
            return recording.replay(arguments)
        return self._record(layout, arguments)

    def _record(self, layout: Any, arguments: _Arguments) -> tuple[Tensor, Tensor | None]:
        self._recordings.pop(layout, None)
        own = _copied(arguments)
        exact = self._step(*own)
        try:
            pool = next((other.pool for other in self._recordings.values()), None)
            recording = _Recording(self._step, own, _conditioning(arguments), self._places(), pool)
            made = recording.replay(arguments)
            error, scale = float((made[0] - exact[0]).abs().max()), float(exact[0].abs().max())
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

    def _places(self) -> list[int]:
        """Where the weights are, which a recording takes for granted."""
        unet = self._networks.denoising_unet
        return [weight.data_ptr() for weight in (*unet.parameters(), *unet.buffers())]


class _Recording:
    """A step on memory of its own, to which arguments are copied: the conditions, which are large, only once a clip.

    Recordings may share the memory `pool` of what they compute, as each is replayed by itself and copied out at once.

    Args:
        own: arguments that nobody else has.
        seen: the conditions that they are copies of.
    """

    def __init__(self, step: _Step, own: _Arguments, seen: Conditioning, places: list[int], pool: Any) -> None:
        self.places = places  #: of the weights, while it was recorded
        self._arguments = own
        self._seen = weakref.ref(seen)
        self._run, self._made, self.pool = record(lambda: step(*self._arguments), own[0].device, pool)

    def has_conditions_of(self, arguments: _Arguments) -> bool:
        return self._seen() is _conditioning(arguments)

    def replay(self, arguments: _Arguments) -> tuple[Tensor, Tensor | None]:
        seen = self._seen()
        for given, own in zip(arguments, self._arguments, strict=True):
            if given is not seen:
                _copy(given, own)
        self._seen = weakref.ref(_conditioning(arguments))
        self._run()
        return mapped(Tensor.clone, self._made)


def _copied(arguments: _Arguments) -> _Arguments:
    """Arguments as a recording has them: what was expanded is not, so a compiled step is compiled for these at once."""
    return mapped(Tensor.clone, arguments)


def _conditioning(arguments: _Arguments) -> Conditioning:
    return next(each for each in arguments if isinstance(each, Conditioning))


def record(step: Callable[[], Any], device: torch.device, pool: Any) -> tuple[Callable[[], None], Any, Any]:
    """What runs the step again, where its results are then, and the pool of its memory.

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
            made = step()
    return graph.replay, made, graph.pool()


def _leaves(value: Any) -> Iterator[Any]:
    """Tensors, numbers and Nones in nested containers, in order."""
    if is_dataclass(value):
        parts: Iterable[Any] = (getattr(value, field.name) for field in fields(value))
    elif isinstance(value, dict):
        parts = value.values()
    elif isinstance(value, (tuple, list)):
        parts = value
    else:
        yield value
        return
    for part in parts:
        yield from _leaves(part)


def _layout(value: Any) -> tuple[Any, ...]:
    """What has to be equal for a recording to fit: shapes and types of tensors, everything else itself."""
    return tuple((leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf for leaf in _leaves(value))


def mapped(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """The same containers with what the function makes of each tensor."""
    if isinstance(value, Tensor):
        return function(value)
    if is_dataclass(value):
        return replace(value, **{field.name: mapped(function, getattr(value, field.name)) for field in fields(value)})
    if isinstance(value, dict):
        return {name: mapped(function, part) for name, part in value.items()}
    return type(value)(mapped(function, part) for part in value) if isinstance(value, (tuple, list)) else value


def _copy(source: Any, target: Any) -> None:
    """The values of the tensors of one into those of the other."""
    for mine, other in zip(_leaves(source), _leaves(target), strict=True):
        if isinstance(mine, Tensor):
            other.copy_(mine)
