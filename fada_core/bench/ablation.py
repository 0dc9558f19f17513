"""The usual way to sample without one of its optimisations, so that each can be measured by itself.

Every ablation changes a pipeline whose modules are its own, though not their weights, and leaves the video as it is, up
to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ..job import Condition
from ..models.attention import Attention, AudioBlock, ContextAttention, Folded, KeysValues, SpatialBlock
from ..models.motion import TemporalBlock
from ..models.unet import Conditioning, DenoisingUNet
from ..pipeline import Pipeline


@dataclass(frozen=True)
class Ablation:
    """An optimisation that is off."""

    does: str  #: what is done instead
    change: Callable[[Pipeline], None]


class _Unfolded(ContextAttention):
    """Four products a step, as in any attention; keys and values still once a clip."""

    def fold(self, context: Tensor) -> KeysValues:
        return self.keys_values(context)

    def forward(self, tokens: Tensor, folded: Folded) -> Tensor:
        return Attention.forward(self, tokens, folded)


class _UnfoldedAudio(AudioBlock):
    """One attention, mask and `zero_conv_*` after the other."""

    def fold(self, audio_tokens: Tensor, weights: Sequence[float]) -> list[tuple[KeysValues, float]]:
        attentions = [self.get_submodule(f"attn2_{index}") for index in range(len(self.regions))]
        return [(each.keys_values(audio_tokens), weight) for each, weight in zip(attentions, weights, strict=False)]

    def _hear(self, normed: Tensor, audio: list[tuple[KeysValues, float]], masks: Tensor | None) -> Tensor:
        heard = torch.zeros_like(normed)
        for index, (keys_values, weight) in enumerate(audio):
            attention = self.get_submodule(f"attn2_{index}")
            silent = len(normed) - len(keys_values[0])
            quiet = attention.to_out[0](torch.zeros_like(normed[:silent]))
            region = torch.cat([quiet, Attention.forward(attention, normed[silent:], keys_values)])
            if masks is not None:
                region = region * masks[..., index, None]
            heard = heard + weight * self.get_submodule(f"zero_conv_{self.regions[index]}")(region)
        return heard


class _EveryStep(DenoisingUNet):
    """What `prepare` projects once a clip, anew in every step."""

    def prepare(self, **conditions: Any) -> SimpleNamespace:
        return SimpleNamespace(plain_rows=conditions["plain_rows"], again=partial(super().prepare, **conditions))

    def forward(self, latents: Tensor, timesteps: Tensor, conditioning: SimpleNamespace) -> Tensor:
        return super().forward(latents, timesteps, conditioning.again())


class _SilentHear(DenoisingUNet):
    """Rows without speech attend to their tokens, zeros, like the others."""

    def prepare(self, **conditions: Any) -> Conditioning:
        return super().prepare(**{**conditions, "silent_rows": 0})


class _AllAttend(SpatialBlock):
    """Rows that do not see the portrait attend to it too, and then once more without it, as in Hallo."""

    def _self_attention(self, normed: Tensor, reference: KeysValues | None, plain: int) -> Tensor:
        if reference is None or not plain:
            return super()._self_attention(normed, reference, plain)
        rows = len(normed) * len(reference[0]) // (len(normed) - plain)
        more = rows - len(reference[0])
        everywhere = [torch.cat([each[:1].expand(more, -1, -1, -1), each]) for each in reference]
        seen = super()._self_attention(normed, everywhere, 0)
        return torch.cat([super()._self_attention(normed[:plain], None, 0), seen[plain:]])


class _MotionThrough(TemporalBlock):
    """Motion frames are computed to the end of a motion module, and cut off there."""

    def forward(self, x: Tensor, skip: int) -> Tensor:
        return super().forward(x, 0)[:, skip:]


def _as(plain: type[nn.Module], other: type[nn.Module]) -> Callable[[Pipeline], None]:
    def change(pipe: Pipeline) -> None:
        for module in pipe.networks.modules():
            if type(module) is plain:
                module.__class__ = other

    return change


def _unfold(pipe: Pipeline) -> None:
    _as(ContextAttention, _Unfolded)(pipe)
    _as(AudioBlock, _UnfoldedAudio)(pipe)


def _standard_order(pipe: Pipeline) -> None:
    """Pictures and kernels in torch's standard order of memory, wherever they meet a convolution or a norm."""

    def reorder(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (inputs[0].contiguous(),)

    for module in pipe.networks.modules():
        if isinstance(module, (nn.Conv2d, nn.GroupNorm)):
            module.register_forward_pre_hook(reorder)
        if isinstance(module, nn.Conv2d):  # a weight of its own, as the other is shared
            module.weight = nn.Parameter(module.weight.contiguous(), requires_grad=False)


def _one_branch_at_a_time(pipe: Pipeline) -> None:
    pipe.sample = partial(pipe.sample, batch_branches=False)


def _one_picture_at_a_time(pipe: Pipeline) -> None:
    pipe.decode = partial(pipe.decode, batch=1)


def _portrait_every_clip(pipe: Pipeline) -> None:
    sample = pipe.sample

    def again(cond: Condition, *args: Any, **kwargs: Any) -> Iterator[Tensor]:
        return sample(replace(cond, subject=replace(cond.subject, features=None)), *args, **kwargs)

    pipe.sample = again


ABLATIONS = {
    "no-batch": Ablation("one branch after the other", _one_branch_at_a_time),
    "no-folding": Ablation("attention to identity, speech and CFG tokens with all its projections", _unfold),
    "no-keeping": Ablation("keys, values and products anew in every step", _as(DenoisingUNet, _EveryStep)),
    "no-channels-last": Ablation("torch's standard order of memory", _standard_order),
    "no-motion-cut": Ablation("motion frames to the end of every motion module", _as(TemporalBlock, _MotionThrough)),
    "no-plain-rows": Ablation("attention to the portrait in branches without it", _as(SpatialBlock, _AllAttend)),
    "no-silent-rows": Ablation("attention to the speech in branches without it", _as(DenoisingUNet, _SilentHear)),
    "no-shared-portrait": Ablation("the portrait's features in every clip", _portrait_every_clip),
    "no-decode-batch": Ablation("pictures decoded one by one", _one_picture_at_a_time),
}
"""By the name that `--compare` takes; "ablations" there stands for all of them."""
