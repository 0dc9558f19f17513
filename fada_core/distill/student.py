"""The student: a copy of the teacher with CFG tokens and control layers, and the choice of the trained weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from torch import nn

from ..config import ControlConfig
from ..errors import FadaError
from ..models.networks import Networks

Trainable = Literal["full", "lora", "tokens"]
CONTROL_PARTS = (".control.", "cfg_tokens.", "scale_embedding.")  #: in names of parameters that only students have
LORA_TARGETS = r".*\.(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|net\.0\.proj|net\.2|conv1|conv2)"


def make_student(teacher: Networks, control: ControlConfig) -> Networks:
    """Networks on the teacher's device with its weights and a new control, which has no effect before training.

    The tokens are drawn from torch's global generator. Autoencoder and audio encoder are copied, too.

    Raises:
        FadaError: `control.kind` is "none".
    """
    if control.kind == "none":
        raise FadaError("A student needs a control; choose tokens or embedding.")
    student = Networks(replace(teacher.config, control=control), device=teacher.device)
    fresh = {name: value for name, value in student.state_dict().items() if _is_control(name)}
    student.load_state_dict(teacher.state_dict() | fresh)
    return student


def _is_control(name: str) -> bool:
    return any(part in f".{name}" for part in CONTROL_PARTS)


def select_trainable(student: Networks, trainable: Trainable, lora_rank: int = 64) -> None:
    """Freeze all weights that are not trained, always including autoencoder and audio encoder.

    full: trains both UNets and the small networks between audio or portrait and UNet, as in FADA's figure. lora: trains
    low-rank adapters on the linear and convolution layers of both UNets, and the control. tokens: trains the control.

    Raises:
        FadaError: the package peft is missing, which lora needs.
    """
    frozen_blocks = {name for name, p in student.named_parameters() if not p.requires_grad}  # never used
    student.requires_grad_(False)
    if trainable == "lora":
        _add_lora(student, lora_rank)
    for name, parameter in student.named_parameters():
        trained = _is_control(name) or ".lora_" in name
        if trainable == "full" and not name.startswith(("vae.", "audio_encoder.")):
            trained = name not in frozen_blocks
        parameter.requires_grad_(trained)


def _add_lora(student: Networks, rank: int) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise FadaError("Training with lora needs the package peft: pip install peft.") from error
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=LORA_TARGETS)
    for unet in (student.denoising_unet, student.reference_unet):
        inject_adapter_in_model(config, unet)


def merge_lora(student: Networks) -> None:
    """Add the adapters to the weights of their layers, in place; parameters then have their usual names."""
    for unet in (student.denoising_unet, student.reference_unet):
        for name, module in list(unet.named_modules()):
            if hasattr(module, "get_base_layer"):
                module.merge()
                parent, _, child = name.rpartition(".")
                setattr(unet.get_submodule(parent), child, module.get_base_layer())


def parameter_groups(student: Networks, module: nn.Module, control_scale: float) -> list[dict[str, Any]]:
    """The optimiser's groups: the teacher's layers; the new ones, with a higher learning rate and no weight decay."""
    new = {id(p) for name, p in student.named_parameters() if _is_control(name)}
    trained = [p for p in module.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if id(p) not in new]},
        {"params": [p for p in trained if id(p) in new], "scale": control_scale, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def count_parameters(student: Networks) -> dict[str, int]:
    """Number of all parameters, of the trained ones, and of the control's."""
    named = list(student.named_parameters())
    return {
        "all": sum(p.numel() for _, p in named),
        "trained": sum(p.numel() for _, p in named if p.requires_grad),
        "control": sum(p.numel() for name, p in named if _is_control(name)),
    }
