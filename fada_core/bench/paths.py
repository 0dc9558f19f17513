"""The ways to compute the same video that are compared."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..errors import FadaError
from ..media.image import to_uint8
from ..models.networks import Networks
from ..pipeline import Pipeline
from ..speed.compute import WAYS
from .ablation import ABLATIONS
from .reference import ReferencePipeline, to_host

PATHS = {
    **WAYS,
    **{name: f"as eager, but {ablation.does}" for name, ablation in ABLATIONS.items()},
    "reference": "the plain way of published code (`reference.py`)",
}


@dataclass(frozen=True, eq=False)
class Path:
    """One way: what samples and decodes, and how frames reach the host."""

    name: str
    pipe: Pipeline | ReferencePipeline
    to_host: Callable[[Tensor], Tensor]  #: (n, 3, h, w) in -1..1 -> (n, h, w, 3) bytes on the CPU


def parse_paths(text: str, device_type: str) -> list[str]:
    """Names from a list with commas, in which "ablations" stands for all of these.

    Raises:
        FadaError: an unknown name, a name twice, or a graph on a device without them.
    """
    asked = [name.strip() for name in text.split(",")]
    names = [name for each in asked for name in (ABLATIONS if each == "ablations" else [each])]
    for name in names:
        if name not in PATHS:
            raise FadaError(f"There is no path '{name}' to compare; choose from {', '.join(PATHS)}.")
        if names.count(name) > 1:
            raise FadaError(f"The path '{name}' is there twice; name each one once.")
    if "graph" in names and device_type != "cuda":
        raise FadaError(f"The path 'graph' needs a CUDA device, not '{device_type}'; leave it out of --compare.")
    return names


def build_path(name: str, pipe: Pipeline) -> Path:
    """The way called `name` for a loaded model, whose weights it shares."""
    if name == "eager":
        return Path(name, pipe, to_uint8)
    if name == "reference":
        return Path(name, ReferencePipeline(_plain(pipe.networks), pipe.info), to_host)
    twin = Pipeline(_twin(pipe.networks), pipe.info)
    if name in ABLATIONS:
        ABLATIONS[name].change(twin)
    else:
        twin.sample = partial(twin.sample, compute=name)
    return Path(name, twin, to_uint8)


def _twin(networks: Networks) -> Networks:
    """Modules of their own around the same weights, so that compiling one leaves the other alone."""
    return _copied(networks, [*networks.parameters(), *networks.buffers()])


def _plain(networks: Networks) -> Networks:
    """The same with convolutions of their own, in the order of memory that published code leaves them in."""
    shared = [weight for weight in (*networks.parameters(), *networks.buffers()) if weight.ndim != 4]
    return _copied(networks, shared).to(memory_format=torch.contiguous_format)


def _copied(networks: Networks, shared: list[Tensor]) -> Networks:
    return copy.deepcopy(networks, {id(weight): weight for weight in shared})
