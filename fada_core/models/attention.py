"""Attention layers and the two spatial transformers: one over portrait and identity, one over audio.

Tokens are (n, h*w, c); with channels_last images the step between the two is a view. Keys and values are arguments
everywhere, because most of them (portrait, identity, audio) stay the same over all denoising steps of a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .kernels import KernelModule
from .resnet import zeroed

KeysValues = tuple[Tensor, Tensor]  #: (n, length, inner) each
Folded = tuple[Tensor, Tensor]  #: (n, heads * length, dim) each, see `ContextAttention`
AUDIO_REGIONS = ("full", "face", "lip")  #: Hallo's hierarchical audio attention, in its order


def to_tokens(hidden: Tensor) -> Tensor:
    """(n, c, h, w) -> (n, h*w, c)"""
    return hidden.permute(0, 2, 3, 1).flatten(1, 2)


def to_image(tokens: Tensor, height: int, width: int) -> Tensor:
    """(n, h*w, c) -> (n, c, h, w) in channels_last order"""
    return tokens.unflatten(1, (height, width)).permute(0, 3, 1, 2)


class Attention(nn.Module):
    """Multi-head attention with diffusers' parameter names: no bias but in the output layer."""

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
        """Softmax attention of projected queries (n, l, dim); the result has not passed the output layer."""
        queries, keys, values = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (queries, keys, values))
        if queries.requires_grad and queries.dtype == torch.bfloat16 and queries.device.type == "cpu":
            # torch's fused backward is some 10x slower in bfloat16 on a CPU than these three operations (torch 2.13).
            weights = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
            return (weights.softmax(dim=-1) @ values).transpose(1, 2).flatten(2)
        return F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)

    def forward(self, tokens: Tensor, keys_values: KeysValues) -> Tensor:
        """(n, l, dim) tokens, keys and values of any length -> (n, l, dim)"""
        return self.to_out[0](self.attend(self.to_q(tokens), *keys_values))


def few_weights(tokens: Tensor, inward: Tensor, heads: int) -> Tensor:
    """Weights of a folded context, (n, heads * length, dim), for tokens, (n, l, dim): (n, heads, length, l).

    The tokens come last, so that the softmax passes over whole rows of memory. A CPU does that several times as fast
    as a softmax over the few scores of one token after the other.
    """
    return (inward @ tokens.transpose(1, 2)).unflatten(1, (heads, -1)).softmax(dim=2)


