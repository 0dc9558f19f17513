"""Which way the networks' repeated work runs: as it is, compiled, or with fused kernels as a CUDA graph."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from ..errors import FadaError
from ..models.networks import Networks
from .cuda_graph import ReplayedStep
from .fused_layers import fuse, swap

log = logging.getLogger("fada.speed")

WAYS = {
    "eager": "the networks as they are",
    "compile": "a denoising step and the decoder through torch.compile; on CUDA the step is then replayed as a graph",
    "graph": "fused norms and gates, and a denoising step replayed as a CUDA graph",
}
LONG = 8000
"""Evaluations from which on compiling, which takes a minute or two, pays: measured with the shipped models on a CPU
(docs/PERFORMANCE.md). Larger models save more in each, so theirs are fewer; not measured on a GPU."""


def choose(way: str, device: torch.device, evaluations: int) -> str:
    """The entry of WAYS that `way`, one of them or "auto", means for a job of so many evaluations of the UNet.

    Auto compiles long jobs on CUDA and on the CPU, and takes "graph" for other ones on CUDA, as it is ready in seconds.
    It does not on ROCm, which torch calls CUDA, too.

    Raises:
        FadaError: an unknown way, or a graph on a device without them.
    """
    if way == "auto":
        if evaluations >= LONG and device.type in ("cuda", "cpu"):
            return "compile"
        return "graph" if _has_graphs(device) else "eager"
    if way not in WAYS:
        raise FadaError(f"There is no way to compute '{way}'; choose auto or one of {', '.join(WAYS)}.")
    if way == "graph" and device.type != "cuda":
        raise FadaError(f"The way 'graph' needs a CUDA device, not '{device.type}'; choose eager or compile.")
    return way


def accelerate(networks: Networks, way: str, device: torch.device) -> ExitStack:
    """Make the networks compute in this way, an entry of WAYS, from their next call on; the results stay the same.

    Shapes are static, so each new one (another batch of branches, a shorter last decode) is compiled or recorded once
    more. What cannot be compiled, fused or recorded runs as it is, after one line of log.

    Returns:
        What makes them as they were when it is closed.
    """
    undo = ExitStack()
    if way == "compile":
        log.info("The networks are compiled at their first call, which takes a minute or two.")
        # What a clip prepares is left out: 7 ms a clip saved are not worth the minute that it takes to compile.
        for module, method in ((networks, "guided_step"), (decoder(networks), "forward")):
            swap(undo, module, method, _compiled(module, method))
    if way == "graph":
        fuse(networks, device, networks.dtype, undo)
    if way == "graph" or (way == "compile" and _has_graphs(device)):
        swap(undo, networks, "guided_step", ReplayedStep(networks))
    return undo


def release(networks: Networks) -> None:
    """Give back the memory that the way takes between two videos; the next one records its graphs anew."""
    if isinstance(networks.guided_step, ReplayedStep):
        networks.guided_step.release()


def decoder(networks: Networks) -> nn.Module:
    """The autoencoder's decoder: of whatever kind it is, it has that name."""
    return next(module for name, module in networks.vae.named_modules() if name.split(".")[-1] == "decoder")


def _has_graphs(device: torch.device) -> bool:
    return device.type == "cuda" and torch.version.hip is None


def _compiled(module: nn.Module, method: str) -> Callable[..., Any]:
    """The method, compiled at its first call; if it cannot be, as it is."""
    from torch._dynamo.exc import TorchDynamoException  # the compiler takes seconds to import

    plain: Callable[..., Any] = getattr(module, method)
    # Before each call the compiler looks whether what it compiled for is still so. For torch's own layers that takes
    # a millisecond and says nothing: their weights move or change their type together with what is passed in.
    unwatched = getattr(torch.compiler, "skip_guard_on_inbuilt_nn_modules_unsafe", None)  # torch 2.8 and later
    options = {"guard_filter_fn": unwatched} if unwatched else None
    run = torch.compile(plain, dynamic=False, fullgraph=True, options=options)

    def attempt(*args: Any, **kwargs: Any) -> Any:
        nonlocal run
        try:
            return run(*args, **kwargs)
        except TorchDynamoException as error:
            reason = " ".join(str(error).split())
            log.warning("%s.%s runs uncompiled: %.200s", type(module).__name__, method, reason)
            run = plain
            return plain(*args, **kwargs)

    return attempt
