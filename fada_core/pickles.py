"""Reads weights that torch has pickled, after checking the pickle's instructions.

`torch.load(weights_only=True)` runs no code, but a hostile file can still exhaust memory or time: compressed records,
functions that allocate as much as their arguments say, nested tuples whose hash takes years, views that repeat a few
bytes a billion times. All of these can be recognised in the pickle's instructions or in the archive's index.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MAX_INDEX = 8 * 2**20  #: bytes of the pickle without the tensors' data; 0.3 MB for a model like Stable Diffusion
MAX_RECORDS = 100_000  #: files in an archive
MAX_ENTRIES = 10_000  #: entries of a tuple, nested ones included, each counted once per reference
_PICKLES = 5  #: number of pickles at the start of a file that was written before torch 1.6
_ALLOWED = re.compile(
    r"collections OrderedDict|torch (\w+Storage|Size|device|b?float\d+|double|half|u?int\d+|long|bool|float)"
    r"|torch\.storage \w+Storage|torch\._utils _rebuild_(tensor|tensor_v2|parameter)|torch\.nn\.parameter Parameter"
    r"|torch\._tensor _rebuild_from_type_v2|torch Tensor|torch\.serialization _get_layout"
)  # classes and functions that weights consist of
_DAMAGED = (  # exceptions that damaged files raise in practice, besides UnpicklingError
    RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError, struct.error,
    NotImplementedError, OverflowError, MemoryError, zipfile.BadZipFile,
)  # fmt: skip


class PickleError(Exception):
    """A pickle that is refused: its text completes the sentence "FILE ...", and `advice` says what to do."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what)
        self.advice = advice


class TornError(PickleError):
    """The file is damaged or incomplete."""

    def __init__(self) -> None:
        super().__init__("is not a whole file", "download it again")


CODE = "holds code besides weights, which is not executed", "get them as safetensors"
_PROGRAM = "is a program (TorchScript)", "get the weights themselves"


def load_pickle(path: Path) -> Any:
    """Load plain data and tensors from a file that torch has pickled.

    Tensors are memory-mapped; only files written before torch 1.6 are read into memory.

    Raises:
        PickleError: it is not such a file, holds code, or would take more memory or time than its size justifies.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            if zipped:
                _check_pickle(io.BytesIO(_index_of(path)), 1)
            else:
                _check_pickle(io.BytesIO(file.read(MAX_INDEX)), _PICKLES)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "GLOBAL" in str(error):
            raise PickleError(*CODE) from error
        raise TornError from error
    except _DAMAGED as error:
        if "TorchScript" in str(error):
            raise PickleError(*_PROGRAM) from error
        raise TornError from error


def occupies_its_size(tensor: Tensor) -> bool:
    """Whether a tensor has storage for all its values: it is not a view that repeats a few bytes."""
    return tensor.layout == torch.strided and tensor.nbytes <= tensor.untyped_storage().nbytes()


def _index_of(path: Path) -> bytes:
    """The pickle in a torch archive, after checking the archive's list of records."""
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        if any(record.filename.endswith("/constants.pkl") for record in records):
            raise PickleError(*_PROGRAM)
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise PickleError("is compressed, as torch writes no weights", "get the original")
        total = sum(record.file_size for record in records)
        if total > path.stat().st_size or len(records) > MAX_RECORDS:
            raise PickleError("claims more than it holds", "download it again")
        index = [record for record in records if record.filename.endswith("/data.pkl")]
        if len(index) != 1:
            raise TornError
        if index[0].file_size > MAX_INDEX:
            raise PickleError("holds more than weights", "get them as safetensors")
        return archive.read(index[0])


def _check_pickle(content: io.BytesIO, count: int) -> None:
    """Walk through the instructions of `count` consecutive pickles without executing them.

    Only sizes are tracked: the number of entries of tuples, nested ones included, each counted once per reference.
    Lists and dictionaries count as one entry, because they are never hashed.
    """
    for _ in range(count):
        stack: list[tuple[int, Any]] = []  # of each value its size and, if it is a string, the string
        marks: list[int] = []  # length of the stack at each mark
        memo: dict[int, tuple[int, Any]] = {}
        argument: Any  # of the type that the instruction has
        for instruction, argument, _ in pickletools.genops(content):
            name, before = instruction.name, instruction.stack_before
            if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
                memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            elif name == "MARK":
                marks.append(len(stack))
            else:
                start = len(stack) - len(before)
                if pickletools.markobject in before:
                    start = marks.pop() - before.index(pickletools.markobject)
                if start < 0 or (name == "PROTO" and argument > pickle.HIGHEST_PROTOCOL):
                    raise TornError
                taken = stack[start:]
                del stack[start:]
                if name in ("GLOBAL", "STACK_GLOBAL", "INST"):
                    called = f"{taken[0][1]} {taken[1][1]}" if name == "STACK_GLOBAL" else str(argument)
                    if not _ALLOWED.fullmatch(called):
                        raise PickleError(*CODE)
                fixed = name.startswith("TUPLE") or name in ("REDUCE", "NEWOBJ", "FROZENSET")
                size = 1 + (sum(entry[0] for entry in taken) if fixed else 0)
                if size > MAX_ENTRIES:
                    raise PickleError("holds more than weights", "get them as safetensors")
                stack += [(size, argument if isinstance(argument, str) else None)] * len(instruction.stack_after)
