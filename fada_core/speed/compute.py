"""How the two computations that repeat, denoising step and decoding, run: eager, compiled, or as a CUDA graph."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

from ..errors import FadaError
from ..models.networks import Networks
from ..sampling.denoise import Denoiser, DenoisingStep, Step
from ..settings import COMPUTE
from .cuda_graph import RecordedStep
from .fused_layers import fuse_layers, restore_layers

log = logging.getLogger("fada.speed")

COMPILE_FROM_EVALUATIONS = 8000
"""Evaluations of the UNet from which on compiling, which takes a minute or two, pays off: measured with the shipped
models on a CPU (docs/PERFORMANCE.md). Larger models save more in each, so theirs are fewer; not measured on a GPU."""


def choose(compute: str, device: torch.device, evaluations: int) -> str:
    """The entry of COMPUTE that `compute`, one of them or "auto", means for a job of so many evaluations of the UNet.

    Auto compiles long jobs on CUDA and on the CPU, and takes "graph" for others on CUDA, as it is ready in seconds;
    not on ROCm, which torch also calls CUDA.

    Raises:
        FadaError: an unknown way to compute, or a graph on a device that has none.
    """
    if compute == "auto":
        if evaluations >= COMPILE_FROM_EVALUATIONS and device.type in ("cuda", "cpu"):
            return "compile"
        return "graph" if _has_graphs(device) else "eager"
    if compute not in COMPUTE:
        raise FadaError(f"There is no way to compute '{compute}'; choose auto or one of {', '.join(COMPUTE)}.")
    if compute == "graph" and device.type != "cuda":
        raise FadaError(f"The way 'graph' needs a CUDA device, not '{device.type}'; choose eager or compile.")
    return compute


def build_denoiser(networks: Networks, compute: str, device: torch.device) -> Denoiser:
    """A denoiser for these networks that computes in this way, an entry of COMPUTE; results stay the same.

    Shapes are static, so each new one (another batch of branches, a shorter last decode) is compiled or recorded once
    more. Anything that fails to compile, fuse or record runs eagerly, and one line of log says why. Fused layers are
    part of the networks until the next call.
    """
    restore_layers(networks)
    if compute == "eager":
        return Denoiser(networks)
    step: Step = DenoisingStep(networks)
    decode = None
    if compute == "compile":
        log.info("The networks are compiled at their first call, which takes a minute or two.")
        # A clip's conditioning is left out: the 7 ms saved for each are not worth the minute that compiling it takes.
        step = _compiled("denoising step", DenoisingStep(networks).__call__)
        decode = _compiled("decoder", networks.vae.decode)
    else:
        fuse_layers(networks, device, networks.dtype)
    if compute == "graph" or _has_graphs(device):
        step = RecordedStep(step, networks)
    return Denoiser(networks, step, decode)


def release(denoiser: Denoiser) -> None:
    """Give back the memory that is kept between two videos; the next one records its graphs anew."""
    if isinstance(denoiser.step, RecordedStep):
        denoiser.step.release()


def _has_graphs(device: torch.device) -> bool:
    return device.type == "cuda" and torch.version.hip is None


def _compiled(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled at its first call; if that fails, as it is."""
    from torch._dynamo.exc import TorchDynamoException  # the compiler takes seconds to import

    # Before each call the compiler checks that what it compiled for still holds. For torch's own layers that takes a
    # millisecond and finds nothing: their weights move or change their type together with the inputs.
    unwatched = getattr(torch.compiler, "skip_guard_on_inbuilt_nn_modules_unsafe", None)  # torch 2.8 and later
    options = {"guard_filter_fn": unwatched} if unwatched else None
    run = torch.compile(function, dynamic=False, fullgraph=True, options=options)

    def attempt(*args: Any) -> Any:
        nonlocal run
        try:
            return run(*args)
        except TorchDynamoException as error:
            log.warning("The %s runs uncompiled: %.200s", name, " ".join(str(error).split()))
            run = function
            return function(*args)

    return attempt
