"""Checkpoints: they are read as written, and invalid files are refused with a message."""

from __future__ import annotations

import json
import math
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fada_core.checkpoint import CheckpointInfo, checkpoint_metadata, load_checkpoint, read_info, save_checkpoint
from fada_core.errors import FadaError
from fada_core.models.networks import Networks
from tests.support.networks import SMALL, make_networks

Tensors = dict[str, torch.Tensor]
Metadata = dict[str, str]


@pytest.fixture(scope="module")
def networks() -> Networks:
    return make_networks(SMALL)


@pytest.fixture
def checkpoint(tmp_path: Path, networks: Networks) -> Path:
    path = tmp_path / "small.safetensors"
    save_checkpoint(path, networks, CheckpointInfo("teacher", steps=7, ref_cfg=1.5, audio_cfg=3.0))
    return path


def rewritten(path: Path, change: Callable[[Tensors, Metadata], None]) -> Path:
    """The checkpoint with `change` applied to its tensors and metadata."""
    with safe_open(path, "pt") as file:
        metadata = dict(file.metadata())
    tensors = load_file(path)
    change(tensors, metadata)
    save_file(tensors, path, metadata)
    return path


def test_round_trip(checkpoint: Path, networks: Networks) -> None:
    loaded, info = load_checkpoint(checkpoint)
    assert loaded.config == SMALL
    assert (info.role, info.steps, info.ref_cfg, info.audio_cfg) == ("teacher", 7, 1.5, 3.0)
    assert read_info(checkpoint) == (SMALL, info)
    for name, value in networks.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=0, atol=0)


def test_half_precision_on_disk_is_loaded_as_float32(tmp_path: Path, networks: Networks) -> None:
    path = tmp_path / "half.safetensors"
    save_checkpoint(path, networks, CheckpointInfo("teacher"), dtype=torch.float16)
    assert {t.dtype for t in load_file(path).values() if t.is_floating_point()} == {torch.float16}
    assert load_checkpoint(path)[0].dtype == torch.float32
    assert load_checkpoint(path, dtype=torch.bfloat16)[0].dtype == torch.bfloat16


def test_weights_next_to_the_checkpoint(checkpoint: Path, networks: Networks) -> None:
    """An autoencoder of another kind is read from the path in the metadata, and from no other."""

    def outside(tensors: Tensors, metadata: Metadata) -> None:
        metadata["fada.vae"] = "../vae"

    with pytest.raises(FadaError, match="outside the checkpoint's folder"):
        load_checkpoint(rewritten(checkpoint, outside))

    def beside(tensors: Tensors, metadata: Metadata) -> None:
        metadata["fada.vae"] = "vae"

    with pytest.raises(FadaError, match="needs 'vae' in the same folder"):
        load_checkpoint(rewritten(checkpoint, beside))


def test_missing_file() -> None:
    with pytest.raises(FadaError, match=r"no model 'nowhere.safetensors'.*shipped model"):
        load_checkpoint("nowhere.safetensors")


def test_pickle_with_another_name(tmp_path: Path) -> None:
    for name, write in (
        ("torch.safetensors", lambda path: torch.save({"a": torch.zeros(1)}, path)),
        ("plain.safetensors", lambda path: path.write_bytes(pickle.dumps({"a": 1}, protocol=4))),
    ):
        path = tmp_path / name
        write(path)
        with pytest.raises(FadaError, match=f"{name} is a pickle"):
            load_checkpoint(path)


