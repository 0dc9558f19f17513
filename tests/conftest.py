"""Shared set-up of the tests."""

import os

import torch

# One thread: sums do not depend on the machine's cores, and tests that run side by side do not fight for them.
torch.set_num_threads(1)

# Without a GPU, Triton's kernels are interpreted; it looks for this when it is imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
