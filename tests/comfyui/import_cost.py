"""What importing the pack takes, in the python of a real ComfyUI, started in its folder: `import_cost.py --cpu`
with `--base-directory` and an empty folder.

Prints JSON: seconds of the processor's and of the clock's time beyond what ComfyUI itself has loaded when it comes to
the packs, what was printed and logged meanwhile, connections that were made, and model files that were opened.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import importlib.util
import io
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, ".")

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()
# What main.py has imported by then, in its order: ComfyUI's nodes.py puts another `utils` in front of its own.
*_, server, nodes = map(importlib.import_module, ["utils.install_util", "execution", "server", "nodes"])

ROOT = Path(__file__).parents[2]


async def load() -> list[str]:
    """The pack's nodes with all that ComfyUI asks them at its start, imported as ComfyUI does."""
    spec = importlib.util.spec_from_file_location(
        "fada_pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    module = sys.modules["fada_pack"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    extension = await module.comfy_entrypoint()
    return [node.GET_SCHEMA().node_id for node in await extension.get_node_list()]


if __name__ == "__main__":
    server.PromptServer(asyncio.new_event_loop())  # as main.py: packs add their addresses to it
    asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False))
    touched: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" or (event == "open" and str(arguments[0]).endswith((".safetensors", ".onnx"))):
            touched.append(f"{event} {arguments}")

    sys.addaudithook(watch)
    gc.freeze()  # or a look through all of ComfyUI's objects, which is due at some time, might fall into ours
    said = io.StringIO()
    logging.getLogger().addHandler(logging.StreamHandler(said))
    processor, clock = time.process_time(), time.perf_counter()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        names = asyncio.run(load())
    told = {"processor": time.process_time() - processor, "clock": time.perf_counter() - clock}
    print(json.dumps(told | {"nodes": names, "said": said.getvalue(), "touched": touched}))
