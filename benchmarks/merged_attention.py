"""Tried, and not used: attention to the portrait without copying its keys and values for every frame.

python -m benchmarks.merged_attention

The UNet lets each frame attend to its own tokens and the portrait's, concatenated, so the portrait's are copied for
every frame. Without the copy, all frames' queries attend to the portrait at once, each frame to itself, and the two
results are merged by the logarithms of their softmax's sums. Both are timed in turn at a layer's size.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from fada_core.bench.report import device_name
from fada_core.system import default_device

LAYERS = {
    "tiny, 8x8": (12, 4, 64, 32),
    "sd15, 32x32": (16, 8, 1024, 80),
    "sd15, 64x64": (16, 8, 4096, 40),  # on a GPU only
}
"""Frames, heads, tokens of a frame, dimensions of a head."""
REPEATS = 9


def concatenated(query: Tensor, own: tuple[Tensor, Tensor], portrait: tuple[Tensor, Tensor]) -> Tensor:
    """query (frames, heads, tokens, d); own: keys and values of the same shape; portrait: (1, heads, tokens, d)."""
    keys, values = (torch.cat([a, b.expand_as(a)], dim=2) for a, b in zip(own, portrait, strict=True))
    return F.scaled_dot_product_attention(query, keys, values)


def merged(query: Tensor, own: tuple[Tensor, Tensor], portrait: tuple[Tensor, Tensor]) -> Tensor:
    """The same, up to rounding."""
    frames = len(query)
    alone, sum_alone = _attend(query, *own)
    together = query.transpose(0, 1).flatten(1, 2)[None]  # all frames' queries: (1, heads, frames * tokens, d)
    there, sum_there = _attend(together, *portrait)
    there = there[0].unflatten(1, (frames, -1)).transpose(0, 1)
    sum_there = sum_there[0].unflatten(1, (frames, -1)).transpose(0, 1)
    share = torch.sigmoid(sum_there - sum_alone)[..., None].to(query.dtype)
    return torch.lerp(alone, there, share)


def _attend(query: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Attention, and the logarithm of its softmax's sum, (n, heads, tokens)."""
    kernel = torch.ops.aten._scaled_dot_product_flash_attention
    if query.device.type == "cpu":
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    output, log_sum, *_ = kernel(query, keys, values)
    return output, log_sum


def milliseconds(function: Callable[[], Tensor], device: torch.device) -> float:
    began = time.perf_counter()
    function()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return 1000 * (time.perf_counter() - began)


def main() -> None:
    device = default_device()
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    sys.stdout.write(f"{device_name(device)}, torch {torch.__version__}, {dtype}\n")
    generator = torch.Generator().manual_seed(0)
    layers = list(LAYERS.items())[: 2 if device.type == "cpu" else 3]
    for name, (frames, heads, tokens, d) in layers:

        def draw(rows: int, shape: tuple[int, ...] = (heads, tokens, d)) -> Tensor:
            return torch.randn(rows, *shape, generator=generator).to(device, dtype)

        query, own, portrait = draw(frames), (draw(frames), draw(frames)), (draw(1), draw(1))
        error = (merged(query, own, portrait) - concatenated(query, own, portrait)).abs().max()
        ways = (concatenated, merged)
        spans: list[list[float]] = [[], []]
        for way, taken in list(zip(ways, spans, strict=True)) * REPEATS:
            taken.append(milliseconds(partial(way, query, own, portrait), device))
        both, split = (statistics.median(taken) for taken in spans)
        sys.stdout.write(
            f"{name}: concatenated {both:.1f} ms, merged {split:.1f} ms, {both / split:.2f} x as fast; "
            f"largest difference {error:.1e}\n"
        )


if __name__ == "__main__":
    main()
