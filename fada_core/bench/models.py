"""Models of a preset's size with random weights, optionally reduced for small machines, and a job for them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from accelerate import init_empty_weights
from torch import Tensor

from ..checkpoint import CheckpointInfo
from ..config import ControlConfig, ModelConfig, preset
from ..errors import FadaError
from ..face.region import FaceRegion, find_face
from ..job import Job
from ..models.audio import SAMPLE_RATE
from ..models.networks import Networks
from ..pipeline import Pipeline
from ..settings import Role, SamplingSettings

STEPS = {"teacher": SamplingSettings().steps, "student": 6}
"""Denoising steps per clip, as in the paper: 25 steps x 3 branches against 6 x 3 or 6 x 1."""


def bench_config(
    name: str, role: Role, width: int = 1, size: int | None = None, vae: Literal["kl", "taesd", "tiny"] | None = None
) -> ModelConfig:
    """A preset as teacher or student.

    Args:
        width: divisor of the UNets' channels, heads (at least one remains) and norm groups.
        size: side of the picture in pixels; None: the preset's.
        vae: kind of the autoencoder; None: the preset's.

    Raises:
        FadaError: the channels are not divisible by `width`, or the size is not valid.
    """
    config = preset(name)
    unet = config.unet
    channels = [wide // width for wide in unet.block_out_channels]
    groups, heads = unet.norm_groups // width, max(1, unet.num_heads // width)
    whole = groups * width == unet.norm_groups and not any(wide % width for wide in unet.block_out_channels)
    if not whole or any(wide % heads for wide in channels):
        raise FadaError(f"The channels of '{name}' are not divisible by --width {width}; use a smaller power of two.")
    return replace(
        config,
        size=config.size if size is None else size,
        unet=replace(unet, block_out_channels=tuple(channels), norm_groups=groups, num_heads=heads),
        control=ControlConfig(kind="tokens") if role == "student" else config.control,
        vae=replace(config.vae, kind=vae or config.vae.kind),
    )


def random_pipeline(
    config: ModelConfig, role: Role, device: torch.device, dtype: torch.dtype, like: Networks | None = None
) -> Pipeline:
    """A pipeline with random weights, the same for every device and dtype.

    All layers contribute, so that the results of variants can be compared; in a new model, residual branches end in
    zeros.

    Args:
        like: networks with at least the same layers, whose weights are shared.
    """
    info = CheckpointInfo(role, steps=STEPS[role])
    if like is not None:
        with init_empty_weights(include_buffers=False):
            networks = Networks(config)
        weights = like.state_dict()
        networks.load_state_dict({name: weights[name] for name in networks.state_dict()}, assign=True)
        return Pipeline(networks.to(device).requires_grad_(False), info)
    networks = Networks(config, device=device, dtype=dtype).to(device, memory_format=torch.channels_last)
    networks.requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in networks.named_parameters():
        if parameter.ndim > 1:
            # Variance slightly below 1 / fan-in, so that activations keep their size through residual blocks.
            draw = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(draw * (0.7 * parameter[0].numel() ** -0.5))
        else:
            parameter.fill_(float(name.endswith("weight")))
    return Pipeline(networks, info)


@dataclass(frozen=True, eq=False)
class NoiseJob:
    """A portrait and speech, both noise, because the content does not affect the time."""

    image: Tensor  #: (1, 3, size, size) in -1..1
    speech: Tensor  #: (samples,), a whole number of clips
    region: FaceRegion

    def encode(self, pipe: Pipeline) -> Job:
        return pipe.encode(self.image, self.speech, region=self.region)


def make_job(config: ModelConfig, clips: int) -> NoiseJob:
    """A job of `clips` whole clips for a model; the face takes half the width and height of the portrait."""
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(1, 3, config.size, config.size, generator=generator) * 2 - 1
    samples = int(clips * config.clip_frames / config.fps * SAMPLE_RATE)
    speech = 0.1 * torch.randn(samples, generator=generator)
    low, high = config.size // 4, 3 * config.size // 4
    return NoiseJob(image, speech, find_face(image, box=(low, low, high, high)))
