"""How much memory work has taken at its peak: of the device on CUDA, else of the whole process."""

from __future__ import annotations

import sys
from pathlib import Path

import torch


def reset_peak(device: torch.device) -> None:
    """Let the peak start again from here; without effect on the CPU of other systems than Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5)


def peak_memory_mb(device: torch.device) -> float:
    """The peak since `reset_peak`, or else since the process began, in MiB."""
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
