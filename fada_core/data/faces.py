"""Face inputs of the networks, made from boxes that do not depend on the size of the picture."""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import ModelConfig
from ..face.masks import Box, attention_masks, face_picture
from ..models.inputs import Masks


def clip_box(boxes: Tensor | None, size: int) -> Tensor | None:
    """The box around the boxes of all frames: (n, 4) in pixels -> (4,) x0 y0 x1 y1 relative to the picture's side.

    As in Hallo's training data, it is the same for the whole clip, so that it does not show how the face moves. None if
    the face is outside the picture in all frames.
    """
    if boxes is None:
        return None
    shares = torch.cat([boxes[:, :2].amin(0), boxes[:, 2:].amax(0)]).float() / size
    x0, y0, x1, y1 = shares.clamp(0, 1).tolist()
    return torch.tensor([x0, y0, x1, y1]) if x0 < x1 and y0 < y1 else None


def face_inputs(config: ModelConfig, face: Tensor | None, lips: Tensor | None) -> tuple[Tensor | None, Masks | None]:
    """The face locator's picture, (1, 1, size, size) in 0..1, and the masks of the audio regions, each (1, h*w, 1).

    They are None for models that do not take them.

    Args:
        face, lips: their boxes, (4,) relative to the picture's side; None (unknown) stands for the whole picture.
    """
    size, face_box, masks = config.size, None, None
    if config.condition.face_locator:
        face_box = torch.ones(1, 1, size, size)
        if face is not None:
            face_box = face_picture(_in_pixels(face, size), size, size, size)
    if config.unet.audio_regions > 1:
        sides = config.sides
        if face is None or lips is None:
            masks = [[torch.ones(1, side * side, 1)] * config.unet.audio_regions for side in sides]
        else:
            known = attention_masks(_in_pixels(face, size), _in_pixels(lips, size), size, size, sides)
            masks = [regions[: config.unet.audio_regions] for regions in known]
    return face_box, masks


def _in_pixels(box: Tensor, size: int) -> Box:
    return Box(*(box * size).tolist())
