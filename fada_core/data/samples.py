"""Clips as all sources give them, encoded clips as all trainings read them, and the cache of encoded clips."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from ..atomic import DAY, remove_leftovers, whole_file
from ..errors import FadaError
from ..models.networks import Networks
from ..records import FLAG, Kind, RecordError, check, choice, number, parse_json, text
from .faces import clip_box

log = logging.getLogger("fada.data")

Pool = Literal["high", "moderate"]
MOUTH_WEIGHT = 12.0  #: added to the weight of latent cells under the mouth, which are few, and show the speech
EYES_WEIGHT = 3.0
_ENCODED_AT_ONCE = 32  # frames; limits the autoencoder's memory for long clips


@dataclass(frozen=True)
class ClipSample:
    """An encoded clip, on the CPU."""

    id: str
    pool: Pool
    quality: float  #: 0..1, confidence in this clip as ground truth (`quality.overall`)
    portrait: Tensor  #: latents of the reference picture, (c, h, w) float16
    latents: Tensor  #: of the footage, (frames, c, h, w) float16
    target_latents: Tensor | None
    """A better ground truth than `latents`, (frames, c, h, w) float16; None: there is none.

    Footage of the moderate pool has none: L_gt compares with its frames including their defects, and `quality` is the
    confidence in them. Avatars have one with `AvatarSet.clean`, as an upper bound."""
    audio: Tensor  #: audio features, (frames, layers, dim) float32
    weights: Tensor  #: of the loss, (frames, 1, h, w) float16; ones where no boxes are known
    silent: bool  #: without speech
    face: Tensor | None = None  #: box for the whole clip, (4,) x0 y0 x1 y1 relative to the picture; None: unknown
    lips: Tensor | None = None  #: the same of the lips
    identity: Tensor | None = None  #: face embedding, (identity_dim,); None: unknown


class ClipDataset(Protocol):
    """Encoded clips by index; an index gives the same clip in every process and every run."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> ClipSample: ...


@dataclass(frozen=True)
class RawClip:
    """A clip before it is encoded: pictures and sound in memory, boxes in pixels of the pictures."""

    pool: Pool
    quality: float
    portrait: Tensor  #: (3, size, size) uint8
    frames: Tensor  #: (n, 3, size, size) uint8
    waveform: Tensor  #: (samples,) float32 mono 16 kHz
    fps: float
    silent: bool
    mouth_boxes: Tensor | None = None  #: (n, 4) x0 y0 x1 y1
    eyes_boxes: Tensor | None = None
    face_boxes: Tensor | None = None  #: around the whole face
    identity: Tensor | None = None  #: face embedding, (d,)
    clean_frames: Tensor | None = None  #: see `ClipSample.target_latents`


class BadClipError(Exception):
    """A clip cannot be used: `id` names it, the message says why. Trainings leave such clips out and continue."""

    def __init__(self, id: str, reason: str) -> None:
        super().__init__(reason)
        self.id = id


class ClipSource(Protocol):
    """A source of clips to encode. Both methods may raise `BadClipError`."""

    def __len__(self) -> int: ...

    def key(self, index: int) -> tuple[str, str]:
        """The clip's id, which is unique in the source and a valid file name, and a text that changes with the clip."""

    def fetch(self, index: int) -> RawClip: ...


