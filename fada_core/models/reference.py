"""The reference UNet, which reads portrait and motion frames, and the skeleton it shares with the denoising UNet.

Structure and parameter names are Stable Diffusion 1.5's (diffusers' UNet2DConditionModel), at any number of levels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from .attention import AudioTransformer, SpatialTransformer
from .motion import MotionModule
from .resnet import Downsample, ResnetBlock, TimestepEmbedding, Upsample, timestep_features


class UNetBlock(nn.Module):
    """One level: `resnets.j`, `attentions.j` and, if `conditioned`, `audio_modules.j` and `motion_modules.j`.

    `resnets` lists (channels in, channels out); `audio_widths` the inner width of each layer's audio module; it has an
    entry for each layer with attention, so a level without attention has none.
    """

    def __init__(
        self,
        config: ModelConfig,
        resnets: list[tuple[int, int]],
        audio_widths: list[int],
        *,
        conditioned: bool,
        operations: Any,
        **factory: Any,
    ) -> None:
        super().__init__()
        unet = config.unet
        factory["operations"] = operations
        time_dim = 4 * unet.block_out_channels[0]
        width, heads, groups = resnets[-1][1], unet.num_heads, unet.norm_groups
        control_dim = config.control.dim if conditioned and config.control.kind == "tokens" else 0
        token_dim, scale = unet.image_token_dim, 1.0
        if conditioned and unet.audio_attention_scale:
            token_dim, scale = unet.audio_token_dim, unet.audio_attention_scale
        self.resnets = nn.ModuleList(
            [ResnetBlock(narrow, wide, time_dim, groups, **factory) for narrow, wide in resnets]
        )
        self.attentions = nn.ModuleList(
            [
                SpatialTransformer(width, heads, groups, token_dim, unet.ff_mult, control_dim, scale, **factory)
                for _ in audio_widths
            ]
        )
        if conditioned:
            self.audio_modules = nn.ModuleList(
                [
                    AudioTransformer(
                        width,
                        inner,
                        heads,
                        groups,
                        unet.audio_token_dim,
                        unet.audio_regions,
                        unet.audio_self_attention,
                        unet.ff_mult,
                        **factory,
                    )
                    for inner in audio_widths
                    if unet.audio_regions
                ]
            )
            alone = len(resnets) if unet.motion_everywhere else 0
            self.motion_modules = nn.ModuleList(
                [
                    MotionModule(width, heads, groups, unet.motion_max_frames, unet.ff_mult, **factory)
                    for _ in range(len(audio_widths) or alone)
                ]
            )
        self.downsamplers = nn.ModuleList()
        self.upsamplers = nn.ModuleList()


class UNetSkeleton(nn.Module):
    """conv_in, time embedding and blocks of a UNet; `conditioned` adds what only the denoising UNet has.

    The way up ends at `last_level` (0 is the finest).

    The inner width of audio modules follows the block's input width in Hallo's weights (for the way up: the width of
    the next level), not the width of the features they see.
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
        factory["operations"] = operations
        self.conv_in = operations.Conv2d(
            conv_in_channels, widths[0], 3, padding=1, device=factory["device"], dtype=factory["dtype"]
        )
        self.time_embedding = TimestepEmbedding(widths[0], **factory)
        self.down_blocks = nn.ModuleList()
        for level, width in enumerate(widths):
            inputs = [widths[max(level - 1, 0)]] + [width] * (layers - 1)
            audio_widths = inputs if unet.attention_levels[level] else []
            block = UNetBlock(config, [(i, width) for i in inputs], audio_widths, conditioned=conditioned, **factory)
            if level < levels - 1:
                block.downsamplers.append(Downsample(width, **factory))
            self.down_blocks.append(block)
        deepest = widths[-1]
        self.mid_block = UNetBlock(config, [(deepest, deepest)] * 2, [deepest], conditioned=conditioned, **factory)
        self.up_blocks = nn.ModuleList()
        for level in reversed(range(last_level, levels)):
            width, next_width = widths[level], widths[max(level - 1, 0)]
            inputs = [widths[min(level + 1, levels - 1)]] + [width] * layers
            skips = [width] * layers + [next_width]
            resnets = [(i + skip, width) for i, skip in zip(inputs, skips, strict=True)]
            audio_widths = [next_width] * (layers + 1) if unet.attention_levels[level] else []
            block = UNetBlock(config, resnets, audio_widths, conditioned=conditioned, **factory)
            if level > last_level:
                block.upsamplers.append(Upsample(width, **factory))
            self.up_blocks.append(block)

    def attention_blocks(self) -> dict[str, tuple[UNetBlock, int]]:
        """'down_blocks.0.attentions.1' and so on -> the attention's block and its place there, in the order of data."""
        named = [(f"down_blocks.{i}", block) for i, block in enumerate(self.down_blocks)]
        named += [("mid_block", self.mid_block)]
        named += [(f"up_blocks.{i}", block) for i, block in enumerate(self.up_blocks)]
        return {f"{name}.attentions.{j}": (block, j) for name, block in named for j in range(len(block.attentions))}

    def time(self, timesteps: Tensor, dtype: torch.dtype) -> Tensor:
        """(n,) timesteps -> (n, 4 * block_out_channels[0])"""
        return self.time_embedding(timestep_features(timesteps, self.conv_in.out_channels).to(dtype))


class ReferenceUNet(UNetSkeleton):
    """Features of clean pictures for the denoising UNet: the input of every self-attention.

    It ends at the last of these. What follows it in the same block is never run and takes no gradient; Hallo's
    checkpoint has these weights, too.
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

    def forward(self, latents: Tensor, image_tokens: Tensor | None = None) -> dict[str, Tensor]:
        """
        latents (n, c, h, w), clean; image_tokens (n, T, d), None where the preset has none -> norm1's output
        (n, h*w, c) of every attention, by the attention's name. Stops after the last one.
        """
        hidden = self.conv_in(latents.contiguous(memory_format=torch.channels_last))
        time = self.time(torch.zeros(len(latents), device=latents.device), latents.dtype)
        bank: dict[str, Tensor] = {}
        skips = [hidden]
        for i, block in enumerate(self.down_blocks):
            for j, resnet in enumerate(block.resnets):
                hidden = resnet(hidden, time)
                if block.attentions:
                    name = f"down_blocks.{i}.attentions.{j}"
                    hidden = self._attend(block.attentions[j], name, hidden, image_tokens, bank)
                skips.append(hidden)
            for downsample in block.downsamplers:
                hidden = downsample(hidden)
                skips.append(hidden)

        hidden = self.mid_block.resnets[0](hidden, time)
        hidden = self._attend(self.mid_block.attentions[0], "mid_block.attentions.0", hidden, image_tokens, bank)
        hidden = self.mid_block.resnets[1](hidden, time)

        for i, block in enumerate(self.up_blocks):
            for j, resnet in enumerate(block.resnets):
                hidden = resnet(torch.cat([hidden, skips.pop()], dim=1), time)
                if block.attentions:
                    name = f"up_blocks.{i}.attentions.{j}"
                    hidden = self._attend(block.attentions[j], name, hidden, image_tokens, bank)
            for upsample in block.upsamplers:
                hidden = upsample(hidden)
        return bank

    def _attend(
        self,
        attention: SpatialTransformer,
        name: str,
        hidden: Tensor,
        image_tokens: Tensor | None,
        bank: dict[str, Tensor],
    ) -> Tensor:
        tokens, bank[name] = attention.enter(hidden)
        if name == self.last:
            return hidden
        image = None if image_tokens is None else attention.fold_image(image_tokens)
        return attention.leave(hidden, tokens, bank[name], image)
