"""Make all workflows/*.json, their pictures and the blueprint from the API twins, in ComfyUI's real frontend.

    COMFYUI_DIR=... COMFYUI_PYTHON=... python -m tests.frontend.make_workflow

starts that ComfyUI in a new folder, with a portrait and a sound that the avatars make. A graph whose model comes with
FADA is run once, so that its picture shows the video; other models are empty files there, and only named. Without a
ComfyUI the frontend comes from the package, and nothing is run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from fada_core.checkpoint import shipped_models
from tests.comfy_browser import Frontend, frontend
from tests.comfy_server import COMFYUI, ROOT, comfyui
from tests.frontend.serve import server, stand_ins

WORKFLOWS = ROOT / "workflows"
BLUEPRINT = ROOT / "subgraphs" / "FADA portrait and audio to video.json"
DEMO = ["-m", "fada_core.avatars", "--seed", "1000007", "--pool", "high", "--seconds", "2", "--out"]


def make(page: Frontend, name: str, prompt: dict[str, Any]) -> None:
    """One graph and its picture; an AssertionError says what is wrong with it."""
    page.load_api(prompt)
    made, graph = page.serialise()
    assert made == prompt, f"the frontend changed {name}:\n{json.dumps(made, indent=1)}"
    (WORKFLOWS / f"{name}.json").write_text(json.dumps(graph, indent=1) + "\n")
    if COMFYUI and {node["inputs"]["model"] for node in prompt.values() if node["class_type"] == "FADALoadModel"} <= {
        *shipped_models()
    }:
        ended = page.run(3600)
        assert ended.startswith("execution_success"), f"{name}: {ended}"
    assert not page.problems(), f"{name}: {page.problems()}"
    page.picture(WORKFLOWS / f"{name}.jpg")


def main() -> None:
    prompts = {path.stem: json.loads(path.read_text()) for path in sorted((WORKFLOWS / "api").glob("*.json"))}
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        subprocess.run([sys.executable, *DEMO, str(base / "input")], cwd=ROOT, check=True)  # noqa: S603
        stand_ins(base / "models" / "fada", list(prompts.values()))
        with comfyui(base) if COMFYUI else server(base) as started:
            for name, prompt in prompts.items():
                with frontend(started.url) as page:  # each in a fresh page: nothing is left of the graph before
                    make(page, name, prompt)
            with frontend(started.url) as page:
                page.load_api(prompts["talking_portrait"])
                BLUEPRINT.parent.mkdir(exist_ok=True)
                BLUEPRINT.write_text(json.dumps(page.blueprint(BLUEPRINT.stem), indent=1) + "\n")


if __name__ == "__main__":
    main()