def test_truncated_file(checkpoint: Path) -> None:
    content = checkpoint.read_bytes()
    for length in (0, 5, 2000, len(content) // 2):
        checkpoint.write_bytes(content[:length])
        with pytest.raises(FadaError, match="not a whole safetensors file"):
            load_checkpoint(checkpoint)


def test_safetensors_of_something_else(tmp_path: Path) -> None:
    save_file({"lora.weight": torch.zeros(1)}, tmp_path / "lora.safetensors")
    with pytest.raises(FadaError, match="lora.safetensors has no 'fada.config'"):
        load_checkpoint(tmp_path / "lora.safetensors")


def test_missing_key(checkpoint: Path) -> None:
    def change(tensors: Tensors, metadata: Metadata) -> None:
        del tensors["denoising_unet.conv_in.weight"]

    with pytest.raises(FadaError, match=r"lacks 'denoising_unet.conv_in.weight' \(1 keys"):
        load_checkpoint(rewritten(checkpoint, change))


def test_unknown_key(checkpoint: Path) -> None:
    def change(tensors: Tensors, metadata: Metadata) -> None:
        tensors["surprise"] = torch.zeros(1)

    with pytest.raises(FadaError, match="unknown key 'surprise'"):
        load_checkpoint(rewritten(checkpoint, change))


def test_wrong_shape(checkpoint: Path) -> None:
    def change(tensors: Tensors, metadata: Metadata) -> None:
        tensors["denoising_unet.conv_in.bias"] = torch.zeros(3)

    with pytest.raises(FadaError, match=r"'denoising_unet.conv_in.bias' in .* has the shape \(3,\), not \(32,\)"):
        load_checkpoint(rewritten(checkpoint, change))


def test_config_of_a_newer_version(checkpoint: Path) -> None:
    def change(tensors: Tensors, metadata: Metadata) -> None:
        config = json.loads(metadata["fada.config"])
        config["unet"]["telepathy"] = True
        metadata["fada.config"] = json.dumps(config)

    with pytest.raises(FadaError, match=r"unknown entry 'unet.telepathy'"):
        load_checkpoint(rewritten(checkpoint, change))


def test_damaged_role(checkpoint: Path) -> None:
    def change(tensors: Tensors, metadata: Metadata) -> None:
        metadata["fada.role"] = "headmaster"

    with pytest.raises(FadaError, match="'headmaster', not teacher or student"):
        load_checkpoint(rewritten(checkpoint, change))


def entries(config: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all values of a config that are not objects."""
    for name, value in config.items():
        yield from entries(value, (*path, name)) if isinstance(value, dict) else [(*path, name)]


@pytest.mark.parametrize("place", list(entries(SMALL.to_dict())), ids=".".join)
def test_no_config_entry_is_built_beyond_its_range(
    place: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers out of range and other types give a message with the file's name, before memory is allocated."""

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("the networks are built")

    monkeypatch.setattr("fada_core.checkpoint.Networks", forbidden)
    path, metadata = tmp_path / "small.safetensors", checkpoint_metadata(SMALL, CheckpointInfo("teacher"))
    for value in (10**9, -(10**9), 1e9, 1e999, "x" * 300, None, [], [10**9] * 3, [1] * 99, {"a": 1}, 10**30):
        config = part = SMALL.to_dict()
        for name in place[:-1]:
            part = part[name]
        part[place[-1]] = value
        save_file({}, path, metadata | {"fada.config": json.dumps(config)})
        with pytest.raises(FadaError, match="small.safetensors"):
            load_checkpoint(path)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "7", "[" * 9999, '{"unet": 5}', '{"size": 32, "size": 64}', '{"name": "\\ud800"}',
     '{"vae": {"kind": "tiny", "latent_channels": 12}}', '{"unet": {"norm_groups": 7}}',
     '{"vae": {"decoder_blocks": [1], "kind": "tiny"}}', '{"vae": {"kind": "tiny", "decoder_widths": [9, 9, 9, 9, 9]}}',
     '{"schedule": {"prediction": "epsilon"}}', "x" * 2**21],
)  # fmt: skip
def test_a_broken_config_is_a_sentence(checkpoint: Path, content: str) -> None:
    rewritten(checkpoint, lambda _, metadata: metadata.update({"fada.config": content}))
    for read in (load_checkpoint, read_info):
        with pytest.raises(FadaError, match=r"(fada.config' in|config of) small.safetensors"):
            read(checkpoint)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("fada.steps", "0"), ("fada.steps", "7.5"), ("fada.steps", "1" + "0" * 5000), ("fada.steps", ""),
        ("fada.ref_cfg", "NaN"), ("fada.audio_cfg", "1e999"), ("fada.audio_cfg", "two"),
        ("fada.scale_ranges", "[[1, 2]]"), ("fada.scale_ranges", "[[3, 1], [1, 2]]"), ("fada.scale_ranges", "5"),
        ("fada.training", "[]"), ("fada.training", "{"),
    ],
)  # fmt: skip
def test_broken_facts_are_a_sentence(checkpoint: Path, name: str, content: str) -> None:
    rewritten(checkpoint, lambda _, metadata: metadata.update({name: content}))
    with pytest.raises(FadaError, match="metadata of small.safetensors cannot be used: it.*damaged"):
        read_info(checkpoint)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(checkpoint: Path, bad: float) -> None:
    """Their video would be black."""

    def change(tensors: Tensors, metadata: Metadata) -> None:
        tensors["denoising_unet.conv_in.bias"][3] = bad

    with pytest.raises(FadaError, match=r"'denoising_unet.conv_in.bias' in small.safetensors has values .* not finite"):
        load_checkpoint(rewritten(checkpoint, change))


def test_weights_of_another_type_are_refused(checkpoint: Path) -> None:
    def change(tensors: Tensors, metadata: Metadata) -> None:
        tensors["denoising_unet.conv_in.bias"] = torch.zeros(32, dtype=torch.int64)

    with pytest.raises(FadaError, match=r"conv_in.bias' in small.safetensors holds torch.int64"):
        load_checkpoint(rewritten(checkpoint, change))


def test_names_that_no_file_can_have(checkpoint: Path) -> None:
    for name in ("x" * 300, "vae\0"):
        with pytest.raises(FadaError, match="small.safetensors (is|needs)|in small.safetensors is no name"):
            load_checkpoint(rewritten(checkpoint, lambda _, metadata, name=name: metadata.update({"fada.vae": name})))
        with pytest.raises(FadaError, match="There is no model"):
            load_checkpoint(name)


def test_writing_is_whole_or_not_at_all(tmp_path: Path, networks: Networks, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "small.safetensors"
    save_checkpoint(path, networks, CheckpointInfo("teacher"))
    before = path.read_bytes()
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(FadaError, match="small.safetensors' needs .* GB and the disk has 0.00 GB left; make room"):
        save_checkpoint(path, networks, CheckpointInfo("student"))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
