"""Attention layers, and the transformers for the portrait (with identity) and for audio.

Tokens are (n, h*w, c), which for channels_last images is a view. Keys and values are always arguments, because most of
them (of portrait, identity and audio) are constant over the denoising steps of a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ModelConfig, UNetConfig
from .kernels import KernelModule
from .resnet import zeroed

KeysValues = tuple[Tensor, Tensor]  #: (n, length, inner) each
Folded = tuple[Tensor, Tensor]  #: (n, heads * length, dim) each, see `ContextAttention`
AUDIO_REGIONS = ("full", "face", "lip")  #: of Hallo's hierarchical audio attention, in its order


def to_tokens(hidden: Tensor) -> Tensor:
    """(n, c, h, w) -> (n, h*w, c)"""
    return hidden.permute(0, 2, 3, 1).flatten(1, 2)


def to_image(tokens: Tensor, height: int, width: int) -> Tensor:
    """(n, h*w, c) -> (n, c, h, w) in channels_last order"""
    return tokens.unflatten(1, (height, width)).permute(0, 3, 1, 2)


class Attention(nn.Module):
    """Multi-head attention with diffusers' parameter names; only the output layer has a bias."""

    def __init__(
        self, dim: int, heads: int, context_dim: int | None = None, *, operations: Any = nn, **factory: Any
    ) -> None:
        super().__init__()
        self.heads = heads
        context_dim = dim if context_dim is None else context_dim
        self.to_q = operations.Linear(dim, dim, bias=False, **factory)
        self.to_k = operations.Linear(context_dim, dim, bias=False, **factory)
        self.to_v = operations.Linear(context_dim, dim, bias=False, **factory)
        self.to_out = nn.ModuleList([operations.Linear(dim, dim, **factory)])

    def keys_values(self, context: Tensor) -> KeysValues:
        """(n, length, context_dim) -> keys and values, (n, length, dim) each"""
        return self.to_k(context), self.to_v(context)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Softmax attention of projected queries (n, l, dim) -> (n, l, dim), without the output layer."""
        queries, keys, values = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (queries, keys, values))
        if queries.requires_grad and queries.dtype == torch.bfloat16 and queries.device.type == "cpu":
            # On a CPU in bfloat16, torch's fused backward pass is some 10x slower than these operations (torch 2.13).
            weights = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
            return (weights.softmax(dim=-1) @ values).transpose(1, 2).flatten(2)
        return F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)

    def forward(self, tokens: Tensor, keys_values: KeysValues) -> Tensor:
        """(n, l, dim) tokens, keys and values of any length -> (n, l, dim)"""
        return self.to_out[0](self.attend(self.to_q(tokens), *keys_values))


def folded_weights(tokens: Tensor, inward: Tensor, heads: int) -> Tensor:
    """Attention weights (n, heads, length, l) of tokens (n, l, dim) to a folded context (n, heads * length, dim).

    The tokens are the last axis, so that the softmax works on whole rows of memory: on a CPU this is several times as
    fast as a softmax over the few scores of each token.
    """
    return (inward @ tokens.transpose(1, 2)).unflatten(1, (heads, -1)).softmax(dim=2)


class ContextAttention(Attention):
    """Attention to a few tokens that are constant over many steps; all four projections are folded into them once.

        softmax(x W_q (c W_k)^T / sqrt(d)) c W_v W_o + b  =  softmax(x A^T) B

    A and B have one row per token and head. A step then takes two narrow matrix products instead of two wide ones: for
    Hallo's 4 identity tokens at 320 channels, a tenth of the arithmetic. B includes the bias, because the weights of
    each head sum to 1.
    """

    def fold(self, context: Tensor) -> Folded:
        """(n, length, context_dim) -> A and B, (n, heads * length, dim) each"""
        keys, values = self.keys_values(context)
        dim = keys.shape[-1]
        # Call the layers instead of reading their weights, which may be on another device or have adapters.
        queries = self.to_q(torch.eye(dim, device=context.device, dtype=context.dtype))
        queries, heads_keys = (x.unflatten(-1, (self.heads, -1)).transpose(-3, -2) for x in (queries, keys))
        inward = heads_keys @ queries.transpose(-1, -2) * (dim // self.heads) ** -0.5  # (n, heads, length, dim)
        own = torch.eye(self.heads, device=values.device, dtype=values.dtype).repeat_interleave(dim // self.heads, 1)
        outward = self.to_out[0](values[:, None] * own[:, None])  # (n, heads, length, dim), the bias in every head
        bias = self.to_out[0](torch.zeros_like(values[:1, :1]))
        outward = outward.flatten(1, 2) - bias * (1 - 1 / self.heads)
        return inward.flatten(1, 2), outward

    def forward(self, tokens: Tensor, folded: Folded) -> Tensor:
        """(n, l, dim) tokens and the context from `fold` -> (n, l, dim)"""
        inward, outward = folded
        return folded_weights(tokens, inward, self.heads).flatten(1, 2).transpose(1, 2) @ outward


class GEGLU(KernelModule):
    """Linear layer, the second half of whose output gates the first (Shazeer 2002.05202)."""

    def __init__(self, dim: int, inner: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.proj = operations.Linear(dim, 2 * inner, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.kernels.geglu(self.proj(x))


class FeedForward(nn.Module):
    """GEGLU and a linear layer; `net.1` is dropout in diffusers, kept for the parameter names."""

    def __init__(self, dim: int, mult: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.net = nn.Sequential(
            GEGLU(dim, dim * mult, operations=operations, **factory),
            nn.Identity(),
            operations.Linear(dim * mult, dim, **factory),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class CFGControlLayer(nn.Module):
    """Cross-attention to the mixed CFG tokens with a residual connection; its output starts at zero (see cfg.py)."""

    def __init__(self, dim: int, heads: int, token_dim: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.norm = operations.LayerNorm(dim, **factory)
        self.attn = ContextAttention(dim, heads, token_dim, operations=operations, **factory)
        zeroed(self.attn.to_out[0])

    def forward(self, tokens: Tensor, control: Folded) -> Tensor:
        """tokens (n, hw, c); control: batch rows, each shared by n / batch consecutive rows of tokens -> (n, hw, c)"""
        queries = self.norm(tokens).unflatten(0, (control[0].shape[0], -1)).flatten(1, 2)
        return tokens + self.attn(queries, control).view_as(tokens)


@dataclass(frozen=True)
class SpatialContext:
    """What a spatial transformer attends to besides its own tokens; constant over the steps of a clip."""

    image: Folded | None = None  #: identity tokens (EchoMimic: audio tokens); consecutive images share a row
    reference: KeysValues | None = None
    """Of the portrait, (referenced batch rows, frames or 1, hw, c) each; 1: the same for all frames."""
    unreferenced: int = 0  #: number of images, the first ones, that do not attend to the portrait
    control: Folded | None = None  #: the mixed CFG tokens; one row per batch row


class SpatialBlock(nn.Module):
    """Self-attention (to the portrait too), CFG control (students), cross-attention to identity tokens, feed-forward.

    Args:
        conditioned: the block belongs to the denoising UNet. Only there is there CFG control, and the cross-attention
            may be to audio tokens instead (`audio_attention_scale`).
    """

    def __init__(
        self, config: ModelConfig, dim: int, conditioned: bool, *, operations: Any = nn, **factory: Any
    ) -> None:
        super().__init__()
        unet, heads = config.unet, config.unet.num_heads
        token_dim, self.attn2_scale = unet.image_token_dim, 1.0
        if conditioned and unet.audio_attention_scale:
            token_dim, self.attn2_scale = unet.audio_token_dim, unet.audio_attention_scale
        self.norm1 = operations.LayerNorm(dim, **factory)
        self.attn1 = Attention(dim, heads, operations=operations, **factory)
        self.control = None
        if conditioned and config.control.kind == "tokens":
            self.control = CFGControlLayer(dim, heads, config.control.dim, operations=operations, **factory)
        self.attn2 = None
        if token_dim:
            self.norm2 = operations.LayerNorm(dim, **factory)
            self.attn2 = ContextAttention(dim, heads, token_dim, operations=operations, **factory)
        self.norm3 = operations.LayerNorm(dim, **factory)
        self.ff = FeedForward(dim, unet.ff_mult, operations=operations, **factory)

    def forward(self, tokens: Tensor, normed: Tensor, context: SpatialContext) -> Tensor:
        """tokens (n, hw, c) and `normed`, their `norm1` -> (n, hw, c)"""
        tokens = tokens + self._self_attention(normed, context.reference, context.unreferenced)
        if self.control is not None:
            tokens = self.control(tokens, context.control)
        if self.attn2 is not None:
            rows = context.image[0].shape[0]
            queries = self.norm2(tokens).unflatten(0, (rows, -1)).flatten(1, 2)
            tokens = tokens + self.attn2(queries, context.image).view_as(tokens)
        return tokens + self.ff(self.norm3(tokens))

    def _self_attention(self, normed: Tensor, reference: KeysValues | None, unreferenced: int) -> Tensor:
        own = self.attn1.keys_values(normed)
        if reference is None:
            return self.attn1(normed, own)
        queries = self.attn1.to_q(normed)
        both = []
        for mine, portrait in zip(own, reference, strict=True):
            mine = mine[unreferenced:].unflatten(0, (portrait.shape[0], -1))
            both.append(torch.cat([mine, portrait.expand_as(mine)], dim=2).flatten(0, 1))
        attended = self.attn1.attend(queries[unreferenced:], *both)
        if unreferenced:
            alone = self.attn1.attend(queries[:unreferenced], *(mine[:unreferenced] for mine in own))
            attended = torch.cat([alone, attended])
        return self.attn1.to_out[0](attended)


class SpatialTransformer(KernelModule):
    """Group norm, linear layer, one `SpatialBlock`, linear layer, residual.

    It runs in two halves, `begin` and `finish`, because the normed tokens between them are the reference UNet's
    features.
    """

    def __init__(
        self, config: ModelConfig, channels: int, conditioned: bool, *, operations: Any = nn, **factory: Any
    ) -> None:
        super().__init__()
        self.norm = operations.GroupNorm(config.unet.norm_groups, channels, eps=1e-6, **factory)
        self.proj_in = operations.Linear(channels, channels, **factory)
        self.transformer_blocks = nn.ModuleList(
            [SpatialBlock(config, channels, conditioned, operations=operations, **factory)]
        )
        self.proj_out = zeroed(operations.Linear(channels, channels, **factory))

    def begin(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(n, c, h, w) -> tokens (n, hw, c), before and after the block's first norm"""
        tokens = self.proj_in(to_tokens(self.kernels.group_norm(self.norm, hidden)))
        return tokens, self.transformer_blocks[0].norm1(tokens)

    def finish(self, hidden: Tensor, tokens: Tensor, normed: Tensor, context: SpatialContext) -> Tensor:
        """The second half; `tokens` and `normed` are the results of `begin(hidden)` -> (n, c, h, w)"""
        tokens = self.transformer_blocks[0](tokens, normed, context)
        return hidden + to_image(self.proj_out(tokens), *hidden.shape[-2:])

    def fold_image(self, image_tokens: Tensor) -> Folded:
        """Fold identity or audio tokens, (n, T, token dim); `audio_attention_scale` is included"""
        block = self.transformer_blocks[0]
        inward, outward = block.attn2.fold(image_tokens)
        return inward, outward * block.attn2_scale

    def reference_keys_values(self, rows: Tensor) -> KeysValues:
        """The reference UNet's features of the portrait, (n, hw, c) -> keys and values of the same shape"""
        return self.transformer_blocks[0].attn1.keys_values(rows)

    def fold_control(self, control_tokens: Tensor) -> Folded:
        """Fold mixed CFG tokens, (batch, T, control dim)"""
        return self.transformer_blocks[0].control.attn.fold(control_tokens)


