"""Functions of the training loop for parameters that are sharded over processes (FSDP2); others pass unchanged.

Sharded parameters are DTensors: each process holds a slice of each parameter, of its gradient, moments and average.
States on disk always consist of full tensors, so that a training can be resumed with any number of processes, sharded
or not.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
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

#: Class names of modules that are sharded as a unit: gathered for a forward or backward pass and then freed. FSDP2
#: only gathers for `forward`, so these are blocks of which no other method is called. All other parameters (attention
#: projections, a fifth of SD 1.5's student) stay gathered from the forward to the end of the backward pass.
UNITS = {kind.__name__ for kind in (ResnetBlock, FeedForward, TemporalBlock, Downsample, Upsample)}
#: Frozen modules that no training runs; as separate units they are never gathered.
FROZEN = {kind.__name__ for kind in (TinyVAE, StableDiffusionVAE, TAESD, Wav2Vec2Encoder, WhisperEncoder)}


def hollow_copy(module: nn.Module) -> nn.Module:
    """A copy with weights on the meta device, to be filled by `fill`. It is needed because FSDP2 cannot be undone."""
    memo: dict[int, Any] = {}
    for value in module.state_dict(keep_vars=True).values():
        empty = torch.empty_like(value, device="meta")
        memo[id(value)] = nn.Parameter(empty, value.requires_grad) if isinstance(value, nn.Parameter) else empty
    return copy.deepcopy(module, memo)


def fill(hollow: nn.Module, module: nn.Module, accelerator: Accelerator) -> nn.Module:
    """A copy of `hollow` with the full weights of `module`, on the CPU; on other processes than the main one, without
    weights. All processes have to call this.
    """
    weights = gather(module.state_dict(), accelerator)
    filled = copy.deepcopy(hollow)
    if accelerator.is_main_process:
        filled.load_state_dict(weights, assign=True)
    return filled


def prepare(
    accelerator: Accelerator, module: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[nn.Module, AcceleratedOptimizer]:
    """accelerate's `prepare`, with settings for sharding; it replaces the optimiser's parameters.

    Raises:
        FadaError: the loop does not support this kind of sharding.
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
        # accelerate's default would also cast inputs, outputs and sums of gradients to half precision.
        half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision)
        plugin.mixed_precision_policy = MixedPrecisionPolicy(
            param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
        # All processes have the weights already, and accelerate 1.15 fails here on modules with buffers.
        plugin.cpu_ram_efficient_loading = False
        module.to(memory_format=torch.contiguous_format)  # FSDP2 supports no other
        # The warning is about units that end in a linear layer; it is harmless, as no output is changed in place.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    return accelerator.prepare(module, optimizer)


def shards(parameters: Iterable[Tensor]) -> list[Tensor]:
    """This process's slice of each parameter, sharing its memory."""
    return [value.to_local() if isinstance(value, DTensor) else value for value in parameters]


def whole(tensor: Tensor) -> Tensor:
    """The full tensor, on all processes; all of them have to call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather(tensors: dict[str, Tensor], accelerator: Accelerator) -> dict[str, Tensor]:
    """The full tensors, gathered one at a time, on the CPU of the main process; an empty dict on the others.

    All processes have to call this.
    """
    found = {}
    for name, value in tensors.items():
        value = whole(value.detach())
        if accelerator.is_main_process:
            found[name] = value.contiguous().cpu()
    return found


def as_sharded(shard: Tensor, parameter: Tensor) -> Tensor:
    """This process's slice as part of a tensor that is sharded like `parameter`."""
    if not isinstance(parameter, DTensor):
        return shard
    mesh, placements = parameter.device_mesh, parameter.placements
    return DTensor.from_local(shard, mesh, placements, shape=parameter.shape, stride=parameter.stride())


def shard_as(value: Tensor, target: Tensor) -> Tensor:
    """A copy of a full tensor (the same on all processes) with the sharding, memory format and device of `target`."""
    if isinstance(target, DTensor):
        value = distribute_tensor(value, target.device_mesh, target.placements, src_data_rank=None)
    return torch.empty_like(target).copy_(value)
