"""Makes ComfyUI's interrupt take effect within a call of a network, and while networks are compiled."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import comfy.model_management
import torch
from torch import nn

T = TypeVar("T")
_LOOK = 0.1  #: seconds between two checks for an interrupt


class Aside:
    """Runs calls that cannot be interrupted, such as the first one of a compiled network, in a separate thread.

    An interrupt takes effect at once. The call itself then continues in the background, so that the compiled code is
    available for the next run; the next call waits for its end.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fada")
        self._left: Future[Any] | None = None

    def __call__(self, function: Callable[[], T]) -> T:
        """Call the function and return its result; raises ComfyUI's exception at an interrupt."""
        self.settle()
        self._left = future = self._thread.submit(contextvars.copy_context().run, function)
        _await(future)
        self._left = None
        return future.result()

    def settle(self) -> None:
        """Wait for a call that continued after an interrupt, as it uses the same networks. This can be interrupted."""
        if self._left is not None:
            _await(self._left)
            self._left = None


def _await(future: Future[Any]) -> None:
    while not wait([future], _LOOK).done:
        comfy.model_management.throw_exception_if_processing_interrupted()


def make_stoppable(networks: nn.Module) -> None:
    """Make all layers of the networks raise ComfyUI's exception after an interrupt.

    ComfyUI's own layers already do; layers of diffusers and transformers get a hook. It is the same function for all,
    and is never removed, because another hook would make torch.compile compile again.
    """
    for layer in networks.modules():
        is_leaf = next(layer.children(), None) is None
        if is_leaf and not hasattr(layer, "comfy_cast_weights"):
            layer.register_forward_pre_hook(_look)


def _look(*_: Any) -> None:
    if not torch.compiler.is_compiling():
        comfy.model_management.throw_exception_if_processing_interrupted()
