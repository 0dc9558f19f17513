"""The machine: devices, default precision, memory, and the error when memory runs out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from .errors import FadaError

OUT_OF_MEMORY_ADVICE = "load the model with offload=True (--offload), use a smaller model, or the CPU"


def default_device() -> torch.device:
    """The machine's accelerator (CUDA, MPS, ...) if it has one, otherwise the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def default_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on CUDA devices that support it in hardware; float32 elsewhere.

    Never float16, in which models that were not trained in it overflow (the shipped ones do).
    """
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


def named_device(name: torch.device | str) -> torch.device:
    """The device with this name.

    Raises:
        FadaError: this machine has no such device.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise FadaError(f"'{name}' is no device; use {_devices()}.") from error
    if device.type not in ("cpu", default_device().type):
        raise FadaError(f"There is no device '{name}' on this machine; use {_devices()}.")
    return device


def _devices() -> str:
    """This machine's devices, for error messages."""
    return " or ".join(f"'{name}'" for name in dict.fromkeys(("cpu", default_device().type)))


@contextmanager
def out_of_memory(advice: str = OUT_OF_MEMORY_ADVICE) -> Iterator[None]:
    """Context manager that turns torch.OutOfMemoryError into a FadaError with this advice."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise FadaError(f"The device ran out of memory; {advice}.") from error


def free_bytes(device: torch.device) -> int | None:
    """Free memory of a CUDA device, including torch's unused cache; None for other devices, where it is unknown."""
    if device.type != "cuda":
        return None
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def reset_peak(device: torch.device) -> None:
    """Restart the measurement of `peak_memory_mb`; has no effect for the CPU on systems other than Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5)


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory in MiB since `reset_peak` (or since the process started): of the CUDA device, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**20
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) / 2**10
    import resource  # Unix only

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS: bytes
