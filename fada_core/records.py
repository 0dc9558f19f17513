"""Records from outside, read in one place: JSON, lists of one JSON object a line, YAML, and entries of metadata.

What is read is decoded (UTF-8, or UTF-16 as Windows writes it, with or without a byte order mark), within limits of
size and depth, and plain: whole numbers fit 64 bits, text can be printed and used in a path. Whoever asks says with
`Kind`s what each entry has to be.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from .errors import FadaError

MAX_FILE = 64 * 2**20  #: bytes of a file that is read as a whole
MAX_YAML = 2**18  #: bytes: YAML's parser takes some ten seconds for a megabyte
MAX_LINE = 2**20  #: bytes of one line of a list; lists themselves may be of any length
MAX_DEPTH = 32  #: objects within objects
MAX_ENTRIES = 1_000_000  #: of one record, counted as often as they are referred to (YAML's aliases)
_SURROGATE = re.compile("[\ud800-\udfff]")
MAX_DIGITS = 18  #: of a whole number: it then fits 64 bits


class RecordError(Exception):
    """Why a record cannot be used: a clause about "it", which the caller completes with file, line and remedy."""


@dataclass(frozen=True)
class Kind:
    """What an entry has to be."""

    wanted: str  #: for errors: "a whole number from 1 to 9"
    fits: Callable[[Any], bool]


def number(low: float = -math.inf, high: float = math.inf, *, whole: bool = False) -> Kind:
    """A finite number from `low` to `high`, both included; never true or false, which are numbers to Python."""
    kind = "a whole number" if whole else "a number"
    if math.isfinite(low) and math.isfinite(high):
        kind += f" from {low:g} to {high:g}"
    elif math.isfinite(low) or math.isfinite(high):
        kind += f" of at least {low:g}" if math.isfinite(low) else f" of at most {high:g}"
    types = int if whole else (int, float)

    def fits(value: Any) -> bool:
        plain = isinstance(value, types) and not isinstance(value, bool)
        return plain and math.isfinite(value) and low <= value <= high

    return Kind(kind, fits)


def text(pattern: str = ".*", wanted: str = "text", longest: int = 4096) -> Kind:
    """Text of at most `longest` characters that matches the whole pattern; `wanted` says how it looks."""
    compiled = re.compile(pattern, re.DOTALL)
    return Kind(wanted, lambda v: isinstance(v, str) and len(v) <= longest and compiled.fullmatch(v) is not None)


def choice(*options: str) -> Kind:
    """One of these words."""
    return Kind(f"one of {', '.join(options)}", lambda v: isinstance(v, str) and v in options)


FLAG = Kind("true or false", lambda v: isinstance(v, bool))
OBJECT = Kind("an object", lambda v: isinstance(v, dict))


def several(kind: Kind, least: int, most: int) -> Kind:
    """A list of `least` to `most` entries of a kind."""
    count = str(least) if least == most else f"{least} to {most}"

    def fits(value: Any) -> bool:
        return isinstance(value, list) and least <= len(value) <= most and all(map(kind.fits, value))

    return Kind(f"a list of {count}, each {kind.wanted}", fits)


def optional(kind: Kind) -> Kind:
    """The same, or null."""
    return Kind(f"{kind.wanted}, or null", lambda v: v is None or kind.fits(v))


def check(record: Any, kinds: Mapping[str, Kind], required: tuple[str, ...] = (), *, only: bool = False) -> None:
    """Raise RecordError unless `record` is an object with all of `required`, each entry as its kind says.

    Args:
        only: refuse entries that have no kind; else they are let be.
    """
    if not isinstance(record, dict):
        raise RecordError(f'it is {shown(record)}, not an object like {{"name": value}}')
    for name in required:
        if name not in record:
            raise RecordError(f"it has no '{name}'")
    for name, value in record.items():
        if name not in kinds:
            if only:
                raise RecordError(f"it has an unknown entry '{shortened(name)}'; known are {', '.join(kinds)}")
        elif not kinds[name].fits(value):
            raise RecordError(f"its {name} is {shown(value)}, not {kinds[name].wanted}")


def shown(value: Any) -> str:
    """A value as a message shows it: JSON, in ASCII, cut short."""
    return shortened(json.dumps(value, default=str))


def shortened(value: str, most: int = 60) -> str:
    """Text of at most `most` characters, of longer ones the beginning; what cannot be printed is a question mark."""
    cut = value if len(value) <= most else f"{value[: most - 4]} ..."
    return cut if cut.isprintable() else "".join(c if c.isprintable() else "?" for c in cut)


def parse_json(content: str | bytes, longest: int = MAX_LINE) -> Any:
    """The value of one JSON text of at most `longest` characters.

    Raises:
        RecordError: it is no JSON, beyond a limit, or has the same entry twice.
    """
    if len(content) > longest:
        raise RecordError(f"it is longer than {longest / 2**20:g} MB")
    try:
        value = json.loads(decoded(content), object_pairs_hook=_object, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise RecordError(f"it is no JSON ({error.msg}, column {error.colno})") from error
    except RecursionError as error:
        raise RecordError(f"it is nested more than {MAX_DEPTH} deep") from error
    _check_plain(value)
    return value


def read_json(path: Path, what: str) -> Any:
    """The value in a JSON file; `what` it is, for errors: "the list of models".

    Raises:
        FadaError: the file cannot be read, or is no JSON.
    """
    content = _content(path, what, MAX_FILE)
    try:
        return parse_json(content, MAX_FILE)
    except RecordError as error:
        raise FadaError(f"{_named(what, path)} cannot be used: {error}; correct or replace it.") from error


def read_json_lines(path: Path, what: str) -> Iterator[tuple[int, Any | RecordError]]:
    """Line number and value of each line that is not blank, or why there is no value, in memory of one line.

    Raises:
        FadaError: the file cannot be opened or read, or is UTF-16 and damaged.
    """
    with _opened(path, what) as file:
        start = file.read(4)
        file.seek(0)
        if _encoding(start) == "utf-8":
            lines = _lines(file)
        else:  # two bytes a character: no line can be told apart before it is decoded
            try:
                lines = iter(decoded(_content(path, what, MAX_FILE)).split("\n"))
            except RecordError as error:
                raise FadaError(f"{_named(what, path)} cannot be used: {error}.") from error
        for index, line in enumerate(lines, 1):
            if not isinstance(line, RecordError) and not line.strip():
                continue
            try:
                yield index, line if isinstance(line, RecordError) else parse_json(line)
            except RecordError as error:
                yield index, error


def read_yaml(path: Path, what: str) -> Any:
    """The value in a YAML file, of the types that JSON has.

    Raises:
        FadaError: the file cannot be read, or is no YAML.
    """
    content = _content(path, what, MAX_YAML)
    try:
        value = yaml.safe_load(decoded(content))
        _check_plain(value)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date on the 99th
        reason = " ".join(str(error).split())
        raise FadaError(f"{_named(what, path)} is not YAML ({shortened(reason, 200)}); correct it.") from error
    except RecursionError as error:
        raise FadaError(f"{_named(what, path)} is nested too deeply; correct it.") from error
    except RecordError as error:
        raise FadaError(f"{_named(what, path)} cannot be used: {error}; correct it.") from error
    return value


def decoded(content: str | bytes) -> str:
    """Text of these bytes, in UTF-8 or UTF-16.

    Raises:
        RecordError: they are neither.
    """
    if isinstance(content, str):
        return content.removeprefix("\ufeff")
    encoding = _encoding(content[:4])
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        byte = content[error.start]
        raise RecordError(
            f"byte {error.start + 1} of it, 0x{byte:02x}, is not {encoding.upper()}; save it as UTF-8"
        ) from error


def _encoding(start: bytes) -> str:
    """By the byte order mark, or by where the zeros of ASCII characters are."""
    if start.startswith(codecs.BOM_UTF16_LE) or (len(start) > 1 and start[0] and not start[1]):
        return "utf-16-le"
    if start.startswith(codecs.BOM_UTF16_BE) or (len(start) > 1 and not start[0] and start[1]):
        return "utf-16-be"
    return "utf-8"


def _named(what: str, path: Path) -> str:
    return f"{what[0].upper()}{what[1:]} '{path}'"


def _opened(path: Path, what: str) -> BinaryIO:
    try:
        # Not a pipe or a device, which may have no end.
        if path.exists() and not path.is_file():
            raise FadaError(f"{_named(what, path)} is no file; give the path of a file.")
        return path.open("rb")
    except OSError as error:
        raise FadaError(f"{_named(what, path)} cannot be read ({error.strerror}); check the path.") from error
    except ValueError as error:  # a zero byte in the path, or a name that the disk's encoding lacks
        raise FadaError(f"{_named(what, path)!r} cannot be read ({error}); check the path.") from error


def _content(path: Path, what: str, most: int) -> bytes:
    with _opened(path, what) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise FadaError(f"{_named(what, path)} is larger than {most / 2**20:g} MB; check that it is the one.")
    return content


def _lines(file: BinaryIO) -> Iterator[bytes | RecordError]:
    """Lines at line feeds alone: JSON's text may hold the other characters that Python takes for the end of one."""
    while line := file.readline(MAX_LINE + 1):
        if len(line) <= MAX_LINE:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE)
        yield RecordError(f"it is longer than {MAX_LINE / 2**20:g} MB")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    built: dict[str, Any] = {}
    for name, value in pairs:
        if name in built:
            raise RecordError(f"it has '{shortened(name)}' twice")
        built[name] = value
    return built


