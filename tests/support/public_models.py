"""Downloads of the public models with their published names and layouts, and random content.

The shapes are those of the parity fixtures, so the networks are small.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import save_file
from torch import Tensor

from fada_core.config import SD15, AudioEncoderConfig, ModelConfig
from fada_core.convert.__main__ import ConvertConfig, convert
from fada_core.models.audio import build_audio_encoder
from tests.models import test_parity_echomimic, test_parity_hallo
from tests.support.recipe import draw_weights

Tensors = dict[str, Tensor]


def published(folder: Path) -> tuple[dict, dict[str, list[int]], Tensors]:
    """Description, shapes and random tensors of a fixture's networks, under their published names."""
    info, shapes = (json.loads((folder / f"{name}.json").read_text()) for name in ("info", "shapes"))
    tensors = {}
    for network, seed in info["seeds"].items():
        own = {name.removeprefix(f"{network}."): s for name, s in shapes.items() if name.startswith(f"{network}.")}
        tensors |= {f"{network}.{name}": value for name, value in draw_weights(own, seed).items()}
        tables = [name for name in own if name.endswith("pos_encoder.pe")]
        tensors |= {f"{network}.{name}": torch.randn(own[name]) for name in tables}
    return info, shapes, tensors


def part(tensors: Tensors, prefix: str) -> Tensors:
    """The tensors of one network, without its name."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


@dataclass(frozen=True)
class Download:
    """A downloaded folder with the published layout."""

    folder: Path
    model: ModelConfig
    tensors: Tensors

    def convert(self, out: Path, dtype: str = "fp32", **options: object) -> Path:
        """Convert as the command does; returns `out`."""
        options = {"src": self.folder, "out": out, "dtype": dtype, **options}
        return convert(ConvertConfig(**options), self.model)


def save_vae(folder: Path) -> Path:
    """Make a folder with TAESD, the smallest autoencoder with the right latents, under diffusers' file name."""
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    save_file(AutoencoderTiny().state_dict(), folder / "diffusion_pytorch_model.safetensors")
    return folder


def openai_name(name: str) -> str:
    """The name of a tensor of Whisper's encoder in its first release."""
    for theirs, ours in (
        ("embed_positions.weight", "positional_embedding"),
        ("layers.", "blocks."),
        ("self_attn_layer_norm", "attn_ln"),
        ("final_layer_norm", "mlp_ln"),
        ("self_attn.q_proj", "attn.query"),
        ("self_attn.k_proj", "attn.key"),
        ("self_attn.v_proj", "attn.value"),
        ("self_attn.out_proj", "attn.out"),
        ("fc1", "mlp.0"),
        ("fc2", "mlp.2"),
    ):
        name = name.replace(theirs, ours)
    return name


def write_hallo(folder: Path) -> Download:
    """Make Hallo's folder `pretrained_models`."""
    info, shapes, tensors = published(test_parity_hallo.FIXTURE)
    audio = AudioEncoderConfig(layers=info["config"]["audio_layers"], dim=info["config"]["audio_channels"])
    model = replace(test_parity_hallo.small_config(info, shapes), audio=audio, vae=SD15.vae)
    (folder / "hallo").mkdir()
    torch.save(tensors, folder / "hallo" / "net.pth")
    save_vae(folder / "sd-vae-ft-mse")
    speech = folder / "wav2vec" / "wav2vec2-base-960h"
    speech.mkdir(parents=True)
    own = {f"wav2vec2.{name}": value for name, value in build_audio_encoder(audio).model.state_dict().items()}
    own |= {"lm_head.weight": torch.zeros(32, audio.dim), "wav2vec2.masked_spec_embed": torch.zeros(audio.dim)}
    save_file({name: value.contiguous() for name, value in own.items()}, speech / "model.safetensors")
    return Download(folder, model, tensors)


def write_echomimic(folder: Path) -> Download:
    """Make EchoMimic's folder `pretrained_weights`, including the accelerated networks."""
    info, shapes, tensors = published(test_parity_echomimic.FIXTURE)
    model = test_parity_echomimic.small_config(info, shapes)
    audio = replace(model.audio, layers=20)  # any number of tokens fits the networks; 20 are of one layer and its input
    model = replace(model, vae=SD15.vae, audio=audio, condition=replace(model.condition, audio_tokens=20))
    denoising = part(tensors, "denoising_unet.")
    torch.save(part(tensors, "reference_unet."), folder / "reference_unet.pth")
    torch.save(part(tensors, "face_locator."), folder / "face_locator.pth")
    motion = {name: value for name, value in denoising.items() if "motion_modules" in name}
    torch.save({name: value for name, value in denoising.items() if name not in motion}, folder / "denoising_unet.pth")
    torch.save(motion, folder / "motion_module.pth")
    torch.save({"module." + name: value for name, value in denoising.items()}, folder / "denoising_unet_acc.pth")
    save_vae(folder / "sd-vae-ft-mse")
    speech = {openai_name(name): value for name, value in build_audio_encoder(audio).model.state_dict().items()}
    content = {"dims": {"n_mels": 80}, "model_state_dict": {f"encoder.{name}": v for name, v in speech.items()}}
    (folder / "audio_processor").mkdir()
    torch.save(content, folder / "audio_processor" / "whisper_tiny.pt")
    return Download(folder, model, tensors)


def write_checkpoints(folder: Path) -> None:
    """Write hallo.safetensors and echomimic-acc.safetensors to `folder`, as the README's commands do, for 64 pixels."""
    with tempfile.TemporaryDirectory() as downloads:
        for write, family in ((write_hallo, "hallo"), (write_echomimic, "echomimic-acc")):
            source = Path(downloads, family)
            source.mkdir()
            download = write(source)
            small = replace(download, model=replace(download.model, size=64))
            small.convert(folder / f"{family}.safetensors", family=family)


@pytest.fixture(scope="module", name="hallo")
def hallo_download(tmp_path_factory: pytest.TempPathFactory) -> Download:
    return write_hallo(tmp_path_factory.mktemp("pretrained_models"))


@pytest.fixture(scope="module", name="echomimic")
def echomimic_download(tmp_path_factory: pytest.TempPathFactory) -> Download:
    return write_echomimic(tmp_path_factory.mktemp("pretrained_weights"))
