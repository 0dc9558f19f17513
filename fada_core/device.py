"""Where to compute: the accelerator or the CPU, how precisely, and what to say when its memory is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .errors import FadaError

OFFLOAD = "load the model with offload=True (--offload), use a smaller model, or the CPU"


def default_device() -> torch.device:
    """The machine's accelerator (CUDA, MPS, ...), or else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def default_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on CUDA where the hardware has it, else float16; float32 elsewhere."""
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def named_device(name: torch.device | str) -> torch.device:
    """The device of that name.

    Raises:
        FadaError: this machine has none.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise FadaError(f"'{name}' is no device; use 'cpu' or '{default_device().type}'.") from error
    if device.type not in ("cpu", default_device().type):
        raise FadaError(f"There is no device '{name}' on this machine; use '{default_device().type}'.")
    return device


@contextmanager
def out_of_memory(advice: str = OFFLOAD) -> Iterator[None]:
    """Turns running out of the device's memory into a FadaError that says what to do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise FadaError(f"The device ran out of memory; {advice}.") from error
