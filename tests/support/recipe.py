"""Random weights by a fixed recipe, so that parity fixtures need to store only inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def draw_weights(shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, Tensor]:
    """Weights of one network, from one generator, in the order of their sorted names.

    Tensors of two or more dimensions are normal with variance 1 / fan in, norm weights 1 + 0.1 n, the others 0.05 n.
    The motion modules' sine table (`pos_encoder.pe`) is no weight and is left out.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name in sorted(shapes):
        if name.endswith("pos_encoder.pe"):
            continue
        draw = torch.randn(tuple(shapes[name]), generator=generator)
        if draw.ndim >= 2:
            weights[name] = draw / draw[0].numel() ** 0.5
        elif name.endswith("weight"):
            weights[name] = 1 + 0.1 * draw
        else:
            weights[name] = 0.05 * draw
    return weights


def face_channels(shapes: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
    """`ConditionConfig.face_channels` of a fixture's face locator."""
    wide, image = shapes["face_locator.conv_in.weight"][:2]
    channels = [image, wide]
    while (name := f"face_locator.blocks.{2 * len(channels) - 3}.weight") in shapes:
        channels.append(shapes[name][0])
    return tuple(channels)
