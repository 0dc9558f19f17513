"""Sampling with little memory, in the python of a real ComfyUI, started in its folder: `little_memory.py MODEL --cpu`.

Prints JSON: bytes of the UNets and how many were loaded, layers that were left away, and how far the latents differ.
Without an accelerator the CPU plays one: it is told to have a budget, and layers to fetch their weights from elsewhere.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

PATH = sys.argv.pop(1)
sys.path.insert(0, ".")

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()
import comfy.model_management as management  # noqa: E402
import torch  # noqa: E402
import utils.install_util  # noqa: E402, F401  as main.py: ComfyUI's nodes.py puts another `utils` in front of it

import server  # noqa: E402  isort: skip

ROOT = Path(__file__).parents[2]


def pack() -> tuple[Any, Any]:
    """Our nodes, imported as ComfyUI does."""
    spec = importlib.util.spec_from_file_location(
        "fada_pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    module = sys.modules["fada_pack"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return importlib.import_module("fada_pack.nodes.load_model"), importlib.import_module("fada_pack.nodes.model")


def run(nodes: tuple[Any, Any], free: float) -> tuple[dict[str, int], torch.Tensor]:
    """Encode and sample with `free` bytes of memory for weights."""
    load_model, model = nodes
    networks, info = load_model.load_checkpoint(PATH, operations=load_model.OPERATIONS)
    device = torch.device("cpu")
    made = model.FadaModel(load_model.Pipeline(networks, info, device), device, device)
    patchers = [made._unets, made._vae]

    def left(*_: Any, torch_free_too: bool = False) -> Any:
        unused = free - sum(patcher.loaded_size() for patcher in patchers)
        return (unused, unused) if torch_free_too else unused

    management.get_free_memory = left
    portrait = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        cond = made.for_encoding().encode(portrait, torch.sin(torch.arange(8000) / 20))
        latents = torch.cat(list(made.for_sampling(1).sample(cond, seed=0)))
        made.for_decoding().decode(latents)
    away = sum(hasattr(layer, "prev_comfy_cast_weights") for layer in made._unets.model.modules())
    facts = {"size": made._unets.model_size(), "loaded": made._unets.loaded_size(), "away": away}
    management.unload_all_models()
    return facts, latents


if __name__ == "__main__":
    management.is_device_cpu = lambda device: False  # or it would load everything without a question
    management.vram_state = management.VRAMState.NORMAL_VRAM
    management.minimum_inference_memory = lambda: 0
    server.PromptServer(asyncio.new_event_loop())  # as main.py: packs add their addresses to it
    parts = pack()
    whole, expected = run(parts, 2**40)
    budget = whole["size"] // 3
    management.extra_reserved_memory = lambda: 0
    parts[1].FadaModel._step = parts[1].FadaModel._pictures = lambda *_: 0  # all of the budget is for weights
    part, latents = run(parts, budget)
    difference = float((latents - expected).abs().max())
    print(json.dumps({"whole": whole, "part": part, "budget": budget, "difference": difference}))
