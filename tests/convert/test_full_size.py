"""Downloads of the published sizes: converted in bounded time and memory, loaded, and able to predict.

Their content is random. They take 12 GB of disk and some minutes, so the tests run only where the environment variable
FADA_FULL_SIZE names a folder to work in: FADA_FULL_SIZE=/tmp python -m pytest tests/convert/test_full_size.py -s
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import init_empty_weights
from safetensors.torch import save_file
from torch import Tensor, nn

from fada_core.config import ECHOMIMIC, SD15, ModelConfig
from fada_core.models.audio import build_audio_encoder
from fada_core.models.networks import Networks
from fada_core.models.vae import build_vae
from tests.support.public_models import openai_name, part
from tests.support.recipe import draw_weights

FOLDER = os.environ.get("FADA_FULL_SIZE")
pytestmark = pytest.mark.skipif(FOLDER is None, reason="FADA_FULL_SIZE names no folder to work in")

SECONDS, GIGABYTES = 180, 8
"""What a conversion may take on two cores."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that is removed after its test; pytest's own would stay."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as path:
        yield Path(path)


def random_half(module: nn.Module) -> dict[str, Tensor]:
    """Random float16 tensors with the names and shapes of a module; its sine tables are kept."""
    tensors = {}
    for seed, (name, value) in enumerate(module.state_dict().items()):
        tensors[name] = draw_weights({name: list(value.shape)}, seed).get(name, value).half()
    return tensors


def published(model: ModelConfig) -> dict[str, Tensor]:
    """The networks' tensors as published: with motion modules at every level, including unused ones."""
    with init_empty_weights(include_buffers=False):
        networks = Networks(replace(model, unet=replace(model.unet, motion_everywhere=True)))
    networks.vae = networks.audio_encoder = nn.Identity()
    return random_half(networks)


def write_sides(model: ModelConfig, folder: Path) -> dict[str, Tensor]:
    """Write the autoencoder to `folder` in the published precision; returns the audio encoder's tensors."""
    (folder / "sd-vae-ft-mse").mkdir(parents=True)
    vae = {name: value.float() for name, value in part(random_half(build_vae(model.vae)), "kl.").items()}
    save_file(vae, folder / "sd-vae-ft-mse" / "diffusion_pytorch_model.safetensors")
    return {name: value.float() for name, value in random_half(build_audio_encoder(model.audio).model).items()}


def write_hallo(folder: Path) -> None:
    tensors = published(SD15)
    assert round(sum(value.numel() for value in tensors.values()) / 1e6) == 2425
    (folder / "hallo").mkdir()
    torch.save(tensors, folder / "hallo" / "net.pth")
    speech = folder / "wav2vec" / "wav2vec2-base-960h"
    speech.mkdir(parents=True)
    save_file(
        {f"wav2vec2.{k}": v.contiguous() for k, v in write_sides(SD15, folder).items()}, speech / "model.safetensors"
    )


def write_echomimic(folder: Path) -> None:
    tensors = published(ECHOMIMIC)
    denoising = part(tensors, "denoising_unet.")
    motion = {name: value for name, value in denoising.items() if "motion_modules" in name}
    torch.save(
        {name: value for name, value in denoising.items() if name not in motion}, folder / "denoising_unet_acc.pth"
    )
    torch.save(motion, folder / "motion_module_acc.pth")
    for network in ("reference_unet", "face_locator"):
        torch.save(part(tensors, f"{network}."), folder / f"{network}.pth")
    speech = {f"encoder.{openai_name(name)}": value for name, value in write_sides(ECHOMIMIC, folder).items()}
    (folder / "audio_processor").mkdir()
    torch.save({"model_state_dict": speech}, folder / "audio_processor" / "whisper_tiny.pt")


def measured(*arguments: str) -> tuple[float, float]:
    """Run Python; returns the seconds and the peak of resident memory in GB, mapped files included."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # or this process's peak counts as the other's
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments])  # noqa: S603
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return time.perf_counter() - started, usage.ru_maxrss * 1024 / 1e9


STEP = """
import sys, time
from dataclasses import replace
import torch
import fada_core
from fada_core.face.region import find_face

started = time.perf_counter()
pipe = fada_core.load(sys.argv[1], "cpu", torch.bfloat16)
loaded = time.perf_counter()
overlap = min(pipe.config.clip_overlap, 1)
pipe.networks.config = pipe.config = replace(pipe.config, size=256, clip_frames=2, clip_overlap=overlap)
image = torch.zeros(1, 3, 300, 256)
cond = pipe.encode(image, torch.zeros(1000), region=find_face(image))
encoded = time.perf_counter()
latents = torch.cat(list(pipe.sample(cond, steps=1)))
took = time.perf_counter() - encoded
print(f"loaded in {loaded - started:.1f} s; {pipe.modes[0]}: {pipe.stats.nfe} evaluations in {took:.1f} s")
assert pipe.modes == (sys.argv[2],)
assert latents.shape == (2, 4, 32, 32)
assert latents.isfinite().all()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems tell the peak of a process's memory otherwise")
@pytest.mark.parametrize(("write", "mode"), [(write_hallo, "teacher"), (write_echomimic, "fast")], ids=["hallo", "acc"])
def test_conversion_and_a_step_of_two_frames(folder: Path, write: Callable[[Path], None], mode: str) -> None:
    write(folder)
    out = folder / "model.safetensors"
    seconds, peak = measured("-m", "fada_core.convert", "--src", str(folder), "--out", str(out))
    print(f"converted to {out.stat().st_size / 1e9:.2f} GB in {seconds:.0f} s, {peak:.2f} GB at the most")
    assert seconds < SECONDS
    assert peak < GIGABYTES
    seconds, peak = measured("-c", STEP, str(out), mode)
    print(f"{seconds:.0f} s with all that Python imports, {peak:.2f} GB at the most")
