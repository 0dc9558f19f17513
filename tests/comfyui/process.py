"""A ComfyUI with the pack, in its own folder: starts it, sends requests, and stops it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COMFYUI = os.environ.get("COMFYUI_DIR")
"""A work tree of ComfyUI; COMFYUI_PYTHON is the python that runs it (default: this one)."""
ROOT = Path(__file__).parents[2]


class Server:
    """A running ComfyUI, whose folders are in `base`."""

    def __init__(self, base: Path, port: int) -> None:
        self.base, self.url = base, f"http://127.0.0.1:{port}"

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:  # noqa: S310 - our own server
            return json.load(answer)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(self.url + path, json.dumps(body).encode())  # noqa: S310 - our own server
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                return json.loads(answer.read() or "{}")
        except urllib.error.HTTPError as error:
            return json.load(error)

    def start(self, graph: dict[str, Any]) -> str:
        """Queue a graph in API format; returns its id."""
        answer = self.post(
            "/prompt", {"prompt": graph, "extra_data": {"extra_pnginfo": {"workflow": {"made": "here"}}}}
        )
        assert "prompt_id" in answer and not answer["node_errors"], answer
        return answer["prompt_id"]

    def finish(self, prompt: str, seconds: float = 480) -> dict[str, Any]:
        """Wait for the end of a queued graph; returns its entry of the history."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := self.get(f"/history/{prompt}").get(prompt):
                return found
            time.sleep(0.2)
        raise TimeoutError(f"the workflow took more than {seconds} s")


@contextmanager
def comfyui(base: Path) -> Iterator[Server]:
    """Start a ComfyUI on the CPU with its folders in `base`, which may hold files already."""
    for name in ("input", "output", "temp", "user", "custom_nodes", "models/fada"):
        (base / name).mkdir(parents=True, exist_ok=True)
    if not (base / "custom_nodes" / "comfyui-fada").exists():
        (base / "custom_nodes" / "comfyui-fada").symlink_to(ROOT)
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
