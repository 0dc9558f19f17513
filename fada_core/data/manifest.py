"""Real footage listed in a JSONL manifest, one clip per line; paths are relative to its folder and stay inside it.

    {"id": "a-0001", "video": "clips/a-0001.mp4", "audio": "clips/a-0001.wav", "fps": 25, "pool": "high",
     "split": "train", "bbox": null, "boxes": "clips/a-0001.safetensors", "quality": {"sync_c": 6.1, "yaw": 12.0}}

`id`: letters, digits, - and _. `audio`: a sound file or a video with sound, for example `video` itself. `bbox`: the
part of the picture to use, [x0, y0, x1, y1] in pixels; null or missing: all of it. `quality`: scores for
`quality.overall`. Optional: `boxes`, a safetensors file with any of `mouth`, `eyes` and `face`, (frames, 4) in the
video's pixels; `identity`, a safetensors file with the face embedding `identity`, (d,), from the network whose
embeddings the model was trained with. Other entries are ignored.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import FadaError
from ..media.audio import SAMPLE_RATE, load_audio
from ..media.image import MIN_SIDE, from_frame, from_uint8, to_bytes, to_square
from ..media.video import probe, read_video
from ..records import (
    OBJECT,
    Kind,
    RecordError,
    check,
    choice,
    number,
    optional,
    read_json_lines,
    several,
    shortened,
    text,
)
from .quality import SILENT_SHARE, overall, speech_activity
from .samples import BadClipError, Pool, RawClip

_PATH = text(wanted="a path", longest=1000)
KINDS: dict[str, Kind] = {
    "id": text(r"[A-Za-z0-9_-]+", "made of letters, digits, - and _", 150),
    "pool": choice("high", "moderate"),
    "fps": number(0.1, 1000),
    "split": text(longest=100),
    "video": _PATH,
    "audio": _PATH,
    "bbox": optional(several(number(-1e6, 1e6), 4, 4)),
    "quality": optional(OBJECT),
    "boxes": optional(_PATH),
    "identity": optional(_PATH),
}
"""Requirements on the entries of a line."""
MAX_BYTES = 2**31  #: of a clip's decoded pictures: two minutes at 512 pixels
_MAX_VALUES = 10**7  #: of a tensor of boxes
FPS_TOLERANCE = 0.01  #: relative, so that for example 23.98 stands for 24000/1001


class ManifestSet:
    """The clips of a manifest that belong to `pools` and `split`, cut to squares of `size` pixels.

    Invalid lines are counted as clips; `key` and `fetch` raise `BadClipError` for them.

    Args:
        path: the .jsonl file.
        size: side of the pictures in pixels.
        fps: frames per second that the model needs; clips of another rate are bad (`fada_core.prepare` converts them).
        pools: the pools to use.
        split: the split to use; None: all. Entries without a split belong to "train".

    Raises:
        FadaError: no such file, or no line in it for these pools and this split.
    """

    def __init__(
        self,
        path: str | Path,
        size: int,
        fps: float,
        pools: Sequence[Pool] = ("high", "moderate"),
        split: str | None = "train",
    ) -> None:
        self.path, self.size, self.fps = Path(path), size, fps
        if not self.path.is_file():
            raise FadaError(f"There is no manifest '{path}'; give a .jsonl file, as `fada_core.prepare` writes it.")
        self._root = self.path.resolve().parent
        self._rows: list[dict[str, Any] | BadClipError] = []
        seen: set[str] = set()
        for line, entry in read_json_lines(self.path, "the manifest"):
            try:
                row = _checked(entry, f"line {line}")
                if row["id"] in seen:
                    raise BadClipError(row["id"], f"its id was used before line {line}")
                seen.add(row["id"])
            except BadClipError as error:
                self._rows.append(error)
            else:
                if row["pool"] in pools and split in (None, row.get("split", "train")):
                    self._rows.append(row)
        if not self._rows:
            raise FadaError(f"'{self.path.name}' has no clip for split '{split}' in the pools {', '.join(pools)}.")

    def __len__(self) -> int:
        return len(self._rows)

    def _row(self, index: int) -> dict[str, Any]:
        row = self._rows[index]
        if isinstance(row, BadClipError):
            raise BadClipError(row.id, str(row))
        return row

    def key(self, index: int) -> tuple[str, str]:
        """See `samples.ClipSource`; the text changes with the entry and with its files."""
        row = self._row(index)
        texts = [json.dumps(row, sort_keys=True)]
        for name in ("video", "audio", "boxes", "identity"):
            if row.get(name) is not None:
                facts = self._file(row, name).stat()
                texts.append(f"{facts.st_size} {facts.st_mtime_ns}")
        return row["id"], " ".join(texts)

    def fetch(self, index: int) -> RawClip:
        """Decode one clip. The first frame is its portrait; frames after the end of the sound are left out."""
        row = self._row(index)
        try:
            quality = overall(row["quality"])
            longest = MAX_BYTES // (3 * self.size**2)
            waveform = load_audio(self._file(row, "audio"), duration=(longest + 1) / self.fps)
            frames, corner, scale = self._frames(row, int(len(waveform) / SAMPLE_RATE * self.fps + 0.5))
            if len(frames) > longest:
                raise FadaError(f"it is longer than {longest / self.fps:.0f} s; cut it into pieces")
        except FadaError as error:
            raise BadClipError(row["id"], str(error)) from error
        boxes = {}
        if row.get("boxes") is not None:
            boxes = {name: (value - corner) * scale for name, value in self._boxes(row, len(frames)).items()}
        identity = None if row.get("identity") is None else self._identity(row)
        activity = row["quality"].get("speech")
        return RawClip(
            pool=row["pool"],
            quality=quality,
            portrait=frames[0],
            frames=frames,
            waveform=waveform,
            fps=self.fps,
            silent=(speech_activity(waveform) if activity is None else activity) < SILENT_SHARE,
            mouth_boxes=boxes.get("mouth"),
            eyes_boxes=boxes.get("eyes"),
            face_boxes=boxes.get("face"),
            identity=identity,
        )

    def picture(self, index: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random frame (3, size, size) in -1..1, and the boxes of mouth and eyes, (2, 4) pixels; zeros if unknown."""
        clip = self.fetch(index)
        row = int(torch.randint(len(clip.frames), (), generator=generator))
        boxes = [torch.zeros(4) if known is None else known[row] for known in (clip.mouth_boxes, clip.eyes_boxes)]
        return from_uint8(clip.frames[row]), torch.stack(boxes)

    def _file(self, row: dict[str, Any], name: str) -> Path:
        relative = row.get(name)
        if relative is None:
            raise BadClipError(row["id"], f"it has no {name}")
        path = Path(os.path.realpath(self._root / relative))
        if not path.is_relative_to(self._root):
            raise BadClipError(row["id"], f"its {name} '{shortened(relative)}' lies outside of the manifest's folder")
        if not os.path.isfile(path):  # unlike Path.is_file, also False for invalid names
            raise BadClipError(row["id"], f"its {name} '{shortened(relative)}' is missing")
        return path

    def _frames(self, row: dict[str, Any], most: int) -> tuple[Tensor, Tensor, float]:
        """(n, 3, size, size) uint8; the square's upper left corner (x, y, x, y) in the video; the scale to `size`."""
        path = self._file(row, "video")
        facts = probe(path)
        for rate, whose in ((row["fps"], "its entry says"), (facts.fps, "its video has")):
            if abs(rate / self.fps - 1) > FPS_TOLERANCE:
                raise BadClipError(row["id"], f"{whose} {rate:g} fps where the model needs {self.fps:g}")
        box = [0, 0, facts.width, facts.height] if row.get("bbox") is None else row["bbox"]
        x0, y0, x1, y1 = (round(value) for value in box)
        if min(x0, y0) < 0 or x1 > facts.width or y1 > facts.height or min(x1 - x0, y1 - y0) < MIN_SIDE:
            raise BadClipError(row["id"], f"its bbox {box} does not fit {facts.width}x{facts.height} pixels")
        side = min(x1 - x0, y1 - y0)
        corner = torch.tensor([x0 + (x1 - x0 - side) // 2, y0 + (y1 - y0 - side) // 2]).repeat(2)
        frames: list[Tensor] = []
        for picture in read_video(path):
            if len(frames) == most:
                break
            if picture.shape[:2] != (facts.height, facts.width):
                raise BadClipError(row["id"], "its video changes the size of its pictures")
            image = to_square(from_frame(picture[y0:y1, x0:x1]), self.size)
            frames.append(to_bytes(image).permute(0, 3, 1, 2))
        if not frames:
            raise BadClipError(row["id"], "its video or its sound has no whole frame")
        return torch.cat(frames), corner, self.size / side

    def _boxes(self, row: dict[str, Any], count: int) -> dict[str, Tensor]:
        boxes = self._tensors(row, "boxes", ("mouth", "eyes", "face"))
        for name, value in boxes.items():
            if value.ndim != 2 or value.shape[1] != 4 or len(value) < count:
                raise BadClipError(
                    row["id"], f"its {name} boxes are {tuple(value.shape)} where ({count}, 4) are needed"
                )
            if not value.isfinite().all():
                raise BadClipError(row["id"], f"its {name} boxes hold NaN or infinite values")
        return {name: value[:count] for name, value in boxes.items()}

    def _identity(self, row: dict[str, Any]) -> Tensor:
        embedding = self._tensors(row, "identity", ("identity",)).get("identity")
        if embedding is None or embedding.ndim != 1 or not embedding.isfinite().all():
            raise BadClipError(row["id"], "its identity file has no embedding 'identity' of finite numbers, (d,)")
        return embedding

    def _tensors(self, row: dict[str, Any], entry: str, names: Sequence[str]) -> dict[str, Tensor]:
        """The tensors `names` in the file of this entry, as floats; missing ones are left out."""
        try:
            with safe_open(self._file(row, entry), "pt") as file:
                found = [name for name in names if name in file.keys()]  # noqa: SIM118 - not a dict
                if any(math.prod(file.get_slice(name).get_shape()) > _MAX_VALUES for name in found):
                    raise BadClipError(row["id"], f"its {entry} are larger than those of any clip")
                return {name: file.get_tensor(name).float() for name in found}
        except (SafetensorError, OSError) as error:
            raise BadClipError(row["id"], f"its {entry} cannot be read ({error})") from error


def _checked(entry: Any | RecordError, where: str) -> dict[str, Any]:
    """The entry of a line, after all checks that do not need its files."""
    try:
        if isinstance(entry, RecordError):
            raise entry
        check(entry, {"id": KINDS["id"]}, ("id",))
    except RecordError as error:
        raise BadClipError(where, str(error)) from error
    try:
        check(entry, KINDS, ("pool", "fps"))
    except RecordError as error:
        raise BadClipError(entry["id"], str(error)) from error
    return entry | {"quality": entry.get("quality") or {}}
