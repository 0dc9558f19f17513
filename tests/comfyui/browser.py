"""ComfyUI's frontend in a headless Chromium: load, arrange, read and run a graph, and take its picture."""

from __future__ import annotations

import base64
import mimetypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")  #: None: the one that playwright has installed
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--autoplay-policy=no-user-gesture-required"]

_READY = """() => window.app?.vueAppReady && window.app.graph && document.querySelector('#graph-canvas')
    && 'FADASampler' in window.LiteGraph.registered_node_types"""

# Pictures first, then what else is loaded, then a column for each step of the data's way; heights as the nodes ask for.
_ARRANGE = """() => {
    const graph = window.app.graph, depth = new Map(), columns = [];
    const place = node => {
        if (!depth.has(node.id)) {
            const before = (node.inputs ?? []).map((_, i) => node.getInputNode(i)).filter(Boolean).map(place);
            const first = ['LoadImage', 'MarkdownNote'].includes(node.type);
            depth.set(node.id, first ? 0 : 1 + Math.max(0, ...before));
        }
        return depth.get(node.id);
    };
    for (const node of graph.nodes) (columns[place(node)] ??= []).push(node);
    let x = 60;
    for (const column of columns) {
        let y = 60, width = 0;
        for (const node of column ?? []) {
            const [least, height] = node.computeSize();
            // Room for picture, face, preview, player and text.
            const shown = {LoadImage: 460, FADAEncode: 540, FADASampler: 520, FADAVideoCombine: 580, MarkdownNote: 400};
            node.setSize([Math.max(least, 320), Math.max(height, shown[node.type] ?? 0)]);
            node.pos = [x, y];
            y += node.size[1] + 90;
            width = Math.max(width, node.size[0]);
        }
        x += width + 70;
    }
    for (const node of graph.nodes)
        for (const widget of node.widgets ?? [])
            if (widget.name === 'control_after_generate') widget.value = 'fixed';
    // How the graph opens: clear of the menus, all of it on a usual screen.
    const scale = Math.min(0.75, Math.round(165000 / x) / 100);
    Object.assign(window.app.canvas.ds, {scale, offset: [Math.round(56 / scale), Math.round(86 / scale)]});
}"""

_NOTE = """text => {
    const note = window.LiteGraph.createNode('MarkdownNote');
    note.title = 'Read first';
    window.app.graph.add(note);
    note.widgets[0].value = text;
}"""

# Show the graph at full size, clear of the menus; gives its corners on the screen, with a margin.
_FRAME = """() => {
    const canvas = window.app.canvas, left = [], top = [], right = [], bottom = [];
    for (const node of window.app.graph.nodes) {
        left.push(node.pos[0]); top.push(node.pos[1] - 60);
        right.push(node.pos[0] + node.size[0]); bottom.push(node.pos[1] + node.size[1]);
    }
    const x = Math.min(...left) - 30, y = Math.min(...top) - 10, corner = canvas.canvas.getBoundingClientRect();
    canvas.ds.scale = 1;
    canvas.ds.offset = [120 - x, 120 - y];
    canvas.setDirty(true, true);
    return {x: corner.x + 120, y: corner.y + 120,
            width: Math.max(...right) + 30 - x, height: Math.max(...bottom) + 30 - y};
}"""

# All but the loaded picture and sound becomes one node, with what is touched most on it. Saving gives it an output.
_BLUEPRINT = """title => {
    const graph = window.app.graph, of = type => graph.nodes.find(node => node.type === type);
    const save = window.LiteGraph.createNode('SaveVideo');
    graph.add(save);
    of('FADAVideoCombine').connect(0, save, 0);
    const outside = [of('LoadImage'), of('FADALoadAudio'), save];
    // A picture in a node has this name: what the sampler previews, and the finished video.
    const preview = '$$canvas-image-preview';
    const previews = ['FADASampler', 'FADAVideoCombine'].map(type => String(of(type).id));
    const shown = [
        ['FADALoadModel', 'model'], ['FADAEncode', 'crop_margin'], ['FADASampler', 'mode'], ['FADASampler', 'seed'],
        ['FADASampler', 'control_after_generate'], ['FADAVideoCombine', 'filename_prefix'],
    ].map(([type, widget]) => [String(of(type).id), widget]);
    const {node} = graph.convertToSubgraph(new Set(graph.nodes.filter(node => !outside.includes(node))));
    for (const other of outside) graph.remove(other);
    node.title = node.subgraph.name = title;
    node.properties.proxyWidgets = [...shown, ...previews.map(id => [id, preview])];
    node.pos = [60, 60];
    node.setSize([400, 760]);
    const made = JSON.parse(JSON.stringify(graph.serialize()));
    // Frontends from 1.45 on keep previews apart.
    made.nodes.find(other => other.id === node.id).properties.previewExposures = previews.map((id, i) => (
        {name: i ? `${preview}_${i}` : preview, sourceNodeId: id, sourcePreviewName: preview}));
    return made;
}"""

