"""A loaded model whose networks are managed by ComfyUI: it keeps them in memory, moves and partly offloads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from torch import nn

from ..fada_core.pipeline import DECODE_BATCH, Pipeline
from .stop import Aside, make_stoppable

T = TypeVar("T")

_FEATURE_MAPS = 40
"""Number of feature maps of the UNet's first level that exist at the same time, for the estimate of a step's memory: a
quarter of them for skip connections, the rest for the clip's conditioning, the feed-forward layer, and inputs and
outputs of attention. Counted: 31 for Hallo and 38 for EchoMimic with three branches, 37 for both with one."""


class FADANetworks(nn.ModuleDict):
    """A unit that ComfyUI moves between devices. ComfyUI sets attributes (`device`, ...) on it that the networks must
    not get. Its subclasses differ in their names, which ComfyUI logs."""


class FADAUNets(FADANetworks):
    """The denoising UNet, and the networks that compute its conditioning."""


class FADAVAE(FADANetworks):
    """The autoencoder."""


class FADAAudioEncoder(FADANetworks):
    """The audio encoder."""


class FadaModel:
    """A pipeline whose networks are three models for ComfyUI, each loaded when it is used.

    Networks with ComfyUI's casting layers may be partly offloaded; an offloaded layer copies its weights to the device
    for each call. Networks of diffusers and transformers cannot do that, and are loaded in full.
    """

    def __init__(self, pipeline: Pipeline, load_device: torch.device, offload_device: torch.device) -> None:
        self._pipeline = pipeline
        make_stoppable(pipeline.networks)
        self._aside = Aside()
        parts = dict(pipeline.networks.named_children())
        groups = FADAVAE({"vae": parts.pop("vae")}), FADAAudioEncoder({"audio_encoder": parts.pop("audio_encoder")})
        self._vae, self._audio_encoder, self._unets = (
            ModelPatcher(group, load_device, offload_device) for group in (*groups, FADAUNets(parts))
        )

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline; its networks may be on any device."""
        return self._pipeline

    def stoppable(self, function: Callable[[], T]) -> T:
        """Call the function, which uses the pipeline. If it may compile, an interrupt ends the call at once."""
        return self._aside(function) if self._pipeline.compute == "compile" else function()

    def for_encoding(self) -> Pipeline:
        """The pipeline, with the networks for encoding loaded. Like the next two, call this before each use."""
        return self._ready([self._unets, self._vae, self._audio_encoder], max(self._step(1), self._pictures(1)))

    def for_sampling(self, branches: int) -> Pipeline:
        """The pipeline, with the networks for sampling and previews loaded; both may need the autoencoder.

        Args:
            branches: number of branches that are computed in one batch, 1 to 3.
        """
        return self._ready([self._unets, self._vae], self._step(branches) + self._pictures(1))

    def for_decoding(self) -> Pipeline:
        """The pipeline, with the autoencoder loaded."""
        return self._ready([self._vae], self._pictures(DECODE_BATCH))

    def _step(self, branches: int) -> int:
        """Memory for the activations of one denoising step, in bytes."""
        config, dtype = self._pipeline.config, self._pipeline.networks.dtype
        cells = config.sides[0] ** 2
        rows = branches * (config.clip_frames + config.motion_frames)
        return _FEATURE_MAPS * rows * cells * config.unet.block_out_channels[0] * dtype.itemsize

    def _pictures(self, count: int) -> int:
        """Memory for the activations of the autoencoder, in bytes."""
        networks = self._pipeline.networks
        return count * networks.vae.picture_bytes(networks.config.size, networks.dtype)

    def _ready(self, patchers: list[ModelPatcher], memory: int) -> Pipeline:
        self._aside.settle()
        used = [patcher for patcher in patchers if any(True for _ in patcher.model.parameters())]
        partly = [patcher for patcher in used if _castable(patcher.model)]
        whole = [patcher for patcher in used if patcher not in partly]
        # Load `whole` last: to make room for it ComfyUI can offload layers of `partly`, but not the reverse.
        if partly:
            room = sum(weight.nbytes for patcher in whole for weight in patcher.model.parameters())
            comfy.model_management.load_models_gpu(partly, memory_required=memory + room)
        if whole:
            comfy.model_management.load_models_gpu(whole, memory_required=memory, force_full_load=True)
        return self._pipeline


def _castable(networks: nn.Module) -> bool:
    """Whether all layers with weights are casting layers, which ComfyUI can leave on another device."""
    layers = (layer for layer in networks.modules() if any(True for _ in layer.parameters(recurse=False)))
    return all(hasattr(layer, "comfy_cast_weights") for layer in layers)
