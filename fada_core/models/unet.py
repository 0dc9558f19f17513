"""The denoising UNet: Stable Diffusion 1.5's with reference attention, audio attention and motion modules.

It has the structure of Hallo's (arXiv 2406.08801), whose weights it loads. `prepare` computes, once per clip, what the
denoising steps share; `forward` is one step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..config import ModelConfig
from ..errors import FadaError
from .attention import FoldedAudio, SpatialContext
from .cfg import CFGTokens, ScaleEmbedding
from .kernels import KernelModule
from .reference import UNetBlock, UNetSkeleton
from .resnet import zeroed


@dataclass(frozen=True)
class LayerConditioning:
    """Inputs of one layer's attention, audio module and motion module that are constant over the steps of a clip."""

    spatial: SpatialContext
    audio: FoldedAudio | None  #: (batch - silent_rows) * frames rows
    motion: Tensor | None  #: tokens of the motion frames for the motion module, (batch, hw, motion_frames, c)


@dataclass(frozen=True)
class Conditioning:
    """All inputs that are constant over the steps of a clip, from `DenoisingUNet.prepare`."""

    batch: int
    frames: int
    unreferenced_rows: int  #: number of batch rows, the first ones, that do not see the portrait
    layers: dict[str, LayerConditioning]  #: by the name of the layer's attention
    time_shift: Tensor | None  #: added to the time embedding, from audio or scales, (batch*frames, time_dim)
    face: Tensor | None  #: added after conv_in, (batch, c, h, w)
    reference_latents: Tensor | None  #: the portrait, concatenated to the input of conv_in, (batch, c, h, w)
    masks: Sequence[Tensor] | None  #: masks[level]: (1 or batch*frames, hw, regions)


