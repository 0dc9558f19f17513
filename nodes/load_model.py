"""Node: load a FADA model."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.model_management
import comfy.ops
import folder_paths
import torch
from comfy_api.latest import io

from ..fada_core.checkpoint import load_checkpoint, shipped_models
from ..fada_core.errors import FadaError
from ..fada_core.pipeline import Pipeline
from .model import FadaModel
from .start import FOLDER
from .types import CATEGORY, ModelType, aliases

CONVERTED = {
    "hallo.safetensors": ("fudan-generative-ai/hallo", ""),
    "hallo2.safetensors": ("fudan-generative-ai/hallo2", ""),
    "echomimic.safetensors": ("BadToBest/EchoMimic", "--from echomimic "),
    "echomimic-acc.safetensors": ("BadToBest/EchoMimic", "--from echomimic-acc "),
}
"""Converted models of other projects, by the file name that the documentation uses: (repository on Hugging Face, option
of the conversion command)."""
PACK = Path(__file__).parents[1].name  #: this folder in custom_nodes
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class _Linear(comfy.ops.manual_cast.Linear):
    """ComfyUI's casting layer, which creates its weights at once.

    Newer versions of ComfyUI create the weights of layers without this method only when they are loaded, but
    `load_checkpoint` compares a checkpoint with the layers' names and shapes before.
    """

    def _load_from_state_dict(self, *args: Any) -> None:
        torch.nn.Module._load_from_state_dict(self, *args)


OPERATIONS = SimpleNamespace(
    Linear=_Linear,
    Conv2d=comfy.ops.manual_cast.Conv2d,
    GroupNorm=comfy.ops.manual_cast.GroupNorm,
    LayerNorm=comfy.ops.manual_cast.LayerNorm,
    Embedding=comfy.ops.manual_cast.Embedding,
)
"""ComfyUI's casting layers, which also check for an interrupt in each call."""


def _path(name: str) -> str:
    """Path of a shipped model or of a file in models/fada.

    Raises:
        FadaError: there is none; for models that have to be converted, the message says how.
    """
    if not isinstance(name, str):
        raise FadaError(f"model is {name!r}; give a name, such as {next(iter(shipped_models()))}.")
    path = shipped_models().get(name) or folder_paths.get_full_path(FOLDER, name)
    if path is not None:
        return str(path)
    if name in CONVERTED:
        source, option = CONVERTED[name]
        raise FadaError(
            f"There is no model '{name}' in models/{FOLDER}. It has to be converted once: download the files of "
            f"huggingface.co/{source} to a folder DIR, run in custom_nodes/{PACK}: python -m fada_core.convert "
            f"{option}--src DIR --out ../../models/{FOLDER}/{name}, and press R in ComfyUI. For a model that comes "
            f"with FADA, choose {' or '.join(shipped_models())}."
        )
    raise FadaError(
        f"There is no model '{name}'; put it into models/{FOLDER} and press R in ComfyUI, or choose one that comes "
        f"with FADA: {', '.join(shipped_models())}."
    )


class FADALoadModel(io.ComfyNode):
    """Model file -> FADA_MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FADALoadModel",
            display_name="FADA Load Model (Talking Avatar, Hallo)",
            category=CATEGORY,
            **aliases("talking head", "talking portrait", "lip sync", "lipsync", "hallo", "hallo2", "echomimic"),
            description="Loads a talking-portrait model: one that comes with FADA, or a file in models/fada.",
            inputs=[
                io.Combo.Input(
                    "model",
                    options=[*shipped_models(), *folder_paths.get_filename_list(FOLDER)],
                    tooltip="The model. 'portrait' (fast, balanced) and 'portrait-teacher' (slow) come with FADA and "
                    "make faces of 256 px; put other FADA checkpoints (.safetensors) into models/fada.",
                ),
                io.Combo.Input(
                    "precision",
                    options=["auto", *PRECISIONS],
                    default="auto",
                    tooltip="Number format of the networks. auto: depends on the device (half precision on newer "
                    "GPUs, fp32 on the CPU). Tip: try fp32 if the picture turns black or grey.",
                ),
                io.Combo.Input(
                    "device",
                    options=["auto", "cpu"],
                    default="auto",
                    tooltip="Where the networks run. auto: ComfyUI's device. cpu: slow, but leaves the GPU's memory "
                    "to other models.",
                ),
            ],
            outputs=[ModelType.Output(display_name="model", tooltip="For the other FADA nodes.")],
        )

    @classmethod
    def validate_inputs(cls, model: str | None) -> bool | str:
        # None: the name will come from another node.
        try:
            return model is None or bool(_path(model))
        except FadaError as error:
            return str(error)

    @classmethod
    def fingerprint_inputs(cls, model: str, precision: str, device: str) -> str:
        status = os.stat(_path(model))
        return f"{model} {status.st_mtime_ns} {status.st_size} {precision} {device}"

    @classmethod
    def execute(cls, model: str, precision: str, device: str) -> io.NodeOutput:
        management = comfy.model_management
        load_device, offload_device = management.get_torch_device(), management.unet_offload_device()
        if device == "cpu":
            load_device = offload_device = torch.device("cpu")
        # auto never chooses float16, in which the shipped models overflow.
        dtype = PRECISIONS.get(precision) or management.unet_dtype(
            load_device, supported_dtypes=[torch.bfloat16, torch.float32]
        )
        # With ComfyUI's options for 8 bit; these networks need a type that they can compute in.
        if dtype not in PRECISIONS.values():
            dtype = management.unet_manual_cast(dtype, load_device) or torch.float32
        networks, info = load_checkpoint(_path(model), device=offload_device, dtype=dtype, operations=OPERATIONS)
        return io.NodeOutput(FadaModel(Pipeline(networks, info, load_device), load_device, offload_device))
