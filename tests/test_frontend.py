"""Every shipped graph in ComfyUI's real frontend, in headless Chromium: it opens whole, and would run as its twin."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("comfyui_frontend_package", reason="comfyui-frontend-package is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from tests.comfy_browser import Frontend, frontend  # noqa: E402
from tests.frontend.serve import server  # noqa: E402

WORKFLOWS = Path(__file__).parents[1] / "workflows"
SUBGRAPHS = Path(__file__).parents[1] / "subgraphs"
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
        page.choose("FADASampler", "mode", mode)
        assert [name for name in page.widgets("FADASampler") if name.startswith("mode.")] == shown


def test_the_blueprint_opens(page):
    (path,) = SUBGRAPHS.glob("*.json")
    page.load(json.loads(path.read_text()))
    assert page.problems() == []
    kinds = {node["class_type"] for node in page.serialise()[0].values()}
    assert kinds == {"FADALoadModel", "FADAEncode", "FADASampler", "FADAVideoCombine"}