class ContextAttention(Attention):
    """Attention to a few tokens that stay the same over many steps: they are multiplied out with all four projections.

        softmax(x W_q (c W_k)^T / sqrt(d)) c W_v W_o + b  =  softmax(x A^T) B

    A and B have a row for each token in each head. So instead of two wide products, a step has two narrow ones: with
    Hallo's 4 identity tokens a tenth of the arithmetic at 320 channels. A head's weights sum to 1, which lets B take in
    the bias.
    """

    def fold(self, context: Tensor) -> Folded:
        """(n, length, context_dim) -> A and B, (n, heads * length, dim) each"""
        keys, values = self.keys_values(context)
        dim = keys.shape[-1]
        # Weights are asked for by calling their layers: they may be on another device, or have adapters.
        queries = self.to_q(torch.eye(dim, device=context.device, dtype=context.dtype))
        queries, heads_keys = (x.unflatten(-1, (self.heads, -1)).transpose(-3, -2) for x in (queries, keys))
        inward = heads_keys @ queries.transpose(-1, -2) * (dim // self.heads) ** -0.5  # (n, heads, length, dim)
        own = torch.eye(self.heads, device=values.device, dtype=values.dtype).repeat_interleave(dim // self.heads, 1)
        outward = self.to_out[0](values[:, None] * own[:, None])  # (n, heads, length, dim), the bias in every head
        bias = self.to_out[0](torch.zeros_like(values[:1, :1]))
        outward = outward.flatten(1, 2) - bias * (1 - 1 / self.heads)
        return inward.flatten(1, 2), outward

    def forward(self, tokens: Tensor, folded: Folded) -> Tensor:
        """(n, l, dim) tokens, the context from `fold` -> (n, l, dim)"""
        inward, outward = folded
        return few_weights(tokens, inward, self.heads).flatten(1, 2).transpose(1, 2) @ outward


class GEGLU(KernelModule):
    """Linear layer whose second half gates the first (Shazeer 2002.05202)."""

    def __init__(self, dim: int, inner: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.proj = operations.Linear(dim, 2 * inner, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.kernels.geglu(self.proj(x))


class FeedForward(nn.Module):
    """GEGLU and a linear layer; `net.1` is diffusers' place for dropout."""

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
    """Cross-attention to the mixed CFG tokens on a residual path; starts at zero (see cfg.py)."""

    def __init__(self, dim: int, heads: int, token_dim: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.norm = operations.LayerNorm(dim, **factory)
        self.attn = ContextAttention(dim, heads, token_dim, operations=operations, **factory)
        zeroed(self.attn.to_out[0])

    def forward(self, tokens: Tensor, control: Folded) -> Tensor:
        """tokens (n, hw, c); control tokens (batch rows), each shared by n / batch consecutive rows -> (n, hw, c)"""
        queries = self.norm(tokens).unflatten(0, (control[0].shape[0], -1)).flatten(1, 2)
        return tokens + self.attn(queries, control).view_as(tokens)


class SpatialBlock(nn.Module):
    """Self-attention that may also look at the portrait, a student's CFG control, identity tokens, feed-forward."""

    def __init__(
        self,
        dim: int,
        heads: int,
        image_token_dim: int,
        ff_mult: int,
        control_dim: int = 0,
        attn2_scale: float = 1.0,
        *,
        operations: Any = nn,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.attn2_scale = attn2_scale
        self.norm1 = operations.LayerNorm(dim, **factory)
        self.attn1 = Attention(dim, heads, operations=operations, **factory)
        self.control = None
        if control_dim:
            self.control = CFGControlLayer(dim, heads, control_dim, operations=operations, **factory)
        self.attn2 = None
        if image_token_dim:
            self.norm2 = operations.LayerNorm(dim, **factory)
            self.attn2 = ContextAttention(dim, heads, image_token_dim, operations=operations, **factory)
        self.norm3 = operations.LayerNorm(dim, **factory)
        self.ff = FeedForward(dim, ff_mult, operations=operations, **factory)

    def forward(
        self,
        tokens: Tensor,
        normed: Tensor,
        image: Folded | None = None,
        reference: KeysValues | None = None,
        plain: int = 0,
        control: Folded | None = None,
    ) -> Tensor:
        """
        tokens (n, hw, c) and `normed`, their norm1; image: identity tokens, batch rows, each shared by n / batch
        consecutive rows; reference: keys and values of the portrait, (batch - plain rows, frames or 1, hw, c), for all
        but the first `plain` of the n rows; control: mixed CFG tokens, batch rows.
        """
        tokens = tokens + self._self_attention(normed, reference, plain)
        if self.control is not None:
            tokens = self.control(tokens, control)
        if self.attn2 is not None:
            batch = image[0].shape[0]
            queries = self.norm2(tokens).unflatten(0, (batch, -1)).flatten(1, 2)
            tokens = tokens + self.attn2(queries, image).view_as(tokens)
        return tokens + self.ff(self.norm3(tokens))

    def _self_attention(self, normed: Tensor, reference: KeysValues | None, plain: int) -> Tensor:
        own = self.attn1.keys_values(normed)
        if reference is None:
            return self.attn1(normed, own)
        queries = self.attn1.to_q(normed)
        both = []
        for mine, portrait in zip(own, reference, strict=True):
            mine = mine[plain:].unflatten(0, (portrait.shape[0], -1))
            both.append(torch.cat([mine, portrait.expand_as(mine)], dim=2).flatten(0, 1))
        attended = self.attn1.attend(queries[plain:], *both)
        if plain:
            without = self.attn1.attend(queries[:plain], *(mine[:plain] for mine in own))
            attended = torch.cat([without, attended])
        return self.attn1.to_out[0](attended)


class SpatialTransformer(KernelModule):
    """Group norm, linear layer, one `SpatialBlock`, linear layer, residual.

    In two halves, because the reference UNet hands out what lies between them.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        groups: int,
        image_token_dim: int,
        ff_mult: int,
        control_dim: int = 0,
        attn2_scale: float = 1.0,
        *,
        operations: Any = nn,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.norm = operations.GroupNorm(groups, channels, eps=1e-6, **factory)
        self.proj_in = operations.Linear(channels, channels, **factory)
        block = SpatialBlock(
            channels, heads, image_token_dim, ff_mult, control_dim, attn2_scale, operations=operations, **factory
        )
        self.transformer_blocks = nn.ModuleList([block])
        self.proj_out = zeroed(operations.Linear(channels, channels, **factory))

    def enter(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(n, c, h, w) -> tokens (n, hw, c) and the same after the block's first norm"""
        tokens = self.proj_in(to_tokens(self.kernels.group_norm(self.norm, hidden)))
        return tokens, self.transformer_blocks[0].norm1(tokens)

    def fold_image(self, image_tokens: Tensor) -> Folded:
        """(n, T, image_token_dim) identity or audio tokens, the attention's strength included"""
        block = self.transformer_blocks[0]
        inward, outward = block.attn2.fold(image_tokens)
        return inward, outward * block.attn2_scale

    def reference_keys_values(self, rows: Tensor) -> KeysValues:
        """Features of the portrait, (n, hw, c), from `enter` of the reference UNet -> keys and values, same shape"""
        return self.transformer_blocks[0].attn1.keys_values(rows)

    def fold_control(self, control_tokens: Tensor) -> Folded:
        """(batch, T, control_dim) mixed CFG tokens"""
        return self.transformer_blocks[0].control.attn.fold(control_tokens)

    def leave(
        self,
        hidden: Tensor,
        tokens: Tensor,
        normed: Tensor,
        image: Folded | None = None,
        reference: KeysValues | None = None,
        plain: int = 0,
        control: Folded | None = None,
    ) -> Tensor:
        """The rest, from what `enter` gave: -> (n, c, h, w); the last four as in `SpatialBlock.forward`."""
        tokens = self.transformer_blocks[0](tokens, normed, image, reference, plain, control)
        return hidden + to_image(self.proj_out(tokens), *hidden.shape[-2:])


@dataclass(frozen=True)
class Hearing:
    """The audio tokens, multiplied out with all that a layer's audio attentions do with them; see `AudioBlock.fold`."""

    inward: Tensor  #: as in `ContextAttention`, one region after the other, (rows, regions * heads * T, dim)
    outward: Tensor  #: shaped alike
    silence: Tensor  #: what each region adds for rows that hear nothing, (regions, dim)
    bias: Tensor  #: what all regions add everywhere, (dim,)


class AudioBlock(nn.Module):
    """Optional self-attention, then parallel audio attentions (one a region, masked), feed-forward."""

    def __init__(
        self,
        dim: int,
        heads: int,
        audio_token_dim: int,
        regions: int,
        self_attention: bool,
        ff_mult: int,
        *,
        operations: Any = nn,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.attn1 = None
        if self_attention:
            self.norm1 = operations.LayerNorm(dim, **factory)
            self.attn1 = Attention(dim, heads, operations=operations, **factory)
        self.norm2 = operations.LayerNorm(dim, **factory)
        self.regions = AUDIO_REGIONS[:regions]
        for index, region in enumerate(self.regions):
            attention = ContextAttention(dim, heads, audio_token_dim, operations=operations, **factory)
            self.add_module(f"attn2_{index}", attention)
            self.add_module(f"zero_conv_{region}", zeroed(operations.Linear(dim, dim, **factory)))
        self.norm3 = operations.LayerNorm(dim, **factory)
        self.ff = FeedForward(dim, ff_mult, operations=operations, **factory)

    def fold(self, audio_tokens: Tensor, weights: Sequence[float]) -> Hearing:
        """(rows, T, audio_token_dim) and the strength of each region; `zero_conv_*` and strength are multiplied in."""
        inward, outward, silence, biases = [], [], [], []
        for index, (region, weight) in enumerate(zip(self.regions, weights, strict=False)):
            attention, leave = self.get_submodule(f"attn2_{index}"), self.get_submodule(f"zero_conv_{region}")
            into, out = attention.fold(audio_tokens)
            nothing = out.new_zeros(1, out.shape[-1])
            bias = leave(nothing)
            inward.append(into)
            outward.append(weight * (leave(out) - bias))
            silence.append(weight * (leave(attention.to_out[0](nothing)) - bias))  # attention to zeros is zero
            biases.append(weight * bias)
        return Hearing(torch.cat(inward, 1), torch.cat(outward, 1), torch.cat(silence), torch.cat(biases).sum(0))

    def forward(self, tokens: Tensor, audio: Hearing, masks: Tensor | None) -> Tensor:
        """
        tokens (n, h*w, c); audio: of the last of the n rows (the others hear nothing); masks: (1 or n, h*w, regions).
        """
        if self.attn1 is not None:
            normed = self.norm1(tokens)
            tokens = tokens + self.attn1(normed, self.attn1.keys_values(normed))
        tokens = tokens + self._hear(self.norm2(tokens), audio, masks)
        return tokens + self.ff(self.norm3(tokens))

    def _hear(self, normed: Tensor, audio: Hearing, masks: Tensor | None) -> Tensor:
        silent = len(normed) - len(audio.inward)
        if masks is not None:
            masks = masks.expand(len(normed), -1, -1)
        heard = []
        if silent:
            quiet = audio.silence.sum(0) if masks is None else masks[:silent] @ audio.silence
            heard.append(quiet.expand_as(normed[:silent]))
        if silent < len(normed):
            weights = few_weights(normed[silent:], audio.inward, len(self.regions) * self.heads)
            if masks is not None:
                heads_masks = masks[silent:].transpose(1, 2).repeat_interleave(self.heads, 1)
                weights = weights * heads_masks[:, :, None]
            heard.append(weights.flatten(1, 2).transpose(1, 2) @ audio.outward)
        return (heard[0] if len(heard) == 1 else torch.cat(heard)) + audio.bias


class AudioTransformer(KernelModule):
    """Group norm, linear layer to `inner` channels, one `AudioBlock`, linear layer back, residual."""

    def __init__(
        self,
        channels: int,
        inner: int,
        heads: int,
        groups: int,
        audio_token_dim: int,
        regions: int,
        self_attention: bool,
        ff_mult: int,
        *,
        operations: Any = nn,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.norm = operations.GroupNorm(groups, channels, eps=1e-6, **factory)
        self.proj_in = operations.Linear(channels, inner, **factory)
        block = AudioBlock(
            inner, heads, audio_token_dim, regions, self_attention, ff_mult, operations=operations, **factory
        )
        self.transformer_blocks = nn.ModuleList([block])
        self.proj_out = operations.Linear(inner, channels, **factory)

    def fold(self, audio_tokens: Tensor, weights: Sequence[float]) -> Hearing:
        """(rows, T, audio_token_dim) and the strength of each region"""
        return self.transformer_blocks[0].fold(audio_tokens, weights)

    def forward(self, hidden: Tensor, audio: Hearing, masks: Tensor | None) -> Tensor:
        """hidden (n, c, h, w) -> same shape; the rest as in `AudioBlock.forward`"""
        tokens = self.proj_in(to_tokens(self.kernels.group_norm(self.norm, hidden)))
        tokens = self.transformer_blocks[0](tokens, audio, masks)
        return hidden + to_image(self.proj_out(tokens), *hidden.shape[-2:])
