"""Make all workflows/*.json, their pictures and the blueprint from the API twins, in ComfyUI's real frontend.

    COMFYUI_DIR=... COMFYUI_PYTHON=... python -m tests.comfyui.make_workflow [NAME ...]

starts that ComfyUI, the oldest that is supported, in a new folder. A graph whose model comes with FADA is run once, so
that its picture shows a frame of its video; of the others the picture shows the portrait. Without a ComfyUI the
frontend comes from the package, nothing is run, and the pictures stay as they are. Names: only these graphs.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fada_core.checkpoint import shipped_models
from fada_core.media.video import read_video
from tests.comfyui.browser import Frontend, frontend
from tests.comfyui.process import COMFYUI, ROOT, comfyui
from tests.comfyui.stand_in import server, stand_ins

WORKFLOWS = ROOT / "workflows"
BLUEPRINT = ROOT / "subgraphs" / "FADA talking portrait, lip sync avatar.json"
MATERIAL = WORKFLOWS / "input"
SIDE = 512  #: pixels of a picture
NOTE = """## {title} needs files that FADA does not bring

1. Download the files of [{source}](https://huggingface.co/{source}) into one folder `DIR`, laid out as there.
2. In ComfyUI's folder, with ComfyUI's Python:

       cd custom_nodes/comfyui-fada
       python -m fada_core.convert {option}--src DIR --out ../../models/fada/{file}

3. Press R in ComfyUI, then Run.

It needs a GPU with 8 GB or more. The licence is that of the authors ({licence}); read it.
"""
NOTES = {
    "hallo_teacher": NOTE.format(
        title="Hallo", source="fudan-generative-ai/hallo", option="", file="hallo.safetensors", licence="MIT"
    ),
    "echomimic_fast": NOTE.format(
        title="EchoMimic",
        source="BadToBest/EchoMimic",
        option="--from echomimic-acc ",
        file="echomimic-acc.safetensors",
        licence="Apache-2.0",
    ),
}


def make(page: Frontend, name: str, prompt: dict[str, Any], base: Path) -> None:
    """Make one graph and its picture. Raises `AssertionError` if the graph has problems."""
    page.load_api(prompt, NOTES.get(name, ""))
    made, graph = page.serialise()
    assert made == prompt, f"the frontend changed {name}:\n{json.dumps(made, indent=1)}"
    by_type = {node["type"]: node["id"] for node in graph["nodes"]}
    # What ComfyUI's App mode shows.
    graph["extra"]["linearData"] = {
        "inputs": [
            [by_type["LoadImage"], "image"],
            [by_type["FADALoadAudio"], "audio"],
            [by_type["FADALoadAudio"], "duration"],
            [by_type["FADAEncode"], "crop_margin"],
            [by_type["FADASampler"], "seed"],
        ],
        "outputs": [by_type["FADAVideoCombine"]],
    }
    (WORKFLOWS / f"{name}.json").write_text(json.dumps(graph, indent=1) + "\n")
    if not COMFYUI:
        return
    portrait = np.asarray(Image.open(MATERIAL / prompt["2"]["inputs"]["image"]).convert("RGB"))
    shown = portrait
    if prompt["1"]["inputs"]["model"] in shipped_models():
        ended = page.run(3600)
        assert ended.startswith("execution_success"), f"{name}: {ended}"
        (prefix,) = (node["inputs"]["filename_prefix"] for node in prompt.values() if "format" in node["inputs"])
        newest = max((base / "output").glob(f"{prefix}*.mp4"), key=lambda path: path.stat().st_mtime)
        # The frame that says most: the one that differs most from the portrait.
        shown = max(read_video(newest), key=lambda frame: float(np.abs(frame - portrait.astype(float)).mean()))
    assert not page.problems(), f"{name}: {page.problems()}"
    picture(shown, title(name)).save(WORKFLOWS / f"{name}.jpg", quality=88)


def title(name: str) -> str:
    texts = json.loads((ROOT / "locales" / "en" / "main.json").read_text())
    return texts["templateWorkflows"]["template"]["comfyui-fada"][name]


def picture(frame: np.ndarray, text: str) -> Image.Image:
    """A square picture with a line of text."""
    made = Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    draw, font = ImageDraw.Draw(made, "RGBA"), ImageFont.load_default(26)
    draw.rectangle((0, SIDE - 52, SIDE, SIDE), fill=(0, 0, 0, 150))
    draw.text((SIDE / 2, SIDE - 26), text.removeprefix("FADA: "), fill="white", font=font, anchor="mm")
    return made


def main(names: list[str]) -> None:
    prompts = {path.stem: json.loads(path.read_text()) for path in sorted((WORKFLOWS / "api").glob("*.json"))}
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        stand_ins(base / "models" / "fada", list(prompts.values()))
        with comfyui(base) if COMFYUI else server(base) as started:
            for name in names or prompts:
                with frontend(started.url) as page:  # each in a fresh page: nothing is left of the graph before
                    make(page, name, prompts[name], base)
            with frontend(started.url) as page:
                page.load_api(prompts["talking_portrait"])
                BLUEPRINT.parent.mkdir(exist_ok=True)
                BLUEPRINT.write_text(json.dumps(page.blueprint(BLUEPRINT.stem), indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
