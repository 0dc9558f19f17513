"""The reference UNet, which encodes portrait and motion frames, and the skeleton that both UNets share.

Structure and parameter names are those of Stable Diffusion 1.5 (diffusers' UNet2DConditionModel), with any number of
levels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from .attention import AudioTransformer, SpatialContext, SpatialTransformer
from .inputs import ReferenceFeatures
from .motion import MotionModule
from .resnet import Downsample, ResnetBlock, TimestepEmbedding, Upsample, timestep_features


class UNetBlock(nn.Module):
    """Residual layers of one resolution: `resnets.j`, `attentions.j` and, if `conditioned`, `audio_modules.j` and
    `motion_modules.j`; then down- or upsampling.

    Args:
        name: of the block in the UNet, such as "down_blocks.0".
        level: of the resolution; 0 is the finest.
        resnets: (channels in, channels out) of each layer.
        audio_widths: inner width of each layer's audio module; empty for blocks without attention.
    """

    def __init__(
        self,
        config: ModelConfig,
        name: str,
        level: int,
        resnets: list[tuple[int, int]],
        audio_widths: list[int],
        *,
        conditioned: bool,
        **made: Any,
    ) -> None:
        super().__init__()
        self.name, self.level = name, level
        unet, width = config.unet, resnets[-1][1]
        time_dim, groups = 4 * unet.block_out_channels[0], unet.norm_groups
        self.resnets = nn.ModuleList([ResnetBlock(narrow, wide, time_dim, groups, **made) for narrow, wide in resnets])
        self.attentions = nn.ModuleList([SpatialTransformer(config, width, conditioned, **made) for _ in audio_widths])
        if conditioned:
            audio_inners = audio_widths if unet.audio_regions else []
            self.audio_modules = nn.ModuleList([AudioTransformer(unet, width, inner, **made) for inner in audio_inners])
            alone = len(resnets) if unet.motion_everywhere else 0
            motion_count = len(audio_widths) or alone
            self.motion_modules = nn.ModuleList([MotionModule(unet, width, **made) for _ in range(motion_count)])
        self.downsamplers = nn.ModuleList()
        self.upsamplers = nn.ModuleList()

    def attention_name(self, j: int) -> str:
        return f"{self.name}.attentions.{j}"


Layer = Callable[[UNetBlock, int, Tensor], Tensor]
"""Computes layer j of a block."""
Resample = Callable[[nn.Module, Tensor], Tensor]
"""Calls a block's `Downsample` or `Upsample`."""


