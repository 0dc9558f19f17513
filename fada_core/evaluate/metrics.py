"""Measures on one generated video against the rendered truth for the same portrait and speech."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..data.avatars import box_mask
from .lips import LipsRegressor, correlation, correlation_and_offset

RESTING = 0.05  #: true openness below which a mouth counts as closed


@dataclass(frozen=True)
class Truth:
    """The rendered side: portrait (3, s, s) in -1..1, frames (n, 3, s, s) in -1..1, and the renderer's parameters."""

    portrait: Tensor
    frames: Tensor
    parameters: dict[str, Any]
    mouth_hidden: bool = False  #: by a mask, say: nothing can be told about the lips

    @property
    def openness(self) -> Tensor:
        return torch.as_tensor(self.parameters["openness"])


def face_mask(truth: Truth) -> Tensor:
    """The face without mouth and eyes, `(1, 1, s, s)`, at the place of the first frame."""
    size = truth.portrait.shape[-1]
    face, mouth, eyes = (
        box_mask(torch.as_tensor(truth.parameters[name])[:1].float(), size, margin)
        for name, margin in (("face_box", 0.0), ("mouth_box", 4.0), ("eyes_box", 4.0))
    )
    return face * (1 - mouth) * (1 - eyes)


def masked_psnr(a: Tensor, b: Tensor, mask: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in -1..1 where `mask` is 1."""
    mse = ((a - b).square() * mask).sum() / (mask.expand_as(a).sum())
    return float(-10 * torch.log10(mse / 4))


def flicker(frames: Tensor, mask: Tensor) -> float:
    """Mean absolute second difference in time where `mask` is 1, of the full range: smooth motion has little."""
    jerk = frames[2:] - 2 * frames[1:-1] + frames[:-2]
    return float((jerk.abs() * mask).sum() / mask.expand_as(jerk).sum() / 2)


def measure(
    frames: Tensor, truth: Truth, other_openness: Tensor, regressor: LipsRegressor, clip_frames: int
) -> dict[str, float]:
    """All measures of a video, generated or the truth itself; those of a hidden mouth are left out.

    Args:
        frames: (n, 3, s, s) in -1..1.
        truth: for the same portrait and speech.
        other_openness: true openness of another video, (n,): the control.
        clip_frames: frames that were denoised together; the first and the last that many are compared for drift.

    Returns:
        lips_r, lips_offset: see `correlation_and_offset`.
        lips_r_other_audio: correlation with the control; 0 is right.
        lips_error: mean absolute difference of the openness from the true one, 0..1; unlike the correlation it also
            counts movement of the wrong size.
        lips_spread: deviation of the openness, as a share of the true one.
        openness_at_rest: mean openness read while the true mouth is closed, in silence above all; 0 closed, 1 widest.
        psnr_first_clip, psnr_last_clip: the face without mouth and eyes against the portrait, dB.
        flicker: see there.
    """
    mask = face_mask(truth)
    values = {
        "psnr_first_clip": masked_psnr(frames[:clip_frames], truth.portrait, mask),
        "psnr_last_clip": masked_psnr(frames[-clip_frames:], truth.portrait, mask),
        "flicker": flicker(frames, mask),
    }
    if truth.mouth_hidden:
        return values
    with torch.inference_mode():
        opened = regressor(frames)
    truly = truth.openness
    r, offset = correlation_and_offset(opened, truly)
    values |= {
        "lips_r": r,
        "lips_offset": float(offset),
        "lips_r_other_audio": correlation(opened, other_openness),
        "lips_error": float((opened - truly).abs().mean()),
        "lips_spread": float(opened.std() / truly.std()),
    }
    resting = truly < RESTING
    if resting.any():
        values["openness_at_rest"] = float(opened[resting].mean())
    return values
