"""Every shipped graph in ComfyUI's frontend in a headless Chromium: it opens, and equals its API twin."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

pytest.importorskip("comfyui_frontend_package", reason="comfyui-frontend-package is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from fada_core.face.region import find_face  # noqa: E402
from tests.comfyui.browser import Frontend, frontend  # noqa: E402
from tests.comfyui.stand_in import server  # noqa: E402

WORKFLOWS = Path(__file__).parents[2] / "workflows"
SUBGRAPHS = Path(__file__).parents[2] / "subgraphs"
NAMES = sorted(path.stem for path in (WORKFLOWS / "api").glob("*.json"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Frontend]:
    with server(tmp_path_factory.mktemp("frontend")) as started:
        try:
            opened = frontend(started.url)
            made = opened.__enter__()
        except playwright.Error as error:
            if "Executable doesn't exist" not in str(error):
                raise
            pytest.skip("there is no Chromium: apt install chromium, or playwright install chromium")
        yield made
        opened.__exit__(None, None, None)


def test_every_twin_has_its_graph_and_picture():
    for suffix in ("json", "jpg"):
        assert sorted(path.stem for path in WORKFLOWS.glob(f"*.{suffix}")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_opens_whole_and_runs_as_its_twin(page, name):
    page.load(json.loads((WORKFLOWS / f"{name}.json").read_text()))
    assert page.serialise()[0] == json.loads((WORKFLOWS / "api" / f"{name}.json").read_text())
    assert page.problems() == []


def test_a_mode_shows_only_what_it_has(page):
    prompt = json.loads((WORKFLOWS / "api" / "talking_portrait.json").read_text())
    page.load_api(prompt)
    assert not [name for name in page.widgets("FADASampler") if name.startswith("mode.")]
    guided = ["mode.batch_branches", "mode.guidance_from", "mode.guidance_to"]
    for mode, shown in [("teacher", guided), ("fast", []), ("balanced", guided)]:
        page.set("FADASampler", "mode", mode)
        assert [name for name in page.widgets("FADASampler") if name.startswith("mode.")] == shown


def test_boxes_on_the_picture(page):
    """The square shown is the one of the run; dragging creates, moves and resizes a box inside the picture."""
    told = page.evaluate(
        """async () => {
            const {squareAround, parseBox, hit, dragged} = await import('/extensions/comfyui-fada/face_geometry.js');
            const box = [40, 50, 60, 70];
            return [
                squareAround(box, 0.4, 70, 90), squareAround(box, 0.4, 1000, 30),
                parseBox('1, 2 3 4'), parseBox('1 2 x 4'),
                hit(box, 41, 49, 3), hit(box, 50, 60, 3), hit(box, 10, 10, 3),
                dragged(box, 'inside', [50, 60], [95, 60], 70, 90), dragged(box, 0, [40, 50], [30, 45], 70, 90),
                dragged(null, null, [30, 30], [-5, 60], 70, 90),
            ];
        }"""
    )
    image, box = torch.zeros(1, 3, 90, 70), (40, 50, 60, 70)
    region = find_face(image, box=box, margin=0.4)
    flat = find_face(torch.zeros(1, 3, 30, 1000), box=(40, 2, 60, 22), margin=0.4)
    assert told[0] == [region.left, region.top, region.side]
    assert told[1][2] == flat.side
    assert told[2:] == [[1, 2, 3, 4], None, 0, "inside", None, [50, 50, 70, 70], [30, 45, 60, 70], [0, 30, 30, 60]]


def test_a_player_is_no_input(page):
    """Otherwise ComfyUI would treat an unchanged second run as a new one, and write the video again."""
    page.load(json.loads((WORKFLOWS / "talking_portrait.json").read_text()))
    before = page.serialise()[0]
    page.evaluate(
        """() => {
            for (const node of window.app.graph.nodes.filter(node => node.type.startsWith('FADA')))
                node.addDOMWidget('video-preview', 'video', document.createElement('div'), {canvasOnly: true});
        }"""
    )
    assert page.serialise()[0] == before


def test_the_face_is_in_the_node(page):
    page.load(json.loads((WORKFLOWS / "talking_portrait.json").read_text()))
    assert page.widgets("FADAEncode")[-2:] == ["face_index", "fada_face"]
    assert "fada_face" not in page.serialise()[0]["4"]["inputs"]


def test_the_blueprint_opens(page):
    (path,) = SUBGRAPHS.glob("*.json")
    page.load(json.loads(path.read_text()))
    assert page.problems() == []
    kinds = {node["class_type"] for node in page.serialise()[0].values()}
    assert kinds == {"FADALoadModel", "FADAEncode", "FADASampler", "FADAVideoCombine"}
