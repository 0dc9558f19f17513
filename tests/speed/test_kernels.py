"""Fused kernels, and blocks that use them: equal to torch's own. Without a GPU, Triton interprets them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fada_core.models.attention import FeedForward
from fada_core.models.resnet import ResnetBlock
from fada_core.speed.fused_layers import fuse_layers

pytest.importorskip("triton", reason="Triton is not installed (pip install triton, on Linux)")
from fada_core.speed import triton_kernels as kernels  # noqa: E402

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize(
    "n, channels, height, width, groups",
    [(2, 32, 4, 4, 8), (3, 96, 9, 7, 32), (1, 320, 1, 3, 32), (1, 8, 100, 90, 4)],
    ids=["small", "odd", "wide", "many_tiles"],
)
def test_group_norm(n, channels, height, width, groups, silu):
    x = (random(n, channels, height, width) * 3 + 40).contiguous(memory_format=torch.channels_last)
    weight, bias = random(2, channels, seed=1)
    exact = F.group_norm(x.double(), groups, weight.double(), bias.double(), 1e-5)
    made = kernels.group_norm(x, groups, weight, bias, 1e-5, silu=silu)
    torch.testing.assert_close(made.double(), F.silu(exact) if silu else exact, atol=3e-5, rtol=0)
    assert made.is_contiguous(memory_format=torch.channels_last)


def test_geglu():
    projected = random(2, 3, 2 * 1100)
    value, gate = projected.chunk(2, dim=-1)
    torch.testing.assert_close(kernels.geglu(projected), value * F.gelu(gate), atol=1e-6, rtol=1e-6)
    turned = random(2 * 6, 5).t()  # not contiguous
    torch.testing.assert_close(kernels.geglu(turned), turned[:, :6] * F.gelu(turned[:, 6:]), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(dtype):
    x = random(2, 16, 4, 4).to(dtype).contiguous(memory_format=torch.channels_last)
    weight, bias = random(2, 16, seed=1).to(dtype)
    exact = F.silu(F.group_norm(x.float(), 4, weight.float(), bias.float(), 1e-5))
    unit = torch.finfo(dtype).eps  # twice what rounding takes: the interpreter cuts bfloat16 off
    made = kernels.group_norm(x, 4, weight, bias, 1e-5, silu=True)
    torch.testing.assert_close(made.float(), exact, atol=1e-6, rtol=unit)
    projected = random(2, 3, 2 * 8).to(dtype)
    value, gate = projected.float().chunk(2, dim=-1)
    torch.testing.assert_close(kernels.geglu(projected).float(), value * F.gelu(gate), atol=1e-6, rtol=unit)


def test_blocks_that_use_them():
    block, feed = ResnetBlock(16, 24, 8, groups=8), FeedForward(16, 2)
    blocks = torch.nn.ModuleList([block, feed]).to(DEVICE, memory_format=torch.channels_last).requires_grad_(False)
    torch.nn.init.normal_(block.conv2.weight, generator=torch.Generator().manual_seed(2))  # is zero
    hidden, time = random(2, 16, 5, 5).contiguous(memory_format=torch.channels_last), random(2, 8)
    tokens = random(2, 7, 16)
    exact = block(hidden, time), feed(tokens)
    fuse_layers(blocks, DEVICE, torch.float32)
    made = block(hidden, time), feed(tokens)
    for one, other in zip(made, exact, strict=True):
        assert not torch.equal(one, other)
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-5)


COMPILE = """
import json, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from fada_core.speed import triton_kernels as kernels

whole, single = "i32", "fp32"
for kernel, types, constants in [
    ("_moments_of_tiles", ["*bf16", "*fp32", "*fp32", whole, whole], [128, 64]),
    ("_moments_of_groups", ["*fp32"] * 4 + [whole] * 4 + [single], [128, 64, 16]),
    ("_normalise", ["*bf16", "*bf16", "*fp32", "*fp32", "*bf16", "*bf16", whole, whole, whole], [True, 128, 64]),
    ("_gate", ["*bf16", "*bf16", whole], [1024]),
]:
    function = getattr(kernels, kernel)
    names = function.arg_names
    assert len(names) == len(types) + len(constants)
    source = ASTSource(
        function,
        dict(zip(names, types + ["constexpr"] * len(constants))),
        {(len(types) + i,): value for i, value in enumerate(constants)},
    )
    for capability in map(int, sys.argv[1:]):
        assert triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"]
"""


def test_they_compile_for_cards_that_are_not_here(tmp_path):
    """For Ampere (compute capability 8.0) and newer; older devices lack bfloat16."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    command = [sys.executable, "-c", COMPILE, "80", "89", "90", "120"]
    subprocess.run(command, env=environment, check=True, timeout=300)  # noqa: S603
