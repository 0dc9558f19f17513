"""One file <-> networks: what goes in comes out, and whatever is not a whole checkpoint is refused in a sentence."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fada_core.checkpoint import CheckpointInfo, load_checkpoint, read_info, save_checkpoint
from fada_core.errors import FadaError
from fada_core.models.networks import Networks
from tests.test_sampling import SMALL, make_networks

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
    """An autoencoder of another kind is looked for where the metadata says, and only there."""

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
