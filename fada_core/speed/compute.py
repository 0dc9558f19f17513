"""Chooses and builds how denoising step and decoder run: eager, compiled, or as a CUDA graph."""

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
"""UNet evaluations from which on compiling, which takes a minute or two, pays off. Measured with the shipped models on
a CPU (docs/PERFORMANCE.md); larger models save more per evaluation and need fewer. Not measured on a GPU."""


def choose(compute: str, device: torch.device, evaluations: int) -> str:
    """Resolve "auto", and check that the device supports the choice; returns an entry of COMPUTE.

    "auto" compiles long jobs on CUDA and on the CPU. For other jobs it uses "graph" on CUDA, where recording takes
    seconds only, but not on ROCm (which torch also calls CUDA), and "eager" elsewhere.

    Args:
        compute: an entry of COMPUTE, or "auto".
        evaluations: of the UNet in this job.

    Raises:
        FadaError: `compute` is unknown, or needs CUDA and the device has none.
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
    """A denoiser that runs the networks in this way; results are the same up to rounding.

    Shapes are static: each new one (another batch of branches, a shorter last decode) is compiled or recorded again.
    Anything that fails to compile, fuse or record falls back to eager, and logs one line. Fused layers stay in
    `networks` until the next call of this function.

    Args:
        compute: an entry of COMPUTE.
    """
    restore_layers(networks)
    if compute == "eager":
        return Denoiser(networks)
    step: Step = DenoisingStep(networks)
    decode = None
    if compute == "compile":
        log.info("The networks are compiled at their first call, which takes a minute or two.")
        # The conditioning is not compiled: that takes a minute and saves only 7 ms per clip.
        step = _compiled("denoising step", DenoisingStep(networks).__call__)
        decode = _compiled("decoder", networks.vae.decode)
    else:
        fuse_layers(networks, device, networks.dtype)
    if compute == "graph" or _has_graphs(device):
        step = RecordedStep(step, networks)
    return Denoiser(networks, step, decode)


def release(denoiser: Denoiser) -> None:
    """Free the memory of recorded CUDA graphs; the next video records them again."""
    if isinstance(denoiser.step, RecordedStep):
        denoiser.step.release()


def _has_graphs(device: torch.device) -> bool:
    return device.type == "cuda" and torch.version.hip is None


def _compiled(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled at its first call, or itself if compiling fails."""
    from torch._dynamo.exc import TorchDynamoException  # the compiler takes seconds to import

    # Before each call, guards check that the assumptions of the compiled code still hold. For torch's own layers that
    # takes a millisecond and is not needed: their weights change device or type only together with the inputs.
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
