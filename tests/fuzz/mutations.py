"""Ways to damage a file: its bytes, or the JSON in it. All random draws are from the generator that is passed in."""

from __future__ import annotations

import json
from random import Random
from typing import Any

BYTES = (
    b"",
    b"\0",
    b"\xff",
    b"\n",
    b"{",
    b"PK\x03\x04",
    b"%!PS\n",
    b"#EXTM3U\n",
    b"\x80\x02",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 10**9, -(10**9), 10**18, 0.5, -0.5, 1e300, float("inf"), float("nan"), "", "x", "1",
    "NaN", "x" * 5000, "../outside", "\u2028", "\U0001f600", "a\nb", "nul", [], [0], [1, 2, 3, 4], [[]], ["x"],
    {}, {"x": 1},
)  # fmt: skip
"""What takes the place of a value in JSON."""


def spoil_bytes(content: bytes, random: Random) -> bytes:
    """The content with one to four random changes."""
    data = bytearray(content)
    for _ in range(random.randint(1, 4)):
        start = random.randrange(len(data) + 1)
        # As often as anywhere, in the beginning: there the headers are.
        start = min(start, random.randrange(1, 4096)) if random.random() < 0.5 else start
        length = random.choice((1, 1, 2, 4, 8, 64, 1024))
        change = random.randrange(8)
        if change == 0:
            del data[start:]
        elif change == 1:
            data[start : start + length] = bytes(min(length, len(data) - start))
        elif change == 2:
            data[start : start + length] = random.randbytes(min(length, len(data) - start))
        elif change == 3:
            data[start:start] = random.choice(BYTES) + random.randbytes(random.choice((0, 1, 64)))
        elif change == 4:
            del data[start : start + length]
        elif change == 5:
            data[start:start] = data[start : start + 1024]
        elif change == 6 and start < len(data):
            data[start] ^= 1 << random.randrange(8)
        else:  # a field of a header: a size, a rate, a count
            number = random.choice((0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1))
            field = number.to_bytes(4, random.choice(("little", "big")))
            data[start : start + 4] = field[: len(data) - start]
    return bytes(data)


def spoil_json(value: Any, random: Random) -> Any:
    """A copy with one to three values, names or entries changed."""
    changed = json.loads(json.dumps(value))
    for _ in range(random.randint(1, 3)):
        places = list(_places(changed))
        if not places:
            return random.choice(VALUES)
        parent, name = random.choice(places)
        change = random.randrange(6)
        if change == 0:
            del parent[name]
        elif change == 1 and isinstance(parent, dict):
            parent[random.choice(("", "x", "\u2028", name.upper(), name + " "))] = parent.pop(name)
        elif change == 2 and isinstance(parent, list):
            parent *= random.choice((0, 2, 50))
        elif change == 3 and isinstance(parent[name], (int, float)):
            parent[name] = parent[name] * random.choice((-1, 0, 0.5, 2, 1000)) + random.choice((0, 1))
        elif change == 4:
            nested: Any = 1
            for _ in range(random.choice((2, 50, 200))):
                nested = [nested]
            parent[name] = nested
        else:
            parent[name] = random.choice(VALUES)
    return changed


def _places(value: Any) -> Any:
    """(container, name or index) of each entry."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, entry in list(entries):
        yield value, name
        yield from _places(entry)


def spoil_text(content: str, random: Random) -> bytes:
    """Text as an editor or a program may have written it, mostly intact."""
    encoding = random.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-be", "latin-1"))
    ends = random.choice(("\n", "\n", "\r\n", "\r", "\n\n"))
    written = content.replace("\n", ends).encode(encoding, "replace")
    return spoil_bytes(written, random) if random.random() < 0.5 else written
