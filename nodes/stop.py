"""ComfyUI's Stop inside of a network's call, and while networks are compiled."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import comfy.model_management
import torch
from torch import nn

T = TypeVar("T")
_LOOK = 0.1  #: seconds between two looks for a stop


class Aside:
    """Calls that nothing can interrupt, such as the first one of a compiled network, in a thread of their own.

    A stop is answered at once. The call that it leaves behind goes on, so that what the compiler makes is there for the
    next run; only the next call waits for its end.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fada")
        self._left: Future[Any] | None = None

    def __call__(self, function: Callable[[], T]) -> T:
        """Its result. Raises what ComfyUI raises at a stop."""
        self.settle()
        self._left = future = self._thread.submit(contextvars.copy_context().run, function)
        _await(future)
        self._left = None
        return future.result()

    def settle(self) -> None:
        """Wait for what an earlier stop has left behind, with the same networks. Another stop ends this, too."""
        if self._left is not None:
            _await(self._left)
            self._left = None


def _await(future: Future[Any]) -> None:
    while not wait([future], _LOOK).done:
        comfy.model_management.throw_exception_if_processing_interrupted()


def make_stoppable(networks: nn.Module) -> None:
    """From now on a stop takes effect at the next layer of the networks, which raises what ComfyUI raises.

    ComfyUI's own layers look for it themselves; those of diffusers and transformers get it here. One function for all,
    and for good: to the compiler another hook would be another network.
    """
    for layer in networks.modules():
        is_leaf = next(layer.children(), None) is None
        if is_leaf and not hasattr(layer, "comfy_cast_weights"):
            layer.register_forward_pre_hook(_look)


def _look(*_: Any) -> None:
    if not torch.compiler.is_compiling():
        comfy.model_management.throw_exception_if_processing_interrupted()
