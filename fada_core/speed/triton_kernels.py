"""Triton kernels for group norm (with SiLU) and GEGLU that make the fewest possible passes over memory.

They are for networks that are not compiled. torch's group norm on CUDA copies a channels_last image to contiguous
order, and the convolution after it copies it back; activations and gates take further passes.
"""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

_PIXELS, _CHANNELS, _TILES, _WIDTH = 128, 64, 64, 1024  #: largest block of one program along each axis; powers of two


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, *, silu: bool) -> Tensor:
    """Group norm, followed by SiLU if `silu`; moments are computed in float32.

    Args:
        x: (n, c, h, w), channels_last; so is the result.
        weight, bias: (c,), on the same device, of any floating type.
    """
    n, channels, height, width = x.shape
    pixels = height * width
    rows, columns = min(_PIXELS, triton.next_power_of_2(pixels)), min(_CHANNELS, triton.next_power_of_2(channels))
    tiles = triton.cdiv(pixels, rows)
    grid, each_takes = (tiles, triton.cdiv(channels, columns), n), {"ROWS": rows, "COLUMNS": columns, "num_warps": 8}
    result = torch.empty_like(x)
    means, squares = x.new_empty(2, n, tiles, channels, dtype=torch.float32)
    mean, scale = x.new_empty(2, n, groups, dtype=torch.float32)
    each = channels // groups
    with torch.cuda.device_of(x):  # Triton launches on the current device
        _moments_of_tiles[grid](x, means, squares, pixels, channels, **each_takes)
        _moments_of_groups[(groups, n)](
            means, squares, mean, scale, pixels, channels, each, tiles, eps, rows, _TILES, triton.next_power_of_2(each)
        )
        _normalise[grid](x, result, mean, scale, weight, bias, pixels, channels, each, silu, **each_takes)
    return result


def geglu(projected: Tensor) -> Tensor:
    """(..., 2 d) -> (..., d): the first half times the exact (erf) GELU of the second."""
    projected = projected.contiguous()
    inner = projected.shape[-1] // 2
    result = projected.new_empty(*projected.shape[:-1], inner)
    grid = (result.numel() // inner, triton.cdiv(inner, _WIDTH))
    with torch.cuda.device_of(projected):
        _gate[grid](projected, result, inner, WIDTH=min(_WIDTH, triton.next_power_of_2(inner)))
    return result


def check(device: torch.device, dtype: torch.dtype) -> None:
    """Run both kernels on the device and compare with torch.

    Raises:
        Exception: of any type, if Triton cannot compile for this device or finds no C compiler.
        RuntimeError: a result differs from torch's.
    """
    values = torch.linspace(-2, 2, 2 * 64 * 30, dtype=torch.float64).sin().view(2, 64, 5, 6)
    x = values.to(device, dtype, memory_format=torch.channels_last)
    weight, bias = x[0, :, 0, 0].contiguous(), x[1, :, 0, 0].contiguous()
    pairs = (
        (group_norm(x, 32, weight, bias, 1e-5, silu=True), F.silu(F.group_norm(x, 32, weight, bias, 1e-5))),
        (geglu(x.flatten(2)), x.flatten(2)[..., :15] * F.gelu(x.flatten(2)[..., 15:])),
    )
    for made, exact in pairs:
        error = float((made - exact).abs().max())
        if not error < 0.05:  # also if the error is NaN
            raise RuntimeError(f"results were off by {error:.2g}")


@triton.jit
def _moments_of_tiles(x, means, squares, pixels, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Mean and sum of squared deviations of each channel over ROWS pixels. Deviations, not plain sums of squares, in
    which small deviations from a large mean would be lost."""
    tile, image = tl.program_id(0), tl.program_id(2).to(tl.int64)
    row, column = tile * ROWS + tl.arange(0, ROWS), tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row < pixels)[:, None] & (column < channels)[None, :]
    where = image * pixels * channels + row[:, None] * channels + column[None, :]
    values = tl.load(x + where, inside, 0.0).to(tl.float32)
    mean = tl.sum(values, 0) / tl.minimum(pixels - tile * ROWS, ROWS)
    away = tl.where(inside, values - mean[None, :], 0.0)
    there = (image * tl.num_programs(0) + tile) * channels + column
    tl.store(means + there, mean, column < channels)
    tl.store(squares + there, tl.sum(away * away, 0), column < channels)


@triton.jit
def _moments_of_groups(
    means,
    squares,
    group_means,
    scales,
    pixels,
    channels,
    each,
    tiles,
    eps,
    ROWS: tl.constexpr,
    TILES: tl.constexpr,
    EACH: tl.constexpr,
):
    """Mean and 1 / standard deviation of a group of `each` channels, merged from the moments of its tiles in a fixed
    order (Chan, Golub and LeVeque 1983)."""
    group, image = tl.program_id(0), tl.program_id(1).to(tl.int64)
    column = tl.arange(0, EACH)[None, :]
    first = image * tiles * channels + group * each
    total = tl.zeros([TILES, EACH], tl.float32)
    for start in range(0, tiles, TILES):
        tile = (start + tl.arange(0, TILES))[:, None]
        inside = (tile < tiles) & (column < each)
        total += tl.load(means + first + tile * channels + column, inside, 0.0) * tl.minimum(pixels - tile * ROWS, ROWS)
    mean = tl.sum(tl.sum(total, 1), 0) / (pixels * each)
    total = tl.zeros([TILES, EACH], tl.float32)
    for start in range(0, tiles, TILES):
        tile = (start + tl.arange(0, TILES))[:, None]
        inside = (tile < tiles) & (column < each)
        away = tl.load(means + first + tile * channels + column, inside, 0.0) - mean
        within = tl.load(squares + first + tile * channels + column, inside, 0.0)
        total += tl.where(inside, within + away * away * tl.minimum(pixels - tile * ROWS, ROWS), 0.0)
    variance = tl.sum(tl.sum(total, 1), 0) / (pixels * each)
    where = image * tl.num_programs(0) + group
    tl.store(group_means + where, mean)
    tl.store(scales + where, 1 / tl.sqrt(variance + eps))


@triton.jit
def _normalise(
    x,
    result,
    means,
    scales,
    weight,
    bias,
    pixels,
    channels,
    each,
    SILU: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    image = tl.program_id(2).to(tl.int64)
    row, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    known = column < channels
    inside = (row < pixels)[:, None] & known[None, :]
    where = image * pixels * channels + row[:, None] * channels + column[None, :]
    group = image * (channels // each) + column // each
    scale = tl.load(scales + group, known, 0.0) * tl.load(weight + column, known, 0.0).to(tl.float32)
    mean, shift = tl.load(means + group, known, 0.0), tl.load(bias + column, known, 0.0).to(tl.float32)
    values = (tl.load(x + where, inside, 0.0).to(tl.float32) - mean[None, :]) * scale[None, :] + shift[None, :]
    if SILU:
        values = values * tl.sigmoid(values)
    tl.store(result + where, values, inside)


@triton.jit
def _gate(projected, result, inner, WIDTH: tl.constexpr):
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = column < inner
    value = tl.load(projected + row * 2 * inner + column, inside, 0.0).to(tl.float32)
    gate = tl.load(projected + row * 2 * inner + inner + column, inside, 0.0).to(tl.float32)
    gelu = 0.5 * gate * (1 + tl.erf(gate * 0.7071067811865476))
    tl.store(result + row * inner + column, value * gelu, inside)
