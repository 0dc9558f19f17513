"""Folders as they are downloaded become checkpoints; whatever else is given, a sentence says what it is.

The files have the published names at a small width, from the lists of the parity fixtures, with random content.
"""

from __future__ import annotations

import io
import logging
import os
import pickle
import shutil
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from fada_core.checkpoint import as_linear, load_checkpoint, read_info
from fada_core.config import VAEConfig
from fada_core.convert.__main__ import ConvertConfig, convert, main
from fada_core.convert.files import read_tensors
from fada_core.convert.writer import write_tensors
from fada_core.errors import FadaError
from fada_core.models.vae import vae_weights
from fada_core.pipeline import Pipeline
from tests.support.public_models import Download, Tensors, echomimic_download, hallo_download, part, save_vae  # noqa: F401 - fixtures


def assert_equal_networks(path: Path, tensors: Tensors) -> None:
    state = load_checkpoint(path)[0].state_dict()
    own = {name: value for name, value in state.items() if not name.startswith(("vae.", "audio_encoder."))}
    expected = as_linear(tensors, own)
    for name, value in own.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)
    left_out = set(tensors) - set(own)
    dead = ("denoising_unet.down_blocks.3.motion_modules.", "denoising_unet.up_blocks.0.motion_modules.")
    assert all(name.startswith(dead) for name in left_out)


def test_hallo_folder(hallo: Download, tmp_path: Path) -> None:
    out = hallo.convert(tmp_path / "new" / "hallo.safetensors")
    config, info = read_info(out)
    assert (info.role, info.steps, info.ref_cfg, info.audio_cfg) == ("teacher", 40, 3.5, 3.5)
    assert "MIT" in info.license and "hallo" in info.source
    assert config == replace(hallo.model, vae=config.vae) and config.fps == 25 and config.vae.kind == "taesd"
    assert_equal_networks(out, hallo.tensors)
    assert list(out.parent.iterdir()) == [out]


def test_one_file_of_another_name(hallo: Download, tmp_path: Path) -> None:
    renamed = tmp_path / "hallo_fp16.safetensors"
    save_file(hallo.tensors, renamed)
    download = replace(hallo, folder=renamed)
    sides = {"vae": hallo.folder / "sd-vae-ft-mse", "audio_encoder": hallo.folder / "wav2vec/wav2vec2-base-960h"}
    assert_equal_networks(download.convert(tmp_path / "out.safetensors", **sides), hallo.tensors)


def test_halves_leave_the_audio_encoder_exact(hallo: Download, tmp_path: Path) -> None:
    for dtype, kind in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
        stored = load_file(hallo.convert(tmp_path / "half.safetensors", dtype))
        for name, value in stored.items():
            assert value.dtype == (torch.float32 if name.startswith("audio_encoder.") else kind)


def test_echomimic_folder(echomimic: Download, tmp_path: Path) -> None:
    with pytest.raises(FadaError, match="choose with --from"):
        echomimic.convert(tmp_path / "x.safetensors")
    out = echomimic.convert(tmp_path / "e.safetensors", family="echomimic")
    config, info = read_info(out)
    assert (info.role, info.steps, info.ref_cfg, info.audio_cfg) == ("teacher", 30, 2.5, 2.5)
    assert "Apache-2.0" in info.license and config.fps == 24
    assert_equal_networks(out, echomimic.tensors)


def test_accelerated_folder_to_frames(echomimic: Download, tmp_path: Path) -> None:
    """The denoising network's file may contain all motion modules, with a prefix of the training code."""
    out = echomimic.convert(tmp_path / "acc.safetensors", family="echomimic-acc")
    networks, info = load_checkpoint(out)
    assert (info.role, info.steps, info.scale_ranges) == ("student", 6, ((1.0, 1.0), (1.0, 1.0)))
    assert networks.config.control.kind == "none"
    assert_equal_networks(out, echomimic.tensors)
    pipe, size = Pipeline(networks, info), networks.config.size
    cond = pipe.encode(torch.zeros(1, 3, 50, 40), torch.zeros(3000), face_box=torch.ones(1, 1, size, size))
    frames = torch.cat([pipe.decode(latents) for latents in pipe.sample(cond, "fast", steps=1)])
    assert frames.shape == (5, 3, size, size) and frames.isfinite().all()


