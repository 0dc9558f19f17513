"""Writes a safetensors file tensor by tensor, so that it is never in memory as a whole."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..errors import FadaError
from ..finite import all_finite

_CODES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def write_tensors(
    path: Path,
    tensors: dict[str, Tensor],
    dtypes: dict[str, torch.dtype],
    metadata: dict[str, str],
    source: Path,
    advance: Callable[[int], None],
) -> dict[str, int]:
    """Write `tensors` with their `dtypes` and return their checksums (see `checksum`).

    Each tensor is removed from the dict when it is written, so that mapped files are released.

    Args:
        source: file or folder of the tensors, for errors.
        advance: called with the number of bytes after each tensor.

    Raises:
        FadaError: a value is not finite, or too large for its dtype.
    """
    # The format allows no gaps between tensors; with wider types first, all are aligned.
    order = sorted(tensors, key=lambda name: -dtypes[name].itemsize)
    header: dict[str, object] = {"__metadata__": metadata}
    offset = 0
    for name in order:
        size = tensors[name].numel() * dtypes[name].itemsize
        shape = list(tensors[name].shape)
        header[name] = {"dtype": _CODES[dtypes[name]], "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    checksums = {}
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for name in order:
            value = tensors.pop(name)
            written = value.to(dtypes[name]).contiguous()
            if not all_finite(written):
                reason = "has values beyond fp16's range; use --dtype bf16"
                if not all_finite(value):
                    reason = "has values that are not finite; the file is damaged, download it again"
                raise FadaError(f"'{name}' in '{source}' {reason}.")
            checksums[name] = checksum(written)
            advance(file.write(_bytes(written)))
    return checksums


def checksum(tensor: Tensor) -> int:
    """CRC-32 of the bytes of a tensor on the CPU."""
    return zlib.crc32(_bytes(tensor.contiguous()))


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data