def _whole(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise RecordError(f"it has a number of {len(digits)} digits")
    return int(digits)


def _check_plain(value: Any) -> None:
    """Raise RecordError for what is nested too deep or endless, is of a type that JSON lacks, or holds text that
    cannot be printed."""
    waiting, entries = [(value, 1)], 0
    while waiting:
        value, depth = waiting.pop()
        entries += 1
        if entries > MAX_ENTRIES:
            raise RecordError(f"it has more than {MAX_ENTRIES} entries")
        if depth > MAX_DEPTH:
            raise RecordError(f"it is nested more than {MAX_DEPTH} deep")
        if isinstance(value, dict):
            waiting += [(entry, depth + 1) for pair in value.items() for entry in pair]
            if not all(isinstance(name, str) for name in value):
                raise RecordError("it has a name that is no text; put it in quotes")
        elif isinstance(value, list):
            waiting += [(entry, depth + 1) for entry in value]
        elif isinstance(value, str):
            if "\0" in value or _SURROGATE.search(value):
                raise RecordError(f"its text {shown(value)} has a character that no text can have")
        elif isinstance(value, int) and abs(value) >= 10**MAX_DIGITS:
            raise RecordError(f"it has a number of more than {MAX_DIGITS} digits")
        elif value is not None and not isinstance(value, bool | int | float):
            raise RecordError(f"it has a {type(value).__name__} ({value}); put it in quotes")