def test_networks_from_elsewhere_stay_where_they_are(hallo: Download, tmp_path: Path) -> None:
    with pytest.raises(FadaError, match="not in the folder of --out"):
        hallo.convert(tmp_path / "hallo.safetensors", refer=True)
    out = hallo.convert(hallo.folder / "referring.safetensors", refer=True)
    with safe_open(out, "pt") as file:
        assert file.metadata()["fada.vae"] == "sd-vae-ft-mse"
        assert file.metadata()["fada.audio_encoder"] == "wav2vec/wav2vec2-base-960h"
        assert not any(name.startswith(("vae.", "audio_encoder.")) for name in file.keys())  # noqa: SIM118
    assert_equal_networks(out, hallo.tensors)


def changed(hallo: Download, tmp_path: Path, change: Callable[[Tensors], None]) -> Download:
    """The same download with a changed net.pth."""
    tensors = dict(hallo.tensors)
    change(tensors)
    (tmp_path / "hallo").mkdir()
    torch.save(tensors, tmp_path / "hallo" / "net.pth")
    return replace(hallo, folder=tmp_path)


def refused(download: Download, hallo: Download, match: str) -> None:
    """The conversion fails with this message and writes no file."""
    target = download.folder / "out"
    sides = {"vae": hallo.folder / "sd-vae-ft-mse", "audio_encoder": hallo.folder / "wav2vec/wav2vec2-base-960h"}
    with pytest.raises(FadaError, match=match):
        download.convert(target / "x.safetensors", "fp16", **sides)
    assert not target.exists() or not list(target.iterdir())


