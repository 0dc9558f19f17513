"""What the loop does for parameters that are sharded over the processes (FSDP2); whole ones pass through unchanged.

Sharded parameters are DTensors; a process holds a slice of each, of its gradient, its moments and its average. States
on disk are whole tensors under either layout, so that a run goes on with any number of processes, sharded or not.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from torch.distributed.tensor import DTensor, distribute_tensor

from ..errors import FadaError
from ..models.attention import FeedForward
from ..models.audio.wav2vec2 import Wav2Vec2Encoder
from ..models.audio.whisper import WhisperEncoder
from ..models.motion import TemporalBlock
from ..models.resnet import Downsample, ResnetBlock, Upsample
from ..models.vae import TAESD, StableDiffusionVAE, TinyVAE

#: Class names of the modules that are sharded as one: gathered for a forward or backward pass and let go again. FSDP2
#: sees `forward` alone, so these are the blocks of which the networks call nothing else; the rest (attention
#: projections, a fifth of SD 1.5's student) is gathered from the forward to the end of the backward pass.
UNITS = {kind.__name__ for kind in (ResnetBlock, FeedForward, TemporalBlock, Downsample, Upsample)}
#: Frozen parts that no training runs: as units of their own they are never gathered at all.
FROZEN = {kind.__name__ for kind in (TinyVAE, StableDiffusionVAE, TAESD, Wav2Vec2Encoder, WhisperEncoder)}


def hollow_copy(module: nn.Module) -> nn.Module:
    """A copy without memory for its weights (on the meta device), to be filled by `fill`; FSDP2 can not be undone."""
    memo: dict[int, Any] = {}
    for value in module.state_dict(keep_vars=True).values():
        empty = torch.empty_like(value, device="meta")
        memo[id(value)] = nn.Parameter(empty, value.requires_grad) if isinstance(value, nn.Parameter) else empty
    return copy.deepcopy(module, memo)


def fill(hollow: nn.Module, module: nn.Module, accelerator: Accelerator) -> nn.Module:
    """A copy of `hollow` with `module`'s weights, whole and on the CPU, on the main process; without weights elsewhere.

    Every process has to call it.
    """
    weights = gather(module.state_dict(), accelerator)
    filled = copy.deepcopy(hollow)
    if accelerator.is_main_process:
        filled.load_state_dict(weights, assign=True)
    return filled


def prepare(
    accelerator: Accelerator, module: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """accelerate's `prepare`, told what to shard; the optimiser's parameters are others afterwards.

    Raises:
        FadaError: a way of sharding that the loop does not support.
    """
    if accelerator.distributed_type == DistributedType.FSDP:
        if not accelerator.is_fsdp2:
            raise FadaError("Sharded training needs FSDP2; add --fsdp_version 2 to accelerate launch.")
        plugin = accelerator.state.fsdp_plugin
        if isinstance(plugin.cpu_offload, CPUOffloadPolicy):
            raise FadaError("Parameters cannot be offloaded here; leave out --fsdp_offload_params.")
        if not isinstance(optimizer, torch.optim.AdamW):
            raise FadaError("Moments in 8 bits cannot be sharded; choose the optimizer adamw.")
        plugin.auto_wrap_policy = transformer_auto_wrap_policy
        names = {type(part).__name__ for part in module.modules()}
        plugin.transformer_cls_names_to_wrap = sorted(names & (UNITS | FROZEN))
        # accelerate's default takes inputs, gradients' sums and the prediction to half precision, too.
        half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision)
        plugin.mixed_precision_policy = MixedPrecisionPolicy(
            param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
        # Every process has the weights already; and accelerate 1.15 fails here on modules with buffers.
        plugin.cpu_ram_efficient_loading = False
        module.to(memory_format=torch.contiguous_format)  # FSDP2 takes no other
        # Of linear layers that end a unit; the networks change no output in place.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    return accelerator.prepare(module, optimizer)


def shards(parameters: Iterable[Tensor]) -> list[Tensor]:
    """What this process holds of each; shares its memory."""
    return [value.to_local() if isinstance(value, DTensor) else value for value in parameters]


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor, on every process; every process has to call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather(tensors: dict[str, Tensor], accelerator: Accelerator) -> dict[str, Tensor]:
    """The whole tensors on the main process' CPU, gathered one after the other; nothing on the other processes."""
    found = {}
    for name, value in tensors.items():
        value = whole(value.detach())
        if accelerator.is_main_process:
            found[name] = value.contiguous().cpu()
    return found


def as_sharded(shard: Tensor, parameter: Tensor) -> Tensor:
    """A process' shard as part of a tensor that is sharded as `parameter`."""
    if not isinstance(parameter, DTensor):
        return shard
    mesh, placements = parameter.device_mesh, parameter.placements
    return DTensor.from_local(shard, mesh, placements, shape=parameter.shape, stride=parameter.stride())


def shard_as(value: Tensor, target: Tensor) -> Tensor:
    """A whole tensor, the same on every process, in the target's layout, memory format and device."""
    if isinstance(target, DTensor):
        value = distribute_tensor(value, target.device_mesh, target.placements, src_data_rank=None)
    return torch.empty_like(target).copy_(value)
