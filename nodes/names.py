"""File names of FADA Video Combine: placeholders, folder, and the next free number."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import folder_paths

from ..fada_core.errors import FadaError

_DATE = re.compile(r"%date:([^%]*)%")
_PARTS = re.compile(r"yyyy|yy|MM?|dd?|hh?|mm?|ss?")
_FORMS = {"yyyy": "%Y", "yy": "%y", "M": "%m", "d": "%d", "h": "%H", "m": "%M", "s": "%S"}
_VALUE = re.compile(r"%([^%/\\]+)\.([^%/\\.]+)%")
_FORBIDDEN = re.compile(r'[\x00-\x1f<>:"|?*]')  #: characters that Windows does not allow; replaced on all systems


class Place(NamedTuple):
    """Path of an output file, and its folder in the form of ComfyUI's API."""

    path: Path  #: without suffix
    subfolder: str
    type: str  #: "output" or "temp"


def free_place(prefix: str, saved: bool, width: int, height: int, prompt: dict[str, Any] | None) -> Place:
    """The next free file name for a prefix, in ComfyUI's output folder if `saved`, else in its temp folder.

    `%date:yyyy-MM-dd%` and `%Node.input%` (with a node's title or type) are filled in here, as the browser does it for
    ComfyUI's own nodes; ComfyUI's server fills in %year%, %width% and the like.

    Raises:
        FadaError: the name leads out of the folder, or is not a valid file name.
    """
    folder = folder_paths.get_output_directory() if saved else folder_paths.get_temp_directory()
    name = _DATE.sub(lambda found: _date(found[1], datetime.now()), prefix)
    name = _VALUE.sub(lambda found: _value(found, prompt or {}), name)
    name = _FORBIDDEN.sub("_", name).strip()
    target = os.path.abspath(os.path.join(folder, os.path.normpath(name)))
    if not target.startswith(os.path.abspath(folder) + os.sep):
        raise FadaError(f"filename_prefix '{prefix}' leads out of ComfyUI's output folder; give a name inside of it.")
    try:
        full, stem, counter, subfolder, _ = folder_paths.get_save_image_path(name, folder, width, height)
        path = Path(full) / f"{stem}_{counter:05}_"
        with suppress(FileNotFoundError):
            path.with_name(f"{path.name}.webm.part").lstat()  # raises OSError if the name is too long
    except OSError as error:
        raise FadaError(
            f"filename_prefix '{prefix:.80}' is not a valid file name ({error.strerror}); change it."
        ) from error
    return Place(path, subfolder, "output" if saved else "temp")


def _date(pattern: str, now: datetime) -> str:
    """A date in the frontend's notation: two letters give two digits, a single letter omits leading zeros."""

    def part(found: re.Match[str]) -> str:
        text = found[0]
        if text in _FORMS:
            value = now.strftime(_FORMS[text])
            return value if text.startswith("y") else str(int(value))
        return now.strftime(_FORMS[text[0]])

    return _PARTS.sub(part, pattern)


def _value(found: re.Match[str], prompt: dict[str, Any]) -> str:
    """The value of a node's input in the graph; the placeholder itself if there is no such node or value."""
    node, name = found.groups()
    for entry in prompt.values():
        if node in (entry.get("_meta", {}).get("title"), entry["class_type"]):
            value = entry["inputs"].get(name)
            if isinstance(value, (str, int, float)):
                return re.sub(r"[/\\]", "_", str(value))
    return found[0]