class UNetSkeleton(nn.Module):
    """conv_in, time embedding and blocks of a UNet.

    In Hallo's weights, the inner width of an audio module is the input width of its layer (in up blocks: the width of
    the next finer level), not the width of the module's own input.

    Args:
        last_level: level of the last up block; 0 is the finest.
        conditioned: whether to add the modules that only the denoising UNet has.
    """

    def __init__(
        self,
        config: ModelConfig,
        conv_in_channels: int,
        *,
        last_level: int,
        conditioned: bool,
        operations: Any,
        **factory: Any,
    ) -> None:
        super().__init__()
        unet = config.unet
        widths, layers, levels = unet.block_out_channels, unet.layers_per_block, len(unet.block_out_channels)
        made = {"operations": operations, **factory}
        self.conv_in = operations.Conv2d(conv_in_channels, widths[0], 3, padding=1, **factory)
        self.time_embedding = TimestepEmbedding(widths[0], **made)

        def make_block(name: str, level: int, resnets: list[tuple[int, int]], audio_widths: list[int]) -> UNetBlock:
            return UNetBlock(config, name, level, resnets, audio_widths, conditioned=conditioned, **made)

        self.down_blocks: Any = nn.ModuleList()  # of `UNetBlock`s; ModuleList has no type parameter
        for level, width in enumerate(widths):
            inputs = [widths[max(level - 1, 0)]] + [width] * (layers - 1)
            audio_widths = inputs if unet.attention_levels[level] else []
            block = make_block(f"down_blocks.{level}", level, [(i, width) for i in inputs], audio_widths)
            if level < levels - 1:
                block.downsamplers.append(Downsample(width, **made))
            self.down_blocks.append(block)
        deepest = widths[-1]
        self.mid_block = make_block("mid_block", levels - 1, [(deepest, deepest)] * 2, [deepest])
        self.up_blocks: Any = nn.ModuleList()
        for level in reversed(range(last_level, levels)):
            width, next_width = widths[level], widths[max(level - 1, 0)]
            inputs = [widths[min(level + 1, levels - 1)]] + [width] * layers
            skips = [width] * layers + [next_width]
            resnets = [(i + skip, width) for i, skip in zip(inputs, skips, strict=True)]
            audio_widths = [next_width] * (layers + 1) if unet.attention_levels[level] else []
            block = make_block(f"up_blocks.{levels - 1 - level}", level, resnets, audio_widths)
            if level > last_level:
                block.upsamplers.append(Upsample(width, **made))
            self.up_blocks.append(block)

    def attention_blocks(self) -> dict[str, tuple[UNetBlock, int]]:
        """Name of each attention ("down_blocks.0.attentions.1"), in order of computation -> (block, index in it)."""
        blocks = (*self.down_blocks, self.mid_block, *self.up_blocks)
        return {block.attention_name(j): (block, j) for block in blocks for j in range(len(block.attentions))}

    def run_blocks(self, hidden: Tensor, layer: Layer, resample: Resample = lambda module, x: module(x)) -> Tensor:
        """Run down, middle and up blocks, with skip connections, on the output of conv_in."""
        skips = [hidden]
        for block in self.down_blocks:
            for j in range(len(block.resnets)):
                hidden = layer(block, j, hidden)
                skips.append(hidden)
            for downsample in block.downsamplers:
                hidden = resample(downsample, hidden)
                skips.append(hidden)
        for j in range(len(self.mid_block.resnets)):
            hidden = layer(self.mid_block, j, hidden)
        for block in self.up_blocks:
            for j in range(len(block.resnets)):
                hidden = layer(block, j, torch.cat([hidden, skips.pop()], dim=1))
            for upsample in block.upsamplers:
                hidden = resample(upsample, hidden)
        return hidden

    def time(self, timesteps: Tensor, dtype: torch.dtype) -> Tensor:
        """(n,) timesteps -> (n, 4 * block_out_channels[0])"""
        return self.time_embedding(timestep_features(timesteps, self.conv_in.out_channels).to(dtype))


class ReferenceUNet(UNetSkeleton):
    """Computes features of clean pictures for the denoising UNet: the normed input of each self-attention.

    It ends at the last self-attention. The weights after it in the same block are part of Hallo's checkpoint, but are
    never used and take no gradient.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        operations: Any = nn,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            config,
            config.unet.in_channels,
            last_level=config.unet.attention_levels.index(True),
            conditioned=False,
            operations=operations,
            device=device,
            dtype=dtype,
        )
        self.last = list(self.attention_blocks())[-1]
        attention = self.up_blocks[-1].attentions[-1]
        for unused in (attention.transformer_blocks[0], attention.proj_out):
            unused.requires_grad_(False)
        attention.transformer_blocks[0].norm1.requires_grad_(True)

    def forward(self, latents: Tensor, image_tokens: Tensor | None = None) -> ReferenceFeatures:
        """
        Args:
            latents: clean, (n, c, h, w).
            image_tokens: identity tokens, (n, T, image_token_dim); None for models without.

        Returns:
            The output of each attention's `norm1`, (n, h*w, c), by the attention's name.
        """
        time = self.time(torch.zeros(len(latents), device=latents.device), latents.dtype)
        features: ReferenceFeatures = {}

        def layer(block: UNetBlock, j: int, hidden: Tensor) -> Tensor:
            hidden = block.resnets[j](hidden, time)
            if j >= len(block.attentions):
                return hidden
            attention, name = block.attentions[j], block.attention_name(j)
            tokens, features[name] = attention.begin(hidden)
            if name == self.last:
                return hidden
            image = None if image_tokens is None else attention.fold_image(image_tokens)
            return attention.finish(hidden, tokens, features[name], SpatialContext(image))

        self.run_blocks(self.conv_in(latents.contiguous(memory_format=torch.channels_last)), layer)
        return features
