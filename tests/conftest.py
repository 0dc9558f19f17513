"""Shared set-up of the tests."""

import torch

# One thread: sums do not depend on the machine's cores, and tests that run side by side do not fight for them.
torch.set_num_threads(1)
