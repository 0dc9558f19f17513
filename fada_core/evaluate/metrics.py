"""Metrics of a generated video against the rendered ground truth for the same portrait and speech."""

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
    """Ground truth: portrait (3, s, s) in -1..1, frames (n, 3, s, s) in -1..1, and the `truth` of the `AvatarClip`."""

    portrait: Tensor
    frames: Tensor
    parameters: dict[str, Any]
    mouth_hidden: bool = False  #: by a mask, for example; then the lips cannot be measured

    @property
    def openness(self) -> Tensor:
        return torch.as_tensor(self.parameters["openness"])


def face_mask(truth: Truth) -> Tensor:
    """Mask (1, 1, s, s) of the face without mouth and eyes in the first frame."""
    size = truth.portrait.shape[-1]
    face, mouth, eyes = (
        box_mask(torch.as_tensor(truth.parameters[name])[:1].float(), size, margin)
        for name, margin in (("face_box", 0.0), ("mouth_box", 4.0), ("eyes_box", 4.0))
    )
    return face * (1 - mouth) * (1 - eyes)


def masked_psnr(a: Tensor, b: Tensor, mask: Tensor) -> float:
    """Peak signal-to-noise ratio in dB between pictures in -1..1, where `mask` is 1."""
    mse = ((a - b).square() * mask).sum() / (mask.expand_as(a).sum())
    return float(-10 * torch.log10(mse / 4))


def flicker(frames: Tensor, mask: Tensor) -> float:
    """Mean absolute second difference in time where `mask` is 1, relative to the range of -1..1; small for smooth
    motion."""
    jerk = frames[2:] - 2 * frames[1:-1] + frames[:-2]
    return float((jerk.abs() * mask).sum() / mask.expand_as(jerk).sum() / 2)


def measure(
    frames: Tensor, truth: Truth, other_openness: Tensor, regressor: LipsRegressor, clip_frames: int
) -> dict[str, float]:
    """All metrics of a video, generated or the ground truth itself; without those of the lips where they are hidden.

    Args:
        frames: (n, 3, s, s) in -1..1.
        truth: for the same portrait and speech.
        other_openness: true openness of another video (n,), as a control.
        clip_frames: number of frames that are denoised together.

    Returns:
        lips_r, lips_offset: see `correlation_and_offset`.
        lips_r_other_audio: correlation with the control, ideally 0.
        lips_error: mean absolute error of the openness, 0..1; unlike the correlation it includes errors of amplitude.
        lips_spread: standard deviation of the openness relative to the true one.
        openness_at_rest: mean openness while the true mouth is closed, mostly in silence; 0 closed, 1 widest.
        psnr_first_clip, psnr_last_clip: PSNR in dB between the portrait and the face without mouth and eyes, in the
            first and the last clip; their difference shows drift.
        flicker: see `flicker`, on the same part of the face.
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
