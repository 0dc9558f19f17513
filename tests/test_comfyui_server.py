"""The pack in a real ComfyUI, its server and, with playwright and a Chromium, its frontend.

Runs where COMFYUI_DIR names a work tree of ComfyUI; COMFYUI_PYTHON is the python that runs it (default: this one).
"""

from __future__ import annotations

import copy
import importlib.util
import json
import math
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from fada_core import load
from fada_core.checkpoint import CheckpointInfo, save_checkpoint
from fada_core.config import TINY
from fada_core.media.audio import load_audio
from fada_core.media.image import load_image
from fada_core.media.video import VideoWriter, probe, read_video
from fada_core.models.networks import Networks

COMFYUI = os.environ.get("COMFYUI_DIR")
pytestmark = pytest.mark.skipif(not COMFYUI, reason="COMFYUI_DIR names no ComfyUI")

ROOT = Path(__file__).parents[1]
GRAPH = json.loads((ROOT / "workflows" / "api" / "talking_portrait.json").read_text())
SMALL = replace(TINY, name="small", size=64)
MODEL = "small.safetensors"
SECONDS = 1.3


class Server:
    """A running ComfyUI in a folder of its own."""

    def __init__(self, base: Path, port: int) -> None:
        self.base, self.url = base, f"http://127.0.0.1:{port}"

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:  # noqa: S310 - our own server
            return json.load(answer)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(self.url + path, json.dumps(body).encode())  # noqa: S310 - our own server
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                return json.loads(answer.read() or "{}")
        except urllib.error.HTTPError as error:
            return json.load(error)

    def start(self, graph: dict[str, Any]) -> str:
        return self.post("/prompt", {"prompt": graph, "extra_data": {"extra_pnginfo": {"workflow": {"made": "here"}}}})[
            "prompt_id"
        ]

    def finish(self, prompt: str, seconds: float = 240) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := self.get(f"/history/{prompt}").get(prompt):
                return found
            time.sleep(0.2)
        raise TimeoutError(f"the workflow took more than {seconds} s")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    base = tmp_path_factory.mktemp("comfyui")
    for name in ("input", "output", "temp", "user", "custom_nodes", "models/fada"):
        (base / name).mkdir(parents=True)
    (base / "custom_nodes" / "comfyui-fada").symlink_to(ROOT)
    torch.manual_seed(0)
    networks = Networks(SMALL).requires_grad_(False)
    for parameter in networks.denoising_unet.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, 0.5 * parameter[0].numel() ** -0.5)
    save_checkpoint(base / "models/fada" / MODEL, networks, CheckpointInfo("teacher", steps=2))
    pixels = np.random.default_rng(0).integers(0, 255, (80, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(base / "input/portrait.png")
    t = np.arange(round(SECONDS * 44100)) / 44100
    soundfile.write(base / "input/speech.wav", (0.3 * np.sin(2 * math.pi * 180 * t)).astype(np.float32), 44100)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    command = [python, "main.py", "--cpu", "--port", str(port), "--base-directory", str(base), "--disable-auto-launch"]
    log = base / "server.log"
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=COMFYUI, stdout=out, stderr=subprocess.STDOUT)  # noqa: S603
    made = Server(base, port)
    try:
        end = time.monotonic() + 600  # on a busy machine imports alone take minutes
        while True:
            try:
                made.get("/system_stats")
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
                time.sleep(0.25)
        yield made
    finally:
        process.terminate()
        process.wait(30)


def graph(**changes: dict[str, Any]) -> dict[str, Any]:
    """The shipped workflow with another model, and with inputs of its nodes (by type) replaced."""
    made = copy.deepcopy(GRAPH)
    for node in made.values():
        node["inputs"] |= ({"FADALoadModel": {"model": MODEL}} | changes).get(node["class_type"], {})
    return made


def test_the_graph_makes_the_pipelines_video(server, tmp_path):
    result = server.finish(server.start(graph()))
    assert result["status"]["status_str"] == "success", result["status"]
    (shown,) = (output for output in result["outputs"].values() if "images" in output)
    assert shown["animated"] == [True]
    path = server.base / "output" / shown["images"][0]["subfolder"] / shown["images"][0]["filename"]

    pipe = load(server.base / "models/fada" / MODEL, "cpu")
    speech = load_audio(server.base / "input/speech.wav")
    cond = pipe.encode(load_image(server.base / "input/portrait.png"), speech)
    with VideoWriter(tmp_path / "direct.mp4", 64, 64, pipe.config.fps, speech) as writer:
        for latents in pipe.sample(cond, seed=0):
            writer.write(pipe.decode(latents))
    assert probe(path) == probe(tmp_path / "direct.mp4")
    for made, direct in zip(read_video(path), read_video(tmp_path / "direct.mp4"), strict=True):
        assert np.abs(made.astype(int) - direct).mean() < 1
    assert b'{"made": "here"}' in path.read_bytes()  # the graph can be dropped back onto ComfyUI


def test_stop_in_the_middle(server):
    prompt = server.start(graph(FADASampler={"steps": 1000, "seed": 1}))
    while not server.get("/queue")["queue_running"]:
        time.sleep(0.1)
    time.sleep(3)
    server.post("/interrupt", {"prompt_id": prompt})
    result = server.finish(prompt, 20)
    assert "execution_interrupted" in [name for name, _ in result["status"]["messages"]]
    assert not result["outputs"]


def test_mistakes_are_told(server):
    result = server.finish(server.start(graph(FADASampler={"mode": "fast"})))
    (error,) = (detail for name, detail in result["status"]["messages"] if name == "execution_error")
    assert error["node_type"] == "FADASampler"
    assert "student checkpoint" in error["exception_message"]
    refused = server.post("/prompt", {"prompt": graph(FADALoadAudio={"audio": "../portrait.png"})})
    assert "outside of ComfyUI's folders" in json.dumps(refused)


def test_graph_and_help_are_served(server):
    assert server.get("/workflow_templates") == {"comfyui-fada": ["talking_portrait"]}
    served = server.get("/api/workflow_templates/comfyui-fada/talking_portrait.json")
    assert served == json.loads((ROOT / "workflows" / "talking_portrait.json").read_text())
    with urllib.request.urlopen(server.url + "/extensions/comfyui-fada/docs/FADASampler.md") as answer:  # noqa: S310
        assert answer.read().startswith(b"# FADA Sampler")


@pytest.mark.skipif(not importlib.util.find_spec("playwright"), reason="playwright is not installed")
def test_the_frontend_makes_the_twin_of_the_graph(server):
    from tests.comfy_browser import frontend

    with frontend(server.url) as page:
        page.load(json.loads((ROOT / "workflows" / "talking_portrait.json").read_text()))
        assert page.serialise()[0] == GRAPH
        shipped = (ROOT / "fada_core" / "weights" / "tiny.safetensors").is_file()
        assert page.problems() == ([] if shipped else ["FADALoadModel: model = tiny is no option"])
