"""Records from outside: all encodings of editors are read, and invalid records are described by a clause."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from fada_core import records
from fada_core.errors import FadaError
from fada_core.records import (
    FLAG,
    MAX_LINE,
    RecordError,
    check,
    choice,
    number,
    optional,
    parse_json,
    read_json,
    read_json_lines,
    read_yaml,
    several,
    text,
)

LIST = '{"name": "Zoë"}\n\n{"name": "b\u2028c"}\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_lists_in_every_encoding_of_editors(tmp_path: Path, encoding: str) -> None:
    """Including Windows' line ends, and characters at which Python splits lines."""
    path = tmp_path / "list.jsonl"
    for content in (LIST, LIST.replace("\n", "\r\n"), LIST.rstrip("\n")):
        path.write_bytes(content.encode(encoding))
        assert list(read_json_lines(path, "the list")) == [(1, {"name": "Zoë"}), (3, {"name": "b\u2028c"})]
    path.write_bytes(LIST.split("\n")[0].encode(encoding))
    assert read_json(path, "the file") == {"name": "Zoë"}
    path.write_bytes("name: Zoë\n".encode(encoding))
    assert read_yaml(path, "the config") == {"name": "Zoë"}


def test_one_bad_line_is_one_bad_line(tmp_path: Path) -> None:
    lines = [b'{"a": 1}', '{"a": "ë"}'.encode("latin-1"), b'{"a":', b"[" * 9999, b'{"a": "' + b"x" * MAX_LINE + b'"}',
             b'{"a": 1' + b"0" * 5000 + b"}", b'{"a": 1, "a": 2}', b'{"a": "\\ud800"}', b'{"a": "\\u0000"}',
             b"{'a': 1}", b'{"a": 2}']  # fmt: skip
    path = tmp_path / "list.jsonl"
    path.write_bytes(b"\n".join(lines))
    read = dict(read_json_lines(path, "the list"))
    assert (read.pop(1), read.pop(11)) == ({"a": 1}, {"a": 2})
    assert all(isinstance(value, RecordError) for value in read.values())
    for number_, words in {
        2: "0xeb, is not UTF-8; save it as UTF-8", 3: "no JSON", 4: "nested more than", 5: "longer than 1 MB",
        6: "5001 digits", 7: "'a' twice", 8: "a character", 9: "a character", 10: "no JSON",
    }.items():  # fmt: skip
        assert words in str(read[number_]), number_


def test_files_that_are_none(tmp_path: Path) -> None:
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
    else:
        (tmp_path / "pipe").mkdir()
    (tmp_path / "odd.jsonl").write_bytes("{}".encode("utf-16") + b"\x00")
    for name, words in (
        ("nowhere", "The list '.*nowhere' cannot be read .No such file"),
        ("pipe", "pipe' is no file"),
        (".", "is no file"),
        ("n" * 300, "too long"),
        ("a\0b", "cannot be read"),
        ("odd.jsonl", "odd.jsonl' cannot be used: byte 7 of it"),
    ):
        with pytest.raises(FadaError, match=words):
            list(read_json_lines(tmp_path / name, "the list"))


def test_yaml_is_as_plain_as_json(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    bomb = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    for name, before in zip("bcdefgh", "abcdefg", strict=True):
        bomb += f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for content, words in (
        ("a: [1, 2", "is not YAML"),
        ("a: !!python/object/apply:os.system [ls]", "is not YAML"),
        (bomb, "more than 1000000 entries"),
        ("a: &a [*a]", "nested more than 32"),
        ("[" * 5000, "nested too deeply"),
        ("out: 2026-01-01", "a date .2026-01-01.; put it in quotes"),
        ("out: 2026-99-99", "is not YAML"),
        ("1: 2", "a name that is no text"),
        ("a: " + "9" * 400, "more than 18 digits"),
        ("#" * 2**19, "larger than 0.25 MB"),
    ):
        path.write_text(content)
        with pytest.raises(FadaError, match=f"The config '.*settings.yaml' .*{words}"):
            read_yaml(path, "the config")


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (number(), [1, -2.5], [True, "1", None, math.nan, math.inf, 1e999, [1]]),
        (number(1, 9, whole=True), [1, 9], [0, 10, 1.0, True]),
        (number(0.5), [0.5, 3], [0.4]),
        (text(r"[a-z]+", longest=3), ["abc"], ["", "abcd", "a\n", "A", 1]),
        (choice("a", "b"), ["a"], ["c", 1, None, []]),
        (FLAG, [True, False], [0, 1, "true"]),
        (several(number(), 2, 2), [[1, 2]], [[1], [1, 2, 3], [1, "2"], "12", None]),
        (optional(FLAG), [None, True], [0]),
    ],
)
def test_kinds(kind: records.Kind, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        check({"it": value}, {"it": kind})
    for value in bad:
        with pytest.raises(RecordError, match=f"its it is .*, not {kind.wanted}"):
            check({"it": value}, {"it": kind})


def test_records_are_objects_with_what_is_required() -> None:
    kinds = {"a": number(1, 3, whole=True)}
    check({"a": 1, "more": "x" * 9999}, kinds, ("a",))
    for record, words in (
        ([], r"it is \[\], not an object"),
        ({}, "it has no 'a'"),
        ({"a": "x" * 9999}, r'its a is "x+ \.\.\., not a whole number from 1 to 3'),
        ({"a": 1, "b": 2}, "an unknown entry 'b'; known are a"),
    ):
        with pytest.raises(RecordError, match=words):
            check(record, kinds, ("a",), only=True)


def test_json_is_what_json_reads() -> None:
    value = {"a": [1, -2.5e3, None, True, {"b": "ü\n"}], "c": ""}
    assert parse_json(json.dumps(value)) == parse_json(json.dumps(value, indent=1).encode()) == value
