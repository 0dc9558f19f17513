"""How much memory there is, how much pictures take, and how much work has taken at its peak."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from .config import ModelConfig

_PICTURE_MAPS = 4
"""Maps of the picture's size that are alive at once in an autoencoder, for the estimate of the memory that it needs."""
_PICTURE_CHANNELS = {"tiny": 16, "taesd": 64, "kl": 256}  #: of such a map, at most


def picture_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """An upper estimate of the memory that the autoencoder's activations take for one picture."""
    return _PICTURE_MAPS * config.size**2 * _PICTURE_CHANNELS[config.vae.kind] * dtype.itemsize


def free_bytes(device: torch.device) -> int | None:
    """What tensors can still take of a CUDA device's memory; None on others, where nobody knows."""
    if device.type != "cuda":
        return None
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def reset_peak(device: torch.device) -> None:
    """Let the peak start again from here; without effect on the CPU of other systems than Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5)


def peak_memory_mb(device: torch.device) -> float:
    """The peak since `reset_peak`, or else since the process began, in MiB: of CUDA's memory, else of the process's."""
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
