"""Set-up of all tests."""

import os
from pathlib import Path

import pytest
import torch

SLOW = {
    "test_bench", "test_comfyui_server", "test_convert", "test_data", "test_distill_faces",
    "test_distill_run", "test_evaluate", "test_evaluate_run", "test_face", "test_frontend", "test_full_size",
    "test_generate", "test_jobs", "test_kernels", "test_media", "test_nodes", "test_portraits", "test_prepare",
    "test_sound", "test_speed", "test_training",
}  # fmt: skip
"""Files that train, compile, render, or start other processes. `make check` leaves out these, avatars and fuzzing."""

# One thread: sums do not depend on the machine's cores, and tests that run side by side do not fight for them.
torch.set_num_threads(1)

# Without a GPU, Triton's kernels are interpreted; it looks for this when it is imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        path = Path(item.path)
        if path.stem in SLOW or path.parent.name in ("avatars", "fuzz"):
            item.add_marker(pytest.mark.slow)
