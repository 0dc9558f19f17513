"""Not a number: found once a clip, on the device, where latents leave the sampling and frames the decoding."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import FadaError


class FiniteCheck:
    """Whether all values of a tensor are finite: asked at once, answered later, so that nobody waits for the device.

    Args:
        values: any shape, floating point.
        what: the values are, for the error: "The latents".
        dtype: in which the networks compute, which decides what the user can do.
    """

    def __init__(self, values: Tensor, what: str, dtype: torch.dtype) -> None:
        self._what, self._dtype = what, dtype
        self._finite, self._copied = values.isfinite().all(), None
        if values.device.type == "cuda":
            on_device, self._finite = self._finite, torch.empty((), dtype=torch.bool, pin_memory=True)
            self._finite.copy_(on_device, non_blocking=True)
            self._copied = torch.cuda.current_stream(values.device).record_event()

    def answer(self) -> None:
        """Wait for what was queued before the question, no more.

        Raises:
            FadaError: some values are infinite or no numbers.
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
    """Whether all values of a floating tensor are finite; waits for the device."""
    # Least and most are NaN if anything is; this reads 20 times faster than a test of every value.
    plain = tensor if tensor.itemsize > 1 else tensor.float()
    return not tensor.numel() or bool(torch.stack(torch.aminmax(plain)).isfinite().all())
