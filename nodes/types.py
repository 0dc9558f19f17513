"""What travels between the nodes: the condition, and FADA's form of ComfyUI's LATENT."""

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
    """The argument that puts an input behind the often-used ones, where this version of ComfyUI knows it."""
    return {"advanced": True} if "advanced" in inspect.signature(kind).parameters else {}


def aliases(*words: str) -> dict[str, list[str]]:
    """The argument with other words that find a node, where this version of ComfyUI knows it."""
    return {"search_aliases": list(words)} if "search_aliases" in inspect.signature(io.Schema).parameters else {}


def refused(**sockets: Any) -> bool | str:
    """The answer of `validate_inputs` to sockets that a graph in API format has given a value: only nodes can.

    What a connection will bring is None at that time.
    """
    for name, value in sockets.items():
        if value is not None:
            return f"{name} is {value!r:.50}; connect the output of a node to it instead."
    return True


def connected(**sockets: Any) -> None:
    """Check that something has come through every socket.

    Raises:
        FadaError: nothing has.
    """
    for name, value in sockets.items():
        if value is None:
            raise FadaError(f"Nothing comes in at {name}; connect the output of a node that has something to give.")


@dataclass
class Progress:
    """What was sampled last for a condition, so that a run that was stopped can go on.

    It lives as long as ComfyUI keeps the condition, and until something else is sampled for it. A whole video stays,
    too: of several in a run ComfyUI forgets the finished ones when a later one is stopped.
    """

    settings: tuple[Any, ...] = ()
    clips: list[Tensor] = field(default_factory=list)  #: on the CPU, until the last one is there
    latent: dict[str, Any] | None = None  #: then the node's output, which ComfyUI keeps as well
    shown: dict[str, Any] | None = None  #: and what the node shows of it


@dataclass(frozen=True, eq=False)
class FadaCondition:
    """An encoded job, the sound that its video shall have, and what was sampled for it."""

    condition: Job
    audio: Audio
    progress: Progress = field(default_factory=Progress)


def to_latent(pipeline: Pipeline, latents: Tensor, audio: Audio) -> dict[str, Any]:
    """LATENT of a whole video, from latents (n, c, h, w).

    Like all of ComfyUI's, its samples are not scaled, so that Stable Diffusion's can also go to VAE Decode.
    """
    vae = pipeline.config.vae
    samples = latents / vae.scaling_factor + vae.shift_factor
    return {"samples": samples, "fada": {"fps": pipeline.config.fps, "audio": audio}}


def from_latent(pipeline: Pipeline, latent: dict[str, Any]) -> Tensor:
    """The pipeline's latents (n, c, h, w) of a LATENT, checked against the model."""
    config, samples = pipeline.config, latent["samples"]
    wanted = (config.vae.latent_channels, config.sides[0], config.sides[0])
    if samples.shape[1:] != wanted:
        raise FadaError(
            f"These latents have the shape {tuple(samples.shape[1:])}, but the model '{config.name}' makes {wanted}; "
            "connect the model that sampled them."
        )
    return (samples - config.vae.shift_factor) * config.vae.scaling_factor


def to_images(frames: Tensor) -> Tensor:
    """Frames (n, 3, h, w) in -1..1 as ComfyUI's IMAGE, (n, h, w, 3) in 0..1 float32 on the CPU."""
    return ((frames.movedim(1, -1).float() + 1) / 2).clamp(0, 1).cpu()


def from_images(images: Tensor) -> Tensor:
    """IMAGE (n, h, w, 3 or more channels) in 0..1 as (n, 3, h, w) in -1..1; what is beyond RGB is left out."""
    return images[..., :3].movedim(-1, 1).float() * 2 - 1


def to_preview(frame: Tensor) -> tuple[str, Image.Image, int]:
    """One frame (1, 3, h, w) in -1..1 in the form in which ComfyUI's progress bar takes a preview."""
    pixels = (to_images(frame)[0] * 255).round().to(torch.uint8)
    return "JPEG", Image.fromarray(pixels.numpy()), 512
