"""Real footage by a JSONL manifest, one clip a line; every path is relative to the manifest and stays in its folder.

    {"id": "a-0001", "video": "clips/a-0001.mp4", "audio": "clips/a-0001.wav", "fps": 25, "pool": "high",
     "split": "train", "bbox": null, "boxes": "clips/a-0001.safetensors", "quality": {"sync_c": 6.1, "yaw": 12.0}}

`id`: letters, digits, - and _. `audio`: a sound file, or a video with sound (`video` itself, say). `bbox`: what to cut
out of the picture, [x0, y0, x1, y1] in pixels; null or missing: all of it. `quality`: scores as `quality.overall` knows
them. Optional: `boxes`, a safetensors file with `mouth`, `eyes` and `face` (whichever are known), (frames, 4) in the
video's pixels; `identity`, a safetensors file with the face's embedding `identity`, (d,), from the network whose
embeddings the model was trained with. Entries of other names are ignored.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import FadaError
from ..media.audio import SAMPLE_RATE, load_audio
from ..media.image import MIN_SIDE, to_square
from ..media.video import probe, read_video
from .quality import SILENT_SHARE, overall, speech_activity
from .samples import BadClipError, Pool, RawClip

ID = re.compile(r"[A-Za-z0-9_-]{1,150}")
FPS_TOLERANCE = 0.01  #: relative; 24000/1001 for 23.98, say


class ManifestSet:
    """The clips of a manifest that belong to `pools` and `split`, cut to squares of `size` pixels.

    Lines that cannot be read as an entry stay in the count, and come to light as `BadClipError` one by one.

    Args:
        path: the .jsonl file.
        size: side of the pictures, pixels.
        fps: frames per second that the model needs; clips of another rate are bad (`fada_core.prepare` converts them).
        pools: which to take.
        split: entries with this `split`; None: all. Entries without one belong to "train".

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
        for number, line in enumerate(self.path.read_bytes().splitlines(), 1):
            if not line.strip():
                continue
            try:
                row = _parsed(line, f"line {number}")
                if row["id"] in seen:
                    raise BadClipError(row["id"], f"its id was used before line {number}")
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
        """See `samples.ClipSource`; the text changes with the entry and with the files that it names."""
        row = self._row(index)
        texts = [json.dumps(row, sort_keys=True)]
        for name in ("video", "audio", "boxes", "identity"):
            if row.get(name) is not None:
                facts = self._file(row, name).stat()
                texts.append(f"{facts.st_size} {facts.st_mtime_ns}")
        return row["id"], " ".join(texts)

    def fetch(self, index: int) -> RawClip:
        """Decode one clip; the first frame is its portrait, and what lies past the end of the sound is cut off."""
        row = self._row(index)
        try:
            quality = overall(row["quality"])
            waveform = load_audio(self._file(row, "audio"))
            frames, corner, scale = self._frames(row, int(len(waveform) / SAMPLE_RATE * self.fps + 0.5))
        except (FadaError, av.FFmpegError) as error:
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
        return clip.frames[row].float() / 127.5 - 1, torch.stack(boxes)

    def _file(self, row: dict[str, Any], name: str) -> Path:
        relative = row.get(name)
        if not isinstance(relative, str):
            raise BadClipError(row["id"], f"it has no {name}")
        path = (self._root / relative).resolve()
        if not path.is_relative_to(self._root):
            raise BadClipError(row["id"], f"its {name} '{relative}' lies outside of the manifest's folder")
        if not path.is_file():
            raise BadClipError(row["id"], f"its {name} '{relative}' is missing")
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
        frames = []
        for picture in read_video(path):
            if len(frames) == most:
                break
            image = torch.from_numpy(picture[y0:y1, x0:x1]).permute(2, 0, 1)[None].float() / 127.5 - 1
            frames.append(((to_square(image, self.size) + 1) * 127.5).round().to(torch.uint8))
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
        return {name: value[:count].float() for name, value in boxes.items()}

    def _identity(self, row: dict[str, Any]) -> Tensor:
        embedding = self._tensors(row, "identity", ("identity",)).get("identity")
        if embedding is None or embedding.ndim != 1 or not embedding.isfinite().all():
            raise BadClipError(row["id"], "its identity file has no embedding 'identity' of finite numbers, (d,)")
        return embedding.float()

    def _tensors(self, row: dict[str, Any], entry: str, names: Sequence[str]) -> dict[str, Tensor]:
        """Those of the tensors `names` that the file of this entry has."""
        try:
            with safe_open(self._file(row, entry), "pt") as file:
                return {name: file.get_tensor(name) for name in names if name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise BadClipError(row["id"], f"its {entry} cannot be read ({error})") from error


def _parsed(line: bytes, where: str) -> dict[str, Any]:
    """An entry with everything that does not need its files checked."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise BadClipError(where, f"it is no JSON ({error})") from error
    if not isinstance(row, dict):
        raise BadClipError(where, "it is no JSON object")
    name = row.get("id")
    if not isinstance(name, str) or not ID.fullmatch(name):
        raise BadClipError(where, f"its id {name!r} is not made of letters, digits, - and _")
    if row.get("pool") not in ("high", "moderate"):
        raise BadClipError(name, f"its pool {row.get('pool')!r} is neither high nor moderate")
    if not _is_number(row.get("fps")) or row["fps"] <= 0:
        raise BadClipError(name, f"its fps {row.get('fps')!r} is no positive number")
    box = row.get("bbox")
    if box is not None and not (isinstance(box, list) and len(box) == 4 and all(_is_number(v) for v in box)):
        raise BadClipError(name, f"its bbox {box!r} is not [x0, y0, x1, y1]")
    row["quality"] = row.get("quality") or {}
    if not isinstance(row["quality"], dict):
        raise BadClipError(name, f"its quality {row['quality']!r} is no JSON object")
    return row


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