class DenoisingUNet(UNetSkeleton, KernelModule):
    """Predicts noise or velocity, depending on its training, for all frames of clips.

    A layer consists of a residual block, spatial attention, an audio module and a motion module. At levels without
    attention there are only residual blocks and, with `motion_everywhere`, motion modules. In EchoMimic there are no
    audio modules; the spatial attention attends to audio tokens instead of identity tokens. A single frame without
    motion frames skips the motion modules, as AnimateDiff does with pictures.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        operations: Any = nn,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        unet = config.unet
        factory = {"device": device, "dtype": dtype}
        width = unet.block_out_channels[0]
        super().__init__(
            config,
            unet.in_channels * (2 if unet.concat_reference else 1),
            last_level=0,
            conditioned=True,
            operations=operations,
            **factory,
        )
        self.concat_reference = unet.concat_reference
        self.gradient_checkpointing = False  #: recompute activations in the backward pass, to save memory
        self.audio_in_attention = unet.audio_attention_scale > 0
        self.audio_time_embedding = None
        if unet.audio_time_embedding:
            audio_dim = config.condition.audio_tokens * unet.audio_token_dim
            self.audio_time_embedding = zeroed(operations.Linear(audio_dim, 4 * width, bias=False, **factory))
        self.cfg_tokens = self.scale_embedding = None
        if config.control.kind == "tokens":
            self.cfg_tokens = CFGTokens(config, operations=operations, **factory)
        elif config.control.kind == "embedding":
            self.scale_embedding = ScaleEmbedding(config, operations=operations, **factory)
        self.conv_norm_out = operations.GroupNorm(unet.norm_groups, width, eps=1e-5, **factory)
        self.gated_output = unet.gated_output
        outputs = unet.in_channels + int(unet.gated_output)
        self.conv_out = zeroed(operations.Conv2d(width, outputs, 3, padding=1, **factory))

    def prepare(
        self,
        *,
        audio_tokens: Tensor,
        reference: dict[str, Tensor] | None = None,
        image_tokens: Tensor | None = None,
        face_latents: Tensor | None = None,
        reference_latents: Tensor | None = None,
        scales: Tensor | None = None,
        masks: Sequence[Sequence[Tensor]] | None = None,
        region_weights: tuple[float, ...] = (1.0, 1.0, 1.0),
        unreferenced_rows: int = 0,
        silent_rows: int = 0,
        hallo_compat: bool = False,
    ) -> Conditioning:
        """Project the inputs of a clip for each layer that uses them; differentiable.

        Args:
            audio_tokens: (batch, frames, T, audio_token_dim); zeros for rows without audio.
            reference: the reference UNet's features, each (batch * (1 + motion_frames), hw, c): the portrait of a row,
                then its motion frames, which unreferenced rows use too. None: no motion frames, all rows unreferenced.
            image_tokens: identity tokens, (batch, T, image_token_dim), for presets that have them.
            face_latents: the face locator's features, (batch, c, h, w); zeros for unreferenced rows.
            reference_latents: latents of the portrait, (batch, c, h, w), zeros for unreferenced rows, for presets with
                `concat_reference`.
            scales: guidance scales, ref_cfg and audio_cfg of each row, (batch, 2), for students.
            masks: masks[level][region], each (1 or batch * frames, hw, 1) in 0..1, of the audio attention's regions
                (full, face, lip). None: each region is the whole picture.
            region_weights: strength of each region's audio attention.
            unreferenced_rows: number of batch rows, the first ones, that do not attend to the portrait.
            silent_rows: number of batch rows, the first ones, whose audio tokens are zeros; audio modules skip them.
            hallo_compat: assign portraits by frame number modulo batch, as Hallo's published code does: with guidance,
                even frames of the conditional row see the unconditional row's portrait.

        Raises:
            FadaError: an input that the preset needs is missing, or its rows do not fit the batch.
        """
        batch, frames = audio_tokens.shape[:2]
        if reference is None:
            unreferenced_rows = batch
        elif any(len(rows) % batch for rows in reference.values()):
            raise FadaError(f"The reference features do not divide into {batch} rows; pass equally many for each row.")
        if (self.cfg_tokens is not None or self.scale_embedding is not None) and scales is None:
            raise FadaError("This student needs the guidance scales of each row; pass scales, (batch, 2).")
        if self.concat_reference and reference_latents is None:
            raise FadaError("This model reads the portrait's latents; pass reference_latents, or zeros.")

        # The published code repeats features of shape (batch, ...) along frames, so that row r gets portrait r % batch.
        portrait_rows = torch.arange(unreferenced_rows, batch)[:, None]  # one for all frames of a batch row
        if hallo_compat:
            portrait_rows = torch.arange(unreferenced_rows * frames, batch * frames).unflatten(0, (-1, frames)) % batch

        audio_rows = audio_tokens.flatten(0, 1)
        audible = audio_tokens[silent_rows:].flatten(0, 1)
        spatial_tokens = audio_rows if self.audio_in_attention else image_tokens
        control_tokens = None if self.cfg_tokens is None else self.cfg_tokens(scales)
        layers = {}
        for name, (block, j) in self.attention_blocks().items():
            attention = block.attentions[j]
            portrait = motion = None
            if reference is not None:
                rows = reference[name].unflatten(0, (batch, -1))
                if unreferenced_rows < batch:
                    portrait = attention.reference_keys_values(rows[portrait_rows, 0])
                if rows.shape[1] > 1:
                    motion = block.motion_modules[j].prepare(rows[:, 1:].flatten(0, 1), rows.shape[1] - 1)
            layers[name] = LayerConditioning(
                spatial=SpatialContext(
                    image=None if spatial_tokens is None else attention.fold_image(spatial_tokens),
                    reference=portrait,
                    unreferenced=unreferenced_rows * frames,
                    control=None if control_tokens is None else attention.fold_control(control_tokens),
                ),
                audio=block.audio_modules[j].fold(audible, region_weights) if block.audio_modules else None,
                motion=motion,
            )
        time_shift = None
        if self.audio_time_embedding is not None:
            time_shift = self.audio_time_embedding(audio_rows.flatten(1))
        if self.scale_embedding is not None:
            shift = self.scale_embedding(scales).repeat_interleave(frames, dim=0)
            time_shift = shift if time_shift is None else time_shift + shift
        return Conditioning(
            batch=batch,
            frames=frames,
            unreferenced_rows=unreferenced_rows,
            layers=layers,
            time_shift=time_shift,
            face=face_latents,
            reference_latents=reference_latents,
            masks=None if masks is None else [torch.cat([*level], -1).to(audio_tokens) for level in masks],
        )

    def forward(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """One step: latents (batch*frames, c, h, w), timesteps (batch,) 0..999 -> prediction, shaped like latents.

        Raises:
            ValueError: the number of rows is not that of the conditioning.
        """
        batch, frames = conditioning.batch, conditioning.frames
        if len(latents) != batch * frames or len(timesteps) != batch:
            given = f"{len(latents)} latents and {len(timesteps)} timesteps"
            raise ValueError(f"{given} do not fit conditions for a batch of {batch} clips of {frames} frames")
        if conditioning.reference_latents is not None:
            portrait = conditioning.reference_latents[:, None].expand(-1, frames, -1, -1, -1).flatten(0, 1)
            latents = torch.cat([latents, portrait], dim=1)
        hidden = self.conv_in(latents.contiguous(memory_format=torch.channels_last))
        if conditioning.face is not None:
            hidden = hidden + conditioning.face.repeat_interleave(frames, dim=0)
        time = self.time(timesteps, latents.dtype).repeat_interleave(frames, dim=0)
        if conditioning.time_shift is not None:
            time = time + conditioning.time_shift

        layer = self._layer
        if self.gradient_checkpointing and torch.is_grad_enabled():
            layer = partial(checkpoint, self._layer, use_reentrant=False)
        hidden = self.run_blocks(hidden, lambda block, j, x: layer(block, j, x, time, conditioning))
        output = self.conv_out(self.kernels.group_norm(self.conv_norm_out, hidden, silu=True))
        return output[:, :-1] * output[:, -1:].sigmoid() if self.gated_output else output

    def _layer(self, block: UNetBlock, j: int, hidden: Tensor, time: Tensor, conditioning: Conditioning) -> Tensor:
        """Residual block and, if the layer has them, attention, audio module and motion module."""
        hidden = block.resnets[j](hidden, time)
        layer = None
        if j < len(block.attentions):
            layer, attention = conditioning.layers[block.attention_name(j)], block.attentions[j]
            hidden = attention.finish(hidden, *attention.begin(hidden), layer.spatial)
            if block.audio_modules:
                masks = None if conditioning.masks is None else conditioning.masks[block.level]
                hidden = block.audio_modules[j](hidden, layer.audio, masks)
        motion = None if layer is None else layer.motion
        if j < len(block.motion_modules) and (conditioning.frames > 1 or motion is not None):  # else there is no time
            hidden = block.motion_modules[j](hidden, conditioning.frames, motion)
        return hidden