_RUN = """async limit => {
    const api = window.app.api;
    const ended = new Promise(resolve => {
        for (const name of ['execution_success', 'execution_error', 'execution_interrupted'])
            api.addEventListener(
                name, event => resolve(name + ' ' + (event.detail?.exception_message ?? '')), {once: true});
        setTimeout(() => resolve('timeout'), limit);
    });
    await window.app.queuePrompt(0, 1);
    const errors = window.app.lastNodeErrors;
    return errors && Object.keys(errors).length ? JSON.stringify(errors) : await ended;
}"""

_PLAYED = """([kind, file]) => {
    const node = window.app.graph.nodes.find(node => node.type === kind);
    const video = node.videoContainer?.querySelector('video');
    return video?.readyState >= 2 && new URL(video.src).searchParams.get('filename') === file && video.duration;
}"""

# Where on the screen the title of a node of this type is.
_PLACE = """kind => {
    window.app.canvas.draw(true, true);  // on a busy machine the last picture may be from before the graph
    const node = window.app.graph.nodes.find(node => node.type === kind), {scale, offset} = window.app.canvas.ds;
    const corner = window.app.canvas.canvas.getBoundingClientRect();
    return [corner.x + (node.pos[0] + node.size[0] / 2 + offset[0]) * scale,
            corner.y + (node.pos[1] - 15 + offset[1]) * scale];
}"""

# Where on the screen the picture of the node's face view is; nothing while there is none.
_FACE = """kind => {
    const node = window.app.graph.nodes.find(node => node.type === kind);
    const canvas = node.widgets.find(widget => widget.name === 'fada_face').element.querySelector('canvas');
    const {x, y, width, height} = canvas.getBoundingClientRect(), shape = canvas.dataset.shape?.split('x').map(Number);
    if (!shape || !width) return null;
    const scale = Math.min(width / shape[0], height / shape[1]), sides = shape.map(side => side * scale);
    return [x + (width - sides[0]) / 2, y + (height - sides[1]) / 2, ...sides];
}"""

_DROP = """async ([name, kind, content, x, y]) => {
    const bytes = Uint8Array.from(atob(content), character => character.charCodeAt(0));
    const dataTransfer = new DataTransfer(), where = document.querySelector('#graph-canvas');
    dataTransfer.items.add(new File([bytes], name, {type: kind}));
    const options = {dataTransfer, clientX: x, clientY: y, bubbles: true, cancelable: true};
    where.dispatchEvent(new DragEvent('dragover', options));
    await new Promise(requestAnimationFrame);
    where.dispatchEvent(new DragEvent('drop', options));
}"""

_PROBLEMS = """() => {
    const known = window.LiteGraph.registered_node_types, found = [];
    for (const node of window.app.graph.nodes) {
        if (!(node.type in known)) found.push(`unknown node type ${node.type}`);
        for (const widget of node.widgets ?? []) {
            let options = widget.options?.values;
            if (typeof options === 'function') options = options(widget, node);
            if (widget.type === 'combo' && Array.isArray(options) && !options.includes(widget.value))
                found.push(`${node.type}: ${widget.name} = ${widget.value} is no option`);
        }
    }
    for (const dialog of document.querySelectorAll('.p-dialog, .p-toast-message')) found.push(dialog.innerText);
    return found;
}"""


