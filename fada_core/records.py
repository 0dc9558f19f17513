"""Reads and checks data from outside: JSON, JSON Lines, YAML and entries of metadata.

Text is decoded from UTF-8 or UTF-16 (as Windows writes it), with or without a byte order mark. Size, depth and number
of entries are limited; integers fit 64 bits, and strings can be printed and used in a path. The caller describes by
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
MAX_YAML = 2**18  #: bytes of a YAML file: its parser takes some ten seconds per megabyte
MAX_LINE = 2**20  #: bytes of one line of JSON Lines; the number of lines is not limited
MAX_DEPTH = 32  #: levels of nesting
MAX_ENTRIES = 1_000_000  #: of one record, each counted once per reference (YAML has aliases)
_SURROGATE = re.compile("[\ud800-\udfff]")
MAX_DIGITS = 18  #: of an integer, which then fits 64 bits


class RecordError(Exception):
    """A record that cannot be used. The text is a clause about "it"; the caller adds file, line and remedy."""


@dataclass(frozen=True)
class Kind:
    """A requirement on an entry's type and value."""

    wanted: str  #: for errors: "a whole number from 1 to 9"
    fits: Callable[[Any], bool]


def number(low: float = -math.inf, high: float = math.inf, *, whole: bool = False) -> Kind:
    """A finite number from `low` to `high`, both included. true and false, which Python counts as integers, are not."""
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
    """Text of at most `longest` characters that `pattern` matches in full; `wanted` describes it in errors."""
    compiled = re.compile(pattern, re.DOTALL)
    return Kind(wanted, lambda v: isinstance(v, str) and len(v) <= longest and compiled.fullmatch(v) is not None)


def choice(*options: str) -> Kind:
    """One of the strings `options`."""
    return Kind(f"one of {', '.join(options)}", lambda v: isinstance(v, str) and v in options)


FLAG = Kind("true or false", lambda v: isinstance(v, bool))
OBJECT = Kind("an object", lambda v: isinstance(v, dict))


def several(kind: Kind, least: int, most: int) -> Kind:
    """A list of `least` to `most` entries of the same kind."""
    count = str(least) if least == most else f"{least} to {most}"

    def fits(value: Any) -> bool:
        return isinstance(value, list) and least <= len(value) <= most and all(map(kind.fits, value))

    return Kind(f"a list of {count}, each {kind.wanted}", fits)


def optional(kind: Kind) -> Kind:
    """The given kind, or null."""
    return Kind(f"{kind.wanted}, or null", lambda v: v is None or kind.fits(v))


def check(record: Any, kinds: Mapping[str, Kind], required: tuple[str, ...] = (), *, only: bool = False) -> None:
    """Check that `record` is an object that has all `required` entries and whose entries fit their kinds.

    Args:
        only: refuse entries that `kinds` does not list; by default they are ignored.

    Raises:
        RecordError: it is not.
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
    """A value for an error message: as JSON, in ASCII, shortened."""
    return shortened(json.dumps(value, default=str))


def shortened(value: str, most: int = 60) -> str:
    """The first `most` characters of a text; characters that cannot be printed become question marks."""
    cut = value if len(value) <= most else f"{value[: most - 4]} ..."
    return cut if cut.isprintable() else "".join(c if c.isprintable() else "?" for c in cut)


def parse_json(content: str | bytes, longest: int = MAX_LINE) -> Any:
    """Parse a JSON text of at most `longest` characters (or bytes).

    Raises:
        RecordError: it is not JSON, exceeds a limit, or has an entry twice.
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
    """Read a JSON file. `what` names it in errors: "the list of models".

    Raises:
        FadaError: the file cannot be read, is not JSON, or exceeds a limit.
    """
    content = _content(path, what, MAX_FILE)
    try:
        return parse_json(content, MAX_FILE)
    except RecordError as error:
        raise FadaError(f"{_named(what, path)} cannot be used: {error}; correct or replace it.") from error


def read_json_lines(path: Path, what: str) -> Iterator[tuple[int, Any | RecordError]]:
    """Yield (line number, value) for each line of JSON Lines that is not blank; for a bad line, the value is the error.

    Only one line at a time is held in memory, except for UTF-16, which is read as a whole.

    Raises:
        FadaError: the file cannot be opened or read, or is damaged UTF-16.
    """
    with _opened(path, what) as file:
        start = file.read(4)
        file.seek(0)
        lines: Iterator[bytes | str | RecordError]
        if _encoding(start) == "utf-8":
            lines = _lines(file)
        else:  # two bytes per character: lines can be split only after decoding
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
    """Read a YAML file, restricted to the types of JSON. `what` names it in errors.

    Raises:
        FadaError: the file cannot be read, is not YAML, or exceeds a limit.
    """
    content = _content(path, what, MAX_YAML)
    try:
        value = yaml.safe_load(decoded(content))
        _check_plain(value)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date, like the 99th of a month
        reason = " ".join(str(error).split())
        raise FadaError(f"{_named(what, path)} is not YAML ({shortened(reason, 200)}); correct it.") from error
    except RecursionError as error:
        raise FadaError(f"{_named(what, path)} is nested too deeply; correct it.") from error
    except RecordError as error:
        raise FadaError(f"{_named(what, path)} cannot be used: {error}; correct it.") from error
    return value


def decoded(content: str | bytes) -> str:
    """Decode UTF-8 or UTF-16, and remove a byte order mark; a str is taken as decoded.

    Raises:
        RecordError: the bytes are neither.
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
    """The encoding, recognised by the byte order mark or by the position of ASCII characters' zero bytes."""
    if start.startswith(codecs.BOM_UTF16_LE) or (len(start) > 1 and start[0] and not start[1]):
        return "utf-16-le"
    if start.startswith(codecs.BOM_UTF16_BE) or (len(start) > 1 and not start[0] and start[1]):
        return "utf-16-be"
    return "utf-8"


def _named(what: str, path: Path) -> str:
    return f"{what[0].upper()}{what[1:]} '{path}'"


def _opened(path: Path, what: str) -> BinaryIO:
    try:
        # Refuse pipes and devices, which may be endless.
        if path.exists() and not path.is_file():
            raise FadaError(f"{_named(what, path)} is no file; give the path of a file.")
        return path.open("rb")
    except OSError as error:
        raise FadaError(f"{_named(what, path)} cannot be read ({error.strerror}); check the path.") from error
    except ValueError as error:  # a zero byte in the path, or a character that the file system's encoding lacks
        raise FadaError(f"{_named(what, path)!r} cannot be read ({error}); check the path.") from error


def _content(path: Path, what: str, most: int) -> bytes:
    with _opened(path, what) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise FadaError(f"{_named(what, path)} is larger than {most / 2**20:g} MB; check that it is the one.")
    return content


def _lines(file: BinaryIO) -> Iterator[bytes | str | RecordError]:
    """Split at line feeds only: JSON strings may contain the other characters at which str.splitlines() splits."""
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
    """Raise RecordError if `value` is nested too deeply or endlessly, has a type that JSON lacks, or holds text with
    characters that no file name can have."""
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
