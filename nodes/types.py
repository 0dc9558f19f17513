"""Types that are passed between the nodes, their conversions, and helpers for schemas and inputs."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import torch
from comfy_api.latest import io
from PIL import Image
from torch import Tensor

from ..fada_core.errors import FadaError
from ..fada_core.job import Job
from ..fada_core.pipeline import Pipeline

CATEGORY = "FADA"
ModelType = io.Custom("FADA_MODEL")
ConditionType = io.Custom("FADA_COND")
RegionType = io.Custom("FADA_REGION")  # a FaceRegion

Audio = dict[str, Any]
"""ComfyUI's AUDIO: `waveform` (1, channels, samples) float32, `sample_rate` in Hz."""


def advanced(kind: type[io.Input]) -> dict[str, bool]:
    """The argument that marks an input as advanced, if this version of ComfyUI supports it."""
    return {"advanced": True} if "advanced" in inspect.signature(kind).parameters else {}


def aliases(*words: str) -> dict[str, list[str]]:
    """The argument with further search terms of a node, if this version of ComfyUI supports it."""
    return {"search_aliases": list(words)} if "search_aliases" in inspect.signature(io.Schema).parameters else {}


def refused(**sockets: Any) -> bool | str:
    """The result of `validate_inputs` for sockets that need a connection: an error if a graph gives a value instead.

    The value of a connected socket is None at that time.
    """
    for name, value in sockets.items():
        if value is not None:
            return f"{name} is {value!r:.50}; connect the output of a node to it instead."
    return True


def connected(**sockets: Any) -> None:
    """Check that all sockets have received a value.

    Raises:
        FadaError: one has not.
    """
    for name, value in sockets.items():
        if value is None:
            raise FadaError(f"Nothing comes in at {name}; connect the output of a node that provides it.")


@dataclass
class Progress:
    """The latest sampling for a condition, so that a run that was stopped can be resumed.

    It exists as long as ComfyUI keeps the condition, and until other settings are used for it. Finished videos are kept
    as well, because ComfyUI drops the finished outputs of a batch when a later item is interrupted.
    """

    settings: tuple[Any, ...] = ()
    clips: list[Tensor] = field(default_factory=list)  #: finished clips, on the CPU; emptied when the video is finished
    latent: dict[str, Any] | None = None  #: the node's output, when the video is finished
    shown: dict[str, Any] | None = None  #: the node's `ui` then


@dataclass(frozen=True, eq=False)
class FadaCondition:
    """An encoded job, the audio for its video, and the latest sampling of it."""

    job: Job
    audio: Audio
    progress: Progress = field(default_factory=Progress)


def to_latent(pipeline: Pipeline, latents: Tensor, audio: Audio) -> dict[str, Any]:
    """A LATENT of a whole video, from latents (n, c, h, w).

    As in ComfyUI, its samples are unscaled, so that VAE Decode can decode those of Stable Diffusion's autoencoder.
    """
    vae = pipeline.config.vae
    samples = latents / vae.scaling_factor + vae.shift_factor
    return {"samples": samples, "fada": {"fps": pipeline.config.fps, "audio": audio}}


def from_latent(pipeline: Pipeline, latent: dict[str, Any]) -> Tensor:
    """The pipeline's latents, (n, c, h, w), from a LATENT.

    Raises:
        FadaError: their shape is not that of the model's latents.
    """
    config, samples = pipeline.config, latent["samples"]
    wanted = (config.vae.latent_channels, config.sides[0], config.sides[0])
    if samples.shape[1:] != wanted:
        raise FadaError(
            f"These latents have the shape {tuple(samples.shape[1:])}, but the model '{config.name}' makes {wanted}; "
            "connect the model that sampled them."
        )
    return (samples - config.vae.shift_factor) * config.vae.scaling_factor


def to_images(frames: Tensor) -> Tensor:
    """Frames (n, 3, h, w) in -1..1 as ComfyUI's IMAGE, (n, h, w, 3) float32 in 0..1 on the CPU."""
    return ((frames.movedim(1, -1).float() + 1) / 2).clamp(0, 1).cpu()


def from_images(images: Tensor) -> Tensor:
    """IMAGE (n, h, w, 3 or more channels) in 0..1 as (n, 3, h, w) in -1..1; channels after RGB are dropped."""
    return images[..., :3].movedim(-1, 1).float() * 2 - 1


def to_preview(frame: Tensor) -> tuple[str, Image.Image, int]:
    """One frame (1, 3, h, w) in -1..1 as a preview for ComfyUI's progress bar: format, picture, largest side."""
    pixels = (to_images(frame)[0] * 255).round().to(torch.uint8)
    return "JPEG", Image.fromarray(pixels.numpy()), 512