class Frontend:
    """A page that shows one graph."""

    def __init__(self, page: Page, errors: list[str]) -> None:
        self._page = page
        self._errors = errors

    def evaluate(self, script: str) -> Any:
        """The result of a script in the page."""
        return self._page.evaluate(script)

    def load(self, graph: dict[str, Any]) -> None:
        """Open a graph in UI format."""
        self._page.evaluate("graph => window.app.loadGraphData(graph, true, true, null)", graph)
        self._page.wait_for_timeout(1000)

    def load_api(self, prompt: dict[str, Any], note: str = "") -> None:
        """Make a graph of a workflow in API format, with a note, and arrange its nodes in columns."""
        self._page.evaluate("prompt => window.app.loadApiJson(prompt, 'workflow')", prompt)
        self._page.wait_for_timeout(1000)
        if note:
            self._page.evaluate(_NOTE, note)
        self._page.evaluate(_ARRANGE)

    def serialise(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The graph in API format, as the Run button posts it, and in UI format."""
        made = self._page.evaluate("async () => JSON.parse(JSON.stringify(await window.app.graphToPrompt()))")
        return made["output"], made["workflow"]

    def blueprint(self, title: str) -> dict[str, Any]:
        """Combine the nodes of a graph, except those that load picture and sound, in one node; in UI format."""
        return self._page.evaluate(_BLUEPRINT, title)

    def widgets(self, kind: str) -> list[str]:
        """Names of the widgets of the first node of this type, from top to bottom."""
        return self._page.evaluate(
            "kind => window.app.graph.nodes.find(node => node.type === kind).widgets.map(widget => widget.name)", kind
        )

    def set(self, kind: str, widget: str, value: str | float) -> None:
        """Set a widget on the first node of this type."""
        self._page.evaluate(
            """([kind, name, value]) => {
                const node = window.app.graph.nodes.find(node => node.type === kind);
                node.widgets.find(widget => widget.name === name).value = value;
            }""",
            [kind, widget, value],
        )

    def drag_box(self, kind: str, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Drag a box on the picture of the first node of this type, between two points relative to its sides."""
        self._page.wait_for_function(_FACE, arg=kind, timeout=60000)
        self._page.wait_for_timeout(6000)  # until the node has asked the server
        x, y, width, height = self._page.evaluate(_FACE, kind)
        corners = [(x + part[0] * width, y + part[1] * height) for part in (start, end)]
        self._page.mouse.move(*corners[0])
        self._page.mouse.down()
        self._page.mouse.move(*corners[1], steps=4)
        self._page.mouse.up()
        self._page.wait_for_timeout(500)

    def drop(self, file: Path, kind: str | None = None) -> None:
        """Drag a file onto the canvas, or onto the first node of a type."""
        x, y = (600, 800) if kind is None else self._page.evaluate(_PLACE, kind)
        content = base64.b64encode(file.read_bytes()).decode()
        self._page.evaluate(_DROP, [file.name, mimetypes.guess_type(file.name)[0], content, x, y])
        self._page.wait_for_timeout(3000)

    def clear(self) -> None:
        """Clear the canvas."""
        self._page.evaluate("() => window.app.graph.clear()")

    def press_run(self) -> None:
        """Click the Run button."""
        self._page.get_by_test_id("queue-button").click()

    def played(self, kind: str, file: str, seconds: float) -> float:
        """Wait until the first node of this type plays a file; returns its length in seconds."""
        return self._page.wait_for_function(_PLAYED, arg=[kind, file], timeout=seconds * 1000).json_value()

    def problems(self) -> list[str]:
        """Unknown node types, invalid values, dialogs, and errors of the page's scripts."""
        return self._page.evaluate(_PROBLEMS) + self._errors

    def run(self, seconds: float) -> str:
        """Press Run and wait for the end; returns "execution_success " or the error."""
        return self._page.evaluate(_RUN, seconds * 1000)

    def picture(self, path: Path) -> None:
        """A picture of the whole graph, as JPEG."""
        corners = self._page.evaluate(_FRAME)
        self._page.wait_for_timeout(6000)  # for the player to show its first frame
        self._page.screenshot(path=path, type="jpeg", quality=85, clip=corners)


@contextmanager
def frontend(url: str, width: int = 2400, height: int = 1000) -> Iterator[Frontend]:
    """The frontend of the ComfyUI at `url`, in a new profile that can reach no other address."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        context = browser.new_context(viewport={"width": width, "height": height})
        local = (url, url.replace("http", "ws", 1), "data:", "blob:")
        context.route("**/*", lambda route: route.continue_() if route.request.url.startswith(local) else route.abort())
        settings = {
            "Comfy.TutorialCompleted": True,  # or the Templates dialog would cover the graph
            "Comfy.Minimap.Visible": False,
        }
        context.request.post(f"{url}/settings", data=settings)
        page, errors = context.new_page(), []
        page.on("pageerror", lambda error: errors.append(f"page error: {error.message}"))
        page.goto(url)
        page.wait_for_function(_READY, timeout=600000)
        page.wait_for_timeout(3000)
        page.keyboard.press("Escape")  # what the page says about its own first graph
        page.wait_for_timeout(1000)
        yield Frontend(page, errors)
        browser.close()
