"""Metadata for ComfyUI and its registry: the files agree, and none requires a version of torch."""

import re
import subprocess
import sys
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


def test_importing_the_core_imports_nothing_slow() -> None:
    """ComfyUI waits for this import at its start; beyond torch it should take well under a second."""
    slow = (
        "diffusers.models",
        "diffusers.schedulers.scheduling",
        "transformers.models.w",
        "numba",
        "scipy",
        "matplotlib",
    )
    code = f"import fada_core.pipeline, sys; print([name for name in sys.modules if name.startswith({slow})])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip() == "[]"
