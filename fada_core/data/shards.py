"""Encoded clips in WebDataset tars: written, and read by index.

Each clip has two members, `<id>.safetensors` (its tensors) and `<id>.json` (everything else). Tars are written by the
`webdataset` library, and any reader of that format can stream them. Here they are read by the offsets of their members,
because exact resume needs clips by index, in any order.
"""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load
from torch import Tensor
from tqdm import tqdm

from ..errors import FadaError
from ..models.networks import Networks
from ..records import MAX_LINE, RecordError
from .samples import (
    BadClipError,
    ClipSample,
    EncodedClips,
    Facts,
    Pool,
    build_sample,
    check_facts,
    count_pools,
    encoder_fingerprint,
    read_facts,
    report_bad,
)


def write_shards(clips: EncodedClips, folder: Path, max_megabytes: int = 1000) -> list[Path]:
    """Pack `clips` into `folder`/clips-000000.tar, ..., replacing existing tars; returns the files.

    Raises:
        FadaError: the `webdataset` library is not installed.
    """
    try:
        import webdataset
    except ImportError as error:
        raise FadaError("Writing shards needs the webdataset library; run `pip install webdataset`.") from error
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("clips-*.tar.partial"):
        left.unlink()
    # With "file:", because webdataset takes a Windows path's drive for a protocol.
    pattern = f"file:{(folder / 'clips-%06d.tar.partial').as_posix()}"
    with webdataset.ShardWriter(pattern, maxsize=max_megabytes * 2**20, verbose=0) as writer:
        for path in tqdm(clips.paths, desc="packing clips", mininterval=5):
            with safe_open(path, "pt") as file:
                facts = json.loads(file.metadata()["clip"])
            writer.write({"__key__": facts["id"], "json": facts, "safetensors": path.read_bytes()})
    for old in folder.glob("clips-*.tar"):
        old.unlink()
    return [made.replace(made.with_suffix("")) for made in sorted(folder.glob("clips-*.tar.partial"))]


@dataclass(frozen=True)
class _Member:
    shard: Path
    offset: int
    size: int
    facts: Facts


class ShardClips:
    """The clips of all tars in a folder, or of one tar, as a `samples.ClipDataset`; only their facts are in memory.

    Args:
        path: a folder of .tar files, or one of them.
        networks: the networks whose encoders made the tars.
        pools: the pools to use.

    Raises:
        FadaError: no tar, an incomplete tar, latents of other encoders, or no usable clip.
    """

    def __init__(self, path: str | Path, networks: Networks, pools: tuple[Pool, ...] = ("high", "moderate")) -> None:
        path = Path(path)
        shards = sorted(path.glob("*.tar")) if path.is_dir() else [path]
        if not shards or not shards[0].is_file():
            raise FadaError(f"There are no shards at '{path}'; give a folder of .tar files, or one of them.")
        members = [member for shard in shards for member in _members(shard)]
        fingerprint = encoder_fingerprint(networks)
        for member in members:
            if member.facts["encoders"] != fingerprint:
                raise FadaError(
                    f"'{member.shard.name}' was made with other encoders than this model's; make the shards again with "
                    "`python -m fada_core.prepare --shards` and this model."
                )
        self._members: list[_Member] = []
        bad = []
        for member in members:
            try:
                check_facts(member.facts, networks)
            except BadClipError as error:
                bad.append((error.id, str(error)))
            else:
                if member.facts["pool"] in pools:
                    self._members.append(member)
        report_bad(bad, len(members))
        if not self._members:
            raise FadaError(f"The shards at '{path}' have no usable clip of the pools {', '.join(pools)}.")

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, index: int) -> ClipSample:
        member = self._members[index]
        try:
            return build_sample(_tensors(member), member.facts)
        except (SafetensorError, BadClipError) as error:
            raise FadaError(
                f"The clip '{member.facts['id']}' in '{member.shard.name}' is damaged ({error}); copy or make the tar "
                "again."
            ) from error

    def counts(self) -> dict[Pool, int]:
        """How many clips each pool has."""
        return count_pools([member.facts["pool"] for member in self._members])


def _tensors(member: _Member) -> dict[str, Tensor]:
    with member.shard.open("rb") as file:
        file.seek(member.offset)
        return load(file.read(member.size))


def _members(shard: Path) -> list[_Member]:
    found: dict[str, dict[str, tarfile.TarInfo]] = {}
    facts = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for info in tar:
                if not info.isreg() or info.issparse():
                    continue
                name, _, kind = info.name.rpartition(".")
                found.setdefault(name, {})[kind] = info
                if kind == "json":
                    facts[name] = read_facts(tar.extractfile(info).read(MAX_LINE + 1))  # type: ignore[union-attr]  # a file
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise FadaError(f"'{shard.name}' is no whole tar file ({error}); copy or make it again.") from error
    except RecordError as error:
        raise FadaError(f"'{shard.name}' cannot be used: of {info.name}, {error}; make it again.") from error
    members = []
    for name, kinds in found.items():
        data = kinds.get("safetensors")
        if data is None or name not in facts or data.offset_data + data.size > shard.stat().st_size:
            raise FadaError(f"The clip '{name}' in '{shard.name}' is cut off; copy or make the tar again.")
        members.append(_Member(shard, data.offset_data, data.size, facts[name]))
    return members