@dataclass(frozen=True)
class FoldedAudio:
    """Audio tokens folded into the projections of a layer's audio attentions, see `AudioBlock.fold`."""

    inward: Tensor  #: A of `ContextAttention`, regions concatenated, (rows, regions * heads * T, dim)
    outward: Tensor  #: B likewise, of the same shape
    silence: Tensor  #: each region's output for rows without audio, (regions, dim)
    bias: Tensor  #: the sum of the regions' biases, (dim,)


class AudioBlock(nn.Module):
    """Optional self-attention, one masked audio attention per region (in parallel), feed-forward."""

    def __init__(self, config: UNetConfig, dim: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.heads = config.num_heads
        self.attn1 = None
        if config.audio_self_attention:
            self.norm1 = operations.LayerNorm(dim, **factory)
            self.attn1 = Attention(dim, self.heads, operations=operations, **factory)
        self.norm2 = operations.LayerNorm(dim, **factory)
        self.regions = AUDIO_REGIONS[: config.audio_regions]
        for index, region in enumerate(self.regions):
            attention = ContextAttention(dim, self.heads, config.audio_token_dim, operations=operations, **factory)
            self.add_module(f"attn2_{index}", attention)
            self.add_module(f"zero_conv_{region}", zeroed(operations.Linear(dim, dim, **factory)))
        self.norm3 = operations.LayerNorm(dim, **factory)
        self.ff = FeedForward(dim, config.ff_mult, operations=operations, **factory)

    def fold(self, audio_tokens: Tensor, weights: Sequence[float]) -> FoldedAudio:
        """Fold audio tokens, (rows, T, audio_token_dim); `zero_conv_*` and the strength of each region are included."""
        inward, outward, silence, biases = [], [], [], []
        for index, (region, weight) in enumerate(zip(self.regions, weights, strict=False)):
            attention, zero_conv = self.get_submodule(f"attn2_{index}"), self.get_submodule(f"zero_conv_{region}")
            into, out = attention.fold(audio_tokens)
            nothing = out.new_zeros(1, out.shape[-1])
            bias = zero_conv(nothing)
            inward.append(into)
            outward.append(weight * (zero_conv(out) - bias))
            # Tokens of zeros have values of zero, whatever the attention weights are.
            silence.append(weight * (zero_conv(attention.to_out[0](nothing)) - bias))
            biases.append(weight * bias)
        return FoldedAudio(torch.cat(inward, 1), torch.cat(outward, 1), torch.cat(silence), torch.cat(biases).sum(0))

    def forward(self, tokens: Tensor, audio: FoldedAudio, masks: Tensor | None) -> Tensor:
        """
        Args:
            tokens: (n, h*w, c).
            audio: of the last rows of `tokens`; if it has fewer than n rows, the first rows are silent.
            masks: (1 or n, h*w, regions) in 0..1; None: each region is the whole picture.

        Returns:
            (n, h*w, c)
        """
        if self.attn1 is not None:
            normed = self.norm1(tokens)
            tokens = tokens + self.attn1(normed, self.attn1.keys_values(normed))
        tokens = tokens + self._attend_audio(self.norm2(tokens), audio, masks)
        return tokens + self.ff(self.norm3(tokens))

    def _attend_audio(self, normed: Tensor, audio: FoldedAudio, masks: Tensor | None) -> Tensor:
        silent = len(normed) - len(audio.inward)
        if masks is not None:
            masks = masks.expand(len(normed), -1, -1)
        attended = []
        if silent:
            constant = audio.silence.sum(0) if masks is None else masks[:silent] @ audio.silence
            attended.append(constant.expand_as(normed[:silent]))
        if silent < len(normed):
            weights = folded_weights(normed[silent:], audio.inward, len(self.regions) * self.heads)
            if masks is not None:
                heads_masks = masks[silent:].transpose(1, 2).repeat_interleave(self.heads, 1)
                weights = weights * heads_masks[:, :, None]
            attended.append(weights.flatten(1, 2).transpose(1, 2) @ audio.outward)
        return (attended[0] if len(attended) == 1 else torch.cat(attended)) + audio.bias


class AudioTransformer(KernelModule):
    """Group norm, linear layer to `inner` channels, one `AudioBlock`, linear layer back, residual."""

    def __init__(self, config: UNetConfig, channels: int, inner: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.norm = operations.GroupNorm(config.norm_groups, channels, eps=1e-6, **factory)
        self.proj_in = operations.Linear(channels, inner, **factory)
        self.transformer_blocks = nn.ModuleList([AudioBlock(config, inner, operations=operations, **factory)])
        self.proj_out = operations.Linear(inner, channels, **factory)

    def fold(self, audio_tokens: Tensor, weights: Sequence[float]) -> FoldedAudio:
        """Fold audio tokens, (rows, T, audio_token_dim), with the strength of each region"""
        return self.transformer_blocks[0].fold(audio_tokens, weights)

    def forward(self, hidden: Tensor, audio: FoldedAudio, masks: Tensor | None) -> Tensor:
        """hidden (n, c, h, w) -> (n, c, h, w); audio and masks as in `AudioBlock.forward`"""
        tokens = self.proj_in(to_tokens(self.kernels.group_norm(self.norm, hidden)))
        tokens = self.transformer_blocks[0](tokens, audio, masks)
        return hidden + to_image(self.proj_out(tokens), *hidden.shape[-2:])