@dataclass(frozen=True)
class EncodedClips:
    """Clips in a cache folder, read one at a time; `bad`: (id, reason) of clips that could not be used."""

    paths: Sequence[Path]
    pools: Sequence[Pool]
    bad: Sequence[tuple[str, str]] = field(default_factory=tuple)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> ClipSample:
        with safe_open(self.paths[index], "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            return build_sample(tensors, json.loads(file.metadata()["clip"]))

    def counts(self) -> dict[Pool, int]:
        """Number of clips of each pool."""
        return count_pools(self.pools)


def count_pools(pools: Sequence[Pool]) -> dict[Pool, int]:
    """Number of occurrences of each pool."""
    return {pool: pools.count(pool) for pool in sorted(set(pools))}


def build_sample(tensors: dict[str, Tensor], facts: Facts) -> ClipSample:
    """A sample from the tensors (by field name) and facts that `encode_clips` stores.

    Raises:
        BadClipError: tensors are missing.
    """
    for name in ("portrait", "latents", "audio", "weights"):
        if name not in tensors:
            raise BadClipError(facts["id"], f"it has no {name}")
    return ClipSample(
        id=facts["id"],
        pool=facts["pool"],
        quality=facts["quality"],
        silent=facts["silent"],
        portrait=tensors["portrait"],
        latents=tensors["latents"],
        target_latents=tensors.get("target_latents"),
        audio=tensors["audio"],
        weights=tensors["weights"],
        face=tensors.get("face"),
        lips=tensors.get("lips"),
        identity=tensors.get("identity"),
    )


def encode_clips(
    source: ClipSource, networks: Networks, accelerator: Accelerator, cache: Path, most: int | None = None
) -> EncodedClips:
    """Encode the latents and audio features of all clips of a source, each once, in a file of its own.

    The files are in a folder of `cache` whose name depends on the encoders' weights, so that latents of other weights
    are never used. If interrupted, the next call resumes; a clip that has changed at its source is encoded again.
    Several processes share the work. Clips that cannot be used are logged with the reason, and left out.

    Args:
        most: number of usable clips after which each process stops.

    Raises:
        FadaError: the source has no usable clip.
    """
    folder = cache / encoder_fingerprint(networks)
    folder.mkdir(parents=True, exist_ok=True)
    if accelerator.is_main_process:
        remove_leftovers(folder, older=DAY)
    mine = range(accelerator.process_index, len(source), accelerator.num_processes)
    found: list[tuple[int, str, Pool]] = []  # index, id, pool
    bad: list[tuple[str, str]] = []
    for index in tqdm(mine, desc="encoding clips", mininterval=5, disable=not accelerator.is_main_process):
        if len(found) == most:
            break
        try:
            name, digest = source.key(index)
            path = folder / f"{name}.safetensors"
            facts = _cached_facts(path, digest)
            if facts is None:
                facts = _encode(source.fetch(index), name, digest, path, networks, accelerator)
            check_facts(facts, networks)
            found.append((index, name, facts["pool"]))
        except BadClipError as error:
            bad.append((error.id, str(error)))
    found, bad = sorted(gather_object(found)), gather_object(bad)
    if accelerator.is_main_process:
        report_bad(bad, len(source))
    if not found:
        first = f" ({bad[0][0]}: {bad[0][1]})" if bad else ""
        raise FadaError(f"None of the {len(source)} clips can be used{first}; correct the data set.")
    return EncodedClips(
        [folder / f"{name}.safetensors" for _, name, _ in found],
        [pool for _, _, pool in found],
        bad,
    )


def check_facts(facts: Facts, networks: Networks) -> None:
    """Check that a clip fits the networks.

    Raises:
        BadClipError: it has fewer frames than a clip with its motion frames, or the identity embedding of another
            network.
    """
    needed = networks.config.clip_frames + networks.config.motion_frames
    if facts["frames"] < needed:
        raise BadClipError(facts["id"], f"it is too short, {facts['frames']} frames where {needed} are needed")
    wanted, given = networks.config.condition.identity_dim, facts.get("identity", 0)
    if wanted and given not in (0, wanted):
        raise BadClipError(facts["id"], f"its identity has {given} numbers where {wanted} are needed")


def report_bad(bad: Sequence[tuple[str, str]], total: int) -> None:
    """Log which clips are left out, and why."""
    for name, reason in bad:
        log.warning("left out %s: %s", name, reason)
    if bad:
        log.warning("%d of %d clips are left out", len(bad), total)


def encoder_fingerprint(networks: Networks) -> str:
    """Twelve hex digits that change with the autoencoder, the audio encoder, the picture size or the frame rate."""
    config = networks.config
    digest = hashlib.sha256(repr((config.vae, config.audio, config.size, config.fps)).encode())
    for part in (networks.vae, networks.audio_encoder):
        for name, value in sorted(part.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:12]


def box_mask(boxes: Tensor, size: int, margin: float = 2.0) -> Tensor:
    """Masks (n, 1, size, size): 1 inside the boxes (n, 4) x0 y0 x1 y1 in pixels, extended by `margin`; 0 outside."""
    axis = torch.arange(size) + 0.5
    x0, y0, x1, y1 = (boxes + torch.tensor([-margin, -margin, margin, margin])).unbind(-1)
    inside_x = (axis >= x0[:, None]) & (axis <= x1[:, None])
    inside_y = (axis >= y0[:, None]) & (axis <= y1[:, None])
    return (inside_y[:, None, :, None] & inside_x[:, None, None, :]).float()


def loss_weights(clip: RawClip, grid: int) -> Tensor:
    """Weights (frames, 1, grid, grid): 1, and more in cells that the mouth or the eyes cover, by the covered share."""
    weights = torch.ones(len(clip.frames), 1, grid, grid)
    for boxes, weight in ((clip.mouth_boxes, MOUTH_WEIGHT), (clip.eyes_boxes, EYES_WEIGHT)):
        if boxes is not None:
            weights += weight * F.adaptive_avg_pool2d(box_mask(boxes, clip.frames.shape[-1]), grid)
    return weights


Facts = dict[str, Any]
"""The stored facts of a clip besides its tensors, described by `FACTS`."""
FACTS: dict[str, Kind] = {
    "id": text(longest=300),
    "pool": choice("high", "moderate"),
    "quality": number(0, 1),
    "silent": FLAG,
    "frames": number(1, 10**6, whole=True),
    "identity": number(0, 10**6, whole=True),
    "digest": text(),
    "encoders": text(longest=64),
}


def read_facts(content: str | bytes) -> Facts:
    """Parse the stored facts of a clip.

    Raises:
        RecordError: they are damaged.
    """
    facts = parse_json(content)
    check(facts, FACTS, ("id", "pool", "quality", "silent", "frames", "encoders"))
    return facts


def _cached_facts(path: Path, digest: str) -> Facts | None:
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            facts = read_facts((file.metadata() or {}).get("clip", ""))
    except (SafetensorError, RecordError):  # incomplete, for example after an interrupted copy
        return None
    return facts if facts.get("digest") == digest else None


def _encode(clip: RawClip, name: str, digest: str, path: Path, networks: Networks, accelerator: Accelerator) -> Facts:
    facts = {
        "id": name,
        "pool": clip.pool,
        "quality": clip.quality,
        "silent": clip.silent,
        "frames": len(clip.frames),
        "identity": 0 if clip.identity is None else len(clip.identity),
        "digest": digest,
        "encoders": path.parent.name,
    }
    check_facts(facts, networks)  # before the work
    config = networks.config
    with torch.inference_mode(), accelerator.autocast():
        tensors = {
            "portrait": _latents(clip.portrait[None], networks)[0],
            "latents": _latents(clip.frames, networks),
            "audio": networks.audio_encoder.encode(clip.waveform.to(networks.device), len(clip.frames), clip.fps)
            .float()
            .cpu(),
        }
        if clip.clean_frames is not None:
            tensors["target_latents"] = _latents(clip.clean_frames, networks)
    tensors["weights"] = loss_weights(clip, config.sides[0]).half()
    size = clip.frames.shape[-1]
    known = {
        "face": clip_box(clip.face_boxes, size),
        "lips": clip_box(clip.mouth_boxes, size),
        "identity": clip.identity,
    }
    tensors |= {kind: value for kind, value in known.items() if value is not None}
    for kind, value in tensors.items():
        if not value.isfinite().all():
            raise BadClipError(name, f"its {kind} came out as NaN or infinite")
    with whole_file(path, shared=True) as partial:
        save_file({kind: value.contiguous() for kind, value in tensors.items()}, partial, {"clip": json.dumps(facts)})
    return facts


def _latents(frames: Tensor, networks: Networks) -> Tensor:
    """(n, 3, h, w) uint8 -> (n, c, h/d, w/d) float16 on the CPU."""
    dtype = next(networks.vae.parameters()).dtype
    parts = []
    for part in frames.split(_ENCODED_AT_ONCE):
        images = part.to(networks.device).to(dtype) / 127.5 - 1
        # Converted to float16 at the end: autocast on the CPU cannot concatenate float16.
        parts.append(networks.vae.encode(images.contiguous(memory_format=torch.channels_last)).float().cpu())
    return torch.cat(parts).half()
