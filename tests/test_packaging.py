"""What ComfyUI and its registry read about the pack agrees, and leaves the user's torch alone."""

import re
from pathlib import Path

import pytest

tomllib = pytest.importorskip("tomllib")  # Python 3.11 on

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def lines(name: str) -> list[str]:
    text = (ROOT / name).read_text()
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def test_requirements_are_the_projects_dependencies() -> None:
    assert lines("requirements.txt") == PROJECT["dependencies"]


def test_torch_is_not_pinned() -> None:
    assert "torch" in PROJECT["dependencies"]


def test_every_requirement_has_a_tested_version() -> None:
    pinned = {line.partition("==")[0].lower() for line in lines("constraints.txt")}
    extras = PROJECT["optional-dependencies"]
    for requirement in PROJECT["dependencies"] + extras["synth"] + extras["test"]:
        assert re.split(r"[<>=]", requirement)[0] in pinned
