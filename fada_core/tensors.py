"""Functions over tensors in nested dataclasses, dicts, lists and tuples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

from torch import Tensor


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """A copy of the nested containers with `function` applied to every tensor; other values are kept."""
    if isinstance(value, Tensor):
        return function(value)
    if is_dataclass(value) and not isinstance(value, type):
        changed = {field.name: map_tensors(function, getattr(value, field.name)) for field in fields(value)}
        return replace(value, **changed)
    if isinstance(value, dict):
        return {name: map_tensors(function, part) for name, part in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(map_tensors(function, part) for part in value)
    return value


def leaves(value: Any) -> Iterator[Any]:
    """All tensors and other values that are not containers, in order."""
    if is_dataclass(value):
        parts: Iterable[Any] = (getattr(value, field.name) for field in fields(value))
    elif isinstance(value, dict):
        parts = value.values()
    elif isinstance(value, (tuple, list)):
        parts = value
    else:
        yield value
        return
    for part in parts:
        yield from leaves(part)