def test_every_unknown_key_is_named(hallo: Download, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def change(tensors: Tensors) -> None:
        tensors |= {"denoising_unet.telepathy.weight": torch.zeros(1), "audioproj.proj4.bias": torch.zeros(1)}

    with caplog.at_level(logging.ERROR):
        refused(changed(hallo, tmp_path, change), hallo, r"no 'audioproj.proj4.bias' \(2 such")
    assert [record.args[0] for record in caplog.records] == ["audioproj.proj4.bias", "denoising_unet.telepathy.weight"]


def test_missing_and_misshapen_keys(hallo: Download, tmp_path: Path) -> None:
    for name, change, match in (
        ("a", lambda tensors: tensors.pop("imageproj.norm.bias"), r"needs 'imageproj.norm.bias' \(1 tensors"),
        ("b", lambda tensors: tensors.update({"imageproj.norm.bias": torch.zeros(3)}), r"shape \(3,\)"),
        ("c", lambda tensors: tensors["imageproj.norm.bias"].fill_(1e6), "beyond fp16's range"),
    ):
        copies = replace(hallo, tensors={name: value.clone() for name, value in hallo.tensors.items()})
        (tmp_path / name).mkdir()
        refused(changed(copies, tmp_path / name, change), hallo, match)


def write_foreign(path: Path, names: list[str]) -> Path:
    tensors = {name: torch.zeros(2) for name in names}
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save({"params_ema": tensors}, path)
    return path


@pytest.mark.parametrize(
    ("file", "names", "what"),
    [
        ("net_g.pth", ["quantize.embedding.weight", "encoder.blocks.0.weight"], "'net_g.pth' is a super-resolution"),
        ("x.safetensors", ["lora_unet_mid_block.lora_up.weight"], "'x.safetensors' is a LoRA"),
        ("sdxl.safetensors", ["conditioner.embedders.0.a", "model.diffusion_model.b"], "is an SDXL checkpoint"),
        ("v1-5.safetensors", ["model.diffusion_model.b"], "is a Stable Diffusion checkpoint"),
        ("denoising_unet.bin", ["mid_block.attentions.0.transformer_blocks.0.attn1_5.to_k.weight"], "is V-Express"),
    ],
)
def test_other_models_are_named(tmp_path: Path, file: str, names: list[str], what: str) -> None:
    path = write_foreign(tmp_path / file, names)
    for src in (path, tmp_path):
        for family in ("hallo", None):
            with pytest.raises(FadaError, match=f"{what}.*expected.*Hallo's net.pth"):
                convert(ConvertConfig(src, tmp_path / "out.safetensors", family))


def test_another_model_under_hallos_name(tmp_path: Path) -> None:
    """It is reported before files are required that only the right model needs."""
    write_foreign(tmp_path / "net.safetensors", ["lora_unet_mid_block.lora_up.weight"])
    with pytest.raises(FadaError, match="is a LoRA, not Hallo"):
        convert(ConvertConfig(tmp_path, tmp_path / "out.safetensors"))


def test_other_folders_are_named(tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    with pytest.raises(FadaError, match="There is no"):
        convert(ConvertConfig(tmp_path / "nowhere", out))
    with pytest.raises(FadaError, match="holds no weights; expected"):
        convert(ConvertConfig(tmp_path, out))
    (tmp_path / "a.pth").touch(), (tmp_path / "b.bin").touch()
    with pytest.raises(FadaError, match="holds a.pth, b.bin; expected EchoMimic's reference_unet.pth"):
        convert(ConvertConfig(tmp_path, out, "echomimic"))
    with pytest.raises(FadaError, match="must end in .safetensors"):
        convert(ConvertConfig(tmp_path, tmp_path / "out.pth"))
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "net.pth.crdownload").touch()
    with pytest.raises(FadaError, match="only an unfinished download, net.pth.crdownload; expected"):
        convert(ConvertConfig(tmp_path / "more", out))
    with pytest.raises(FadaError, match="'net.pth.crdownload' is an unfinished download .*expected Hallo's net.pth"):
        convert(ConvertConfig(tmp_path / "more" / "net.pth.crdownload", out))
    (tmp_path / "more" / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    with pytest.raises(FadaError, match="more' is a StableDiffusionXLPipeline of diffusers; expected"):
        convert(ConvertConfig(tmp_path / "more", out))
    downloading = tmp_path / "new" / ".cache" / "huggingface" / "download"
    downloading.mkdir(parents=True)
    (downloading / "Xq1.0f3a.incomplete").touch()
    with pytest.raises(FadaError, match="only an unfinished download, Xq1.0f3a.incomplete; expected"):
        convert(ConvertConfig(tmp_path / "new", out))
    (tmp_path / "above" / "v1").mkdir(parents=True)
    (tmp_path / "above" / "v1" / "reference_unet.pth").touch()
    with pytest.raises(FadaError, match="holds no weights itself, but '.*v1' does; expected"):
        convert(ConvertConfig(tmp_path / "above", out))
    for name, title in (("v_kps_guider.bin", "V-Express"), ("pose_encoder.pth", "EchoMimicV2")):
        (tmp_path / name).touch()
        with pytest.raises(FadaError, match=f"is {title}, which FADA cannot run; expected"):
            convert(ConvertConfig(tmp_path, out))
    (tmp_path / "pose_guider.pth").touch()
    with pytest.raises(FadaError, match="AniPortrait or AnimateAnyone, which FADA cannot run; expected"):
        convert(ConvertConfig(tmp_path, out))


class Made:
    """An object that is pickled as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.called = function, arguments

    def __reduce__(self) -> tuple:
        return self.called


def nested(depth: int) -> bytes:
    """A pickle of a dictionary whose key is a tuple of 2 ** depth entries, whose hash takes accordingly long."""
    doubled = b"".join(b"q%ch%c\x86" % (i, i) for i in range(depth))  # put aside, get again, two as one
    return b"\x80\x02})" + doubled + b"Ns."


def archived(index: bytes) -> bytes:
    """A torch archive with this pickle and without tensors."""
    with zipfile.ZipFile(out := io.BytesIO(), "w") as archive:
        archive.writestr("archive/data.pkl", index)
        archive.writestr("archive/version", b"3\n")
    return out.getvalue()


def deflated(content: dict[str, Any]) -> bytes:
    """A torch archive with compressed records, a thousandth of their size."""
    torch.save(content, plain := io.BytesIO())
    with zipfile.ZipFile(plain) as archive, zipfile.ZipFile(out := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as other:
        for record in archive.infolist():
            other.writestr(record.filename, archive.read(record))
    return out.getvalue()


def saved(content: Any, old: bool) -> bytes:
    torch.save(content, out := io.BytesIO(), _use_new_zipfile_serialization=not old)
    return out.getvalue()


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"a": Made(bytearray, 10**11)}, "code besides weights"),
        ({"a": Made(os.system, "touch /tmp/owned")}, "code besides weights"),
        ({"a": Made(torch.zeros, 10**11)}, "code besides weights"),
        ({"a": torch.zeros(1).expand(10**11)}, "'a', which repeats a few values"),
        ({"a": [[]] * 10}, "'a', which is not a tensor"),
        ({7: torch.zeros(1)}, "named by a int, which is not a tensor"),
        ({"a\x1b[2J" * 99: 1}, r"'a\?\[2Ja.* \.\.\.', which is not a tensor"),
        ([torch.zeros(1)], "holds no weights"),
    ],
)
def test_pickles_that_ask_for_more_than_they_are_worth(content: Any, match: str, old: bool, tmp_path: Path) -> None:
    """They are refused within milliseconds, before memory is allocated."""
    path = tmp_path / "net.pth"
    path.write_bytes(saved(content, old))
    assert path.stat().st_size < 10_000
    started = time.monotonic()
    with pytest.raises(FadaError, match=f"'net.pth' .*{match}.*; expected weights: "):
        read_tensors(path, "weights")
    assert time.monotonic() - started < 10
    assert not Path("/tmp/owned").exists()  # noqa: S108


def test_archives_that_are_larger_than_their_files(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    for content in (nested(40), archived(nested(40))):
        path.write_bytes(content)
        with pytest.raises(FadaError, match="'net.pth' holds more than weights; expected weights: get them as safe"):
            read_tensors(path, "weights")
    path.write_bytes(deflated({"a": torch.zeros(10**6)}))
    with pytest.raises(FadaError, match="'net.pth' is compressed, as torch writes no weights; expected weights: get"):
        read_tensors(path, "weights")
    whole = saved({"a": torch.zeros(10**4)}, old=False)
    start = whole.rindex(b"PK\x01\x02", 0, whole.rindex(b"data/0"))  # its record in the archive's index
    for name, place in (("size", 24), ("packed size", 20)):
        damaged = bytearray(whole)
        damaged[start + place : start + place + 4] = (2**31).to_bytes(4, "little")
        path.write_bytes(damaged)
        with pytest.raises(FadaError, match="'net.pth' (claims more than it holds|is not a complete file)"):
            read_tensors(path, "weights")
        assert name


def test_no_input_is_an_output(hallo: Download, tmp_path: Path) -> None:
    path = tmp_path / "hallo.safetensors"
    save_file(hallo.tensors, path)
    before = path.read_bytes()
    sides = {"vae": hallo.folder / "sd-vae-ft-mse", "audio_encoder": hallo.folder / "wav2vec/wav2vec2-base-960h"}
    with pytest.raises(FadaError, match="hallo.safetensors' is one of the files to convert; give --out another name"):
        replace(hallo, folder=path).convert(path, **sides)
    assert path.read_bytes() == before


def test_descriptions_that_are_none(hallo: Download, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_bytes(b"[" * 9999)
    with pytest.raises(FadaError, match="model_index.json' cannot be used: it is nested more than"):
        convert(ConvertConfig(tmp_path, tmp_path / "out.safetensors"))
    vae = save_vae(tmp_path / "vae")
    for content in (b"[]", b"\xff\xfe", b'{"scaling_factor": []}'):
        (vae / "config.json").write_bytes(content)
        # TAESD is known by its keys; the description counts for the others, and is read before.
        with pytest.raises(FadaError, match="vae(/config.json)?' (cannot be used|has the scaling factor)"):
            hallo.convert(tmp_path / "out.safetensors", vae=vae)


class Code:
    def __reduce__(self) -> tuple:
        return (nn.Linear, (1, 1))


def test_files_that_are_not_whole(tmp_path: Path) -> None:
    whole = {"a": torch.zeros(1000)}
    torch.save(whole, tmp_path / "zip.pth")
    torch.save(whole, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(whole, tmp_path / "new.safetensors")
    for name in ("zip.pth", "new.safetensors", "old.pth"):
        path = tmp_path / name
        assert torch.equal(read_tensors(path, "weights")["a"], whole["a"])
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(
            FadaError, match=rf"'{name}' is not a complete file \(0.00 MB\); expected weights: download it again"
        ):
            read_tensors(path, "weights")
    for place in range(2, 60):  # damaged in other ways: whatever unpickling makes of it
        damaged = bytearray(content)
        damaged[place] ^= 0x5A
        (tmp_path / "old.pth").write_bytes(damaged)
        try:
            read_tensors(tmp_path / "old.pth", "weights")
        except FadaError:
            continue
    torch.jit.save(torch.jit.script(nn.Identity()), program := io.BytesIO())
    for content, match in (
        (b"version https://git-lfs.github.com/spec/v1\n", "pointer"),
        (b"<!DOCTYPE html>", "web page"),
        (b"", "neither"),
        (program.getvalue(), "TorchScript"),
        (pickle.dumps({"a": Code()}), "code besides weights"),
    ):
        (tmp_path / "net.pth").write_bytes(content)
        with pytest.raises(FadaError, match=f"'net.pth' .*{match}.*; expected Hallo's net.pth, 4.5 GB or more: "):
            convert(ConvertConfig(tmp_path, tmp_path / "out.safetensors", vae=tmp_path, audio_encoder=tmp_path))


@pytest.mark.parametrize(
    ("family", "file", "expected"),
    [
        ("hallo", "hallo/net.pth", "Hallo's net.pth, "),
        ("hallo", "sd-vae-ft-mse/diffusion_pytorch_model.safetensors", "the autoencoder, sd-vae-ft-mse"),
        ("hallo", "wav2vec/wav2vec2-base-960h/model.safetensors", "the audio encoder, wav2vec2-base-960h"),
        ("echomimic", "reference_unet.pth", "EchoMimic's reference_unet.pth"),
        ("echomimic", "motion_module.pth", "EchoMimic's motion_module.pth"),
        ("echomimic", "audio_processor/whisper_tiny.pt", "the audio encoder, whisper-tiny"),
    ],
)
def test_half_a_file_of_a_download(
    family: str, file: str, expected: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    whole: Download = request.getfixturevalue(family)
    torn = replace(whole, folder=tmp_path / "torn")
    shutil.copytree(whole.folder, torn.folder)
    content = (torn.folder / file).read_bytes()
    (torn.folder / file).write_bytes(content[: len(content) // 2])
    name = Path(file).name
    with pytest.raises(
        FadaError, match=rf"'{name}' is not a complete file \(.*B\); expected {expected}.*: download it again"
    ):
        torn.convert(tmp_path / "out" / "x.safetensors", family=family)
    assert not (tmp_path / "out").exists()


def test_a_download_of_which_files_are_missing(echomimic: Download, tmp_path: Path) -> None:
    for name in ("reference_unet.pth", "denoising_unet.pth"):
        (tmp_path / name).symlink_to(echomimic.folder / name)
    for family in (None, "echomimic"):
        with pytest.raises(
            FadaError, match=r"lacks motion_module.pth, face_locator.pth of EchoMimic; expected .*the rest"
        ):
            convert(ConvertConfig(tmp_path, tmp_path / "x.safetensors", family))


def test_the_only_file_of_a_folder_may_have_any_name(hallo: Download, tmp_path: Path) -> None:
    save_file(hallo.tensors, tmp_path / "hallo_fp16.safetensors")
    sides = {"vae": hallo.folder / "sd-vae-ft-mse", "audio_encoder": hallo.folder / "wav2vec/wav2vec2-base-960h"}
    out = tmp_path / "out" / "hallo.safetensors"
    assert_equal_networks(replace(hallo, folder=tmp_path).convert(out, **sides), hallo.tensors)


def test_every_step_has_a_bar(hallo: Download, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hallo.convert(tmp_path / "x.safetensors")
    shown = capsys.readouterr().err
    for step in ("reading", "writing", "checking"):
        assert f"{step}: 100%" in shown


def test_what_reads_otherwise_than_it_was_written_is_not_kept(
    hallo: Download, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(path: Path, *arguments: Any) -> dict[str, int]:
        checksums = write_tensors(path, *arguments)
        with path.open("r+b") as file:
            file.seek(-4, 2)
            file.write(b"\0\0\0\0")
        return checksums

    monkeypatch.setattr("fada_core.convert.__main__.write_tensors", damaged)
    with pytest.raises(FadaError, match="does not read back as written; check the disk"):
        hallo.convert(tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_the_command_ends_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--from", "echomimic-acc", "--src", str(tmp_path), "--out", str(tmp_path / "x.safetensors")]
    assert main(arguments) == 2
    assert "error: " in capsys.readouterr().err


def test_sides_that_do_not_fit(hallo: Download, tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    with pytest.raises(FadaError, match="no 'nowhere'.*--vae"):
        hallo.convert(out, vae=Path("nowhere"))
    sdxl = save_vae(tmp_path / "sdxl-vae")
    (sdxl / "config.json").write_text('{"scaling_factor": 0.13025}')
    with pytest.raises(FadaError, match="scaling factor 0.13025"):
        hallo.convert(out, vae=sdxl)
    with pytest.raises(FadaError, match="no audio encoder in .*--audio-encoder"):
        hallo.convert(out, audio_encoder=tmp_path)


def test_streamed_file_equals_a_saved_one(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3), "b": torch.randn(2, 3).T, "c": torch.tensor(2.0), "d": torch.randn(0, 4)}
    dtypes = {"a": torch.bfloat16, "b": torch.float32, "c": torch.float16, "d": torch.float32}
    expected = {name: value.to(dtypes[name]) for name, value in tensors.items()}
    sizes: list[int] = []
    write_tensors(tmp_path / "x.safetensors", tensors, dtypes, {"note": "x"}, tmp_path, sizes.append)
    assert not tensors and sum(sizes) == 6 + 24 + 2
    for name, value in load_file(tmp_path / "x.safetensors").items():
        torch.testing.assert_close(value, expected.pop(name), rtol=0, atol=0)
    assert not expected


def first_release_vae() -> dict[str, int]:
    """Names in the single file, with the number of axes of each tensor."""
    modules: dict[str, int] = {"quant_conv": 4, "post_quant_conv": 4}
    for half, blocks in (("encoder", 2), ("decoder", 3)):
        modules |= {f"{half}.conv_in": 4, f"{half}.conv_out": 4, f"{half}.norm_out": 1, f"{half}.mid.attn_1.norm": 1}
        modules |= {f"{half}.mid.attn_1.{name}": 4 for name in ("q", "k", "v", "proj_out")}
        resnets = [f"{half}.mid.block_{i}" for i in (1, 2)]
        way = "down" if half == "encoder" else "up"
        resnets += [f"{half}.{way}.{i}.block.{j}" for i in range(4) for j in range(blocks)]
        for name in resnets:
            modules |= {f"{name}.norm1": 1, f"{name}.conv1": 4, f"{name}.norm2": 1, f"{name}.conv2": 4}
        sampled = range(3) if half == "encoder" else range(1, 4)
        modules |= {f"{half}.{way}.{i}.{way}sample.conv": 4 for i in sampled}
    modules |= {"encoder.down.1.block.0.nin_shortcut": 4, "encoder.down.2.block.0.nin_shortcut": 4}
    modules |= {"decoder.up.0.block.0.nin_shortcut": 4, "decoder.up.1.block.0.nin_shortcut": 4}
    return {f"{name}.weight": axes for name, axes in modules.items()} | {f"{name}.bias": 1 for name in modules}


@pytest.mark.parametrize("prefix", ["", "first_stage_model."])
def test_autoencoder_of_the_first_release(prefix: str) -> None:
    tensors = {
        prefix + name: torch.full((1,) * axes, float(i)) for i, (name, axes) in enumerate(first_release_vae().items())
    }
    theirs = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 32, 32, 32),
        layers_per_block=2,
    )
    expected = convert_ldm_vae_checkpoint(dict(tensors), theirs.config)
    foreign = {"model.diffusion_model.x": torch.zeros(1)} if prefix else {"loss.logvar": torch.zeros(1)}
    renamed = part(vae_weights(VAEConfig(), tensors | foreign), "kl.")
    assert set(theirs.state_dict()) <= set(renamed) == set(expected)
    for name, value in renamed.items():
        assert value.item() == expected[name].item() and value.ndim == expected[name].ndim, name


def test_autoencoders_with_old_names_and_taesd_in_two_files() -> None:
    parts = ("query", "proj_attn", "group_norm")
    old = {f"decoder.mid_block.attentions.0.{name}.bias": torch.zeros(1) for name in parts}
    names = {name.rsplit("attentions.0.")[1] for name in vae_weights(VAEConfig(), old)}
    assert names == {"to_q.bias", "to_out.0.bias", "group_norm.bias"}
    state = AutoencoderTiny().state_dict()
    pair = {}
    for name, value in state.items():
        half, index, rest = name.replace(".layers", "").split(".", 2)
        pair[f"taesd_{half}.{int(index) + (half == 'decoder')}.{rest}"] = value
    renamed = part(vae_weights(VAEConfig(kind="taesd"), pair), "taesd.")
    assert {name: value.shape for name, value in renamed.items()} == {name: v.shape for name, v in state.items()}
