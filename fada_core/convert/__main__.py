"""Command: convert the public weights of Hallo, Hallo2 or EchoMimic, as downloaded, to a FADA checkpoint.

python -m fada_core.convert --src pretrained_models/hallo --out models/fada/hallo.safetensors
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from accelerate import init_empty_weights
from torch import Tensor
from tqdm import tqdm

from ..atomic import whole_file
from ..checkpoint import as_linear, checkpoint_metadata, load_checkpoint
from ..command import Stop, run_command
from ..config import ModelConfig
from ..errors import FadaError
from ..models.networks import Networks
from .families import FAMILIES, Family, check, detect, first_existing, home, networks_files, without_dead
from .files import read_tensors
from .sides import read_audio_encoder, read_vae
from .writer import checksum, write_tensors

log = logging.getLogger("fada.convert")
_SIDES = ("vae.", "audio_encoder.")  # prefixes of the networks that come from other projects
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class ConvertConfig:
    """Make a FADA checkpoint from public weights."""

    src: Path
    """Folder with the downloaded weights, or Hallo's file under any name."""
    out: Path
    """The checkpoint, a .safetensors file."""
    family: Annotated[Literal["hallo", "hallo2", "echomimic", "echomimic-acc"] | None, tyro.conf.arg(name="from")] = (
        None
    )
    """Model of the weights (default: detected from files and keys)."""
    dtype: Literal["fp16", "bf16", "fp32"] = "fp16"
    """Number format of the weights; the audio encoder stays fp32."""
    vae: Path | None = None
    """Autoencoder: folder or file of sd-vae-ft-mse, or TAESD (default: searched in and beside --src)."""
    audio_encoder: Path | None = None
    """wav2vec2-base-960h (Hallo) or whisper-tiny (EchoMimic), folder or file (default: searched likewise)."""
    refer: bool = False
    """Store only the paths of autoencoder and audio encoder, which must be in the folder of --out."""


def convert(config: ConvertConfig, model: ModelConfig | None = None) -> Path:
    """Convert the weights, check the result by loading it, and return its path; progress goes to stderr.

    Tensors are read only when they are written, so that little memory is used except for mapped files.

    Args:
        model: config of the weights; default: the published one.

    Raises:
        FadaError: files that do not have the published layout; the message says what was found and expected.
    """
    if config.out.suffix != ".safetensors":
        raise FadaError(f"'{config.out}' must end in .safetensors; rename it.")
    folder = home(config.src, config.family)
    name = config.family or detect(config.src, folder)
    family = FAMILIES[name]
    model = family.model if model is None else model
    files = networks_files(config.src, folder, family)
    for source in (config.vae, config.audio_encoder, *files):
        if source is not None and source.resolve() == config.out.resolve():
            raise FadaError(f"'{config.out}' is one of the files to convert; give --out another name.")
    log.info("%s in %s", family.title, folder)
    with tqdm(total=len(files) + len(_SIDES), desc="reading", unit=" files", file=sys.stderr) as bar:
        tensors = _networks(config.src, files, family, model, bar.update)
        metadata: dict[str, str] = {}
        model, sides = _sides(config, folder, family, model, metadata, bar.update)
    wanted = _wanted(model)
    for start, (title, source, found) in sides.items():
        own = {key: value for key, value in wanted.items() if key.startswith(start)}
        check(found, own, f"This model's {title}", source)
        if not config.refer:
            tensors |= found
    sides.clear()  # so that the writer can free each tensor that it has written
    del found
    _write(config, tensors, metadata | checkpoint_metadata(model, family.info))
    return config.out


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""

    def work(config: ConvertConfig) -> None:
        with Stop("stopped; nothing was written"):
            out = convert(config)
        sys.stdout.write(f"{out}: {out.stat().st_size / 1e9:.2f} GB\n")

    return run_command(work, ConvertConfig, "convert", arguments)


def _wanted(model: ModelConfig) -> dict[str, Tensor]:
    """All tensors of the model by name, without values."""
    with init_empty_weights(include_buffers=False):
        return Networks(model).state_dict()


def _networks(
    src: Path, files: dict[Path, str], family: Family, model: ModelConfig, advance: Callable[[int], object]
) -> dict[str, Tensor]:
    """The networks' tensors under FADA's names; they must be exactly those of the model."""
    wanted = {key: value for key, value in _wanted(model).items() if not key.startswith(_SIDES)}
    least = 2 * sum(value.numel() for value in wanted.values())  # bytes, in half precision
    tensors: dict[str, Tensor] = {}
    for path, prefix in files.items():
        size = f", {least / 1e9:.1f} GB or more" if len(files) == 1 else ""
        read = read_tensors(path, f"{family.title}'s {path.name}{size}")
        tensors |= {f"{prefix}{key}": value for key, value in read.items()}
        advance(1)
    tensors = as_linear(without_dead(tensors, model), wanted)
    check(tensors, wanted, family.title, src)
    return tensors


def _sides(
    config: ConvertConfig,
    folder: Path,
    family: Family,
    model: ModelConfig,
    metadata: dict[str, str],
    advance: Callable[[int], object],
) -> tuple[ModelConfig, dict[str, tuple[str, Path, dict[str, Tensor]]]]:
    """Autoencoder and audio encoder: the model with the autoencoder's config, and {prefix: (title, path, tensors)}.

    With `refer`, their paths are added to `metadata`.
    """

    def place(given: Path | None, option: str, places: Sequence[str]) -> Path:
        path = given or first_existing(folder, places)
        if path is None or not path.exists():
            where = f"no '{path}'" if path else f"no {places[0].removeprefix('../')} in or beside '{folder}'"
            raise FadaError(f"There is {where}; download it and name it with {option}.")
        return path

    vae = place(config.vae, "--vae", family.vae)
    audio_encoder = place(config.audio_encoder, "--audio-encoder", family.audio_encoder)
    vae_config, vae_tensors = read_vae(vae, model.vae)
    advance(1)
    audio_tensors = read_audio_encoder(audio_encoder, model.audio)
    advance(1)
    if config.refer:
        metadata["fada.vae"] = _beside(vae, config.out)
        metadata["fada.audio_encoder"] = _beside(audio_encoder, config.out)
    found = ("autoencoder", vae, vae_tensors), ("audio encoder", audio_encoder, audio_tensors)
    return replace(model, vae=vae_config), dict(zip(_SIDES, found, strict=True))


def _beside(path: Path, out: Path) -> str:
    folder = out.parent.resolve()
    if not path.resolve().is_relative_to(folder):
        raise FadaError(f"'{path}' is not in the folder of --out, so it cannot be referred to; leave --refer out.")
    return path.resolve().relative_to(folder).as_posix()


def _write(config: ConvertConfig, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write to a temporary file next to the target, verify it, and move it to the target."""
    half = DTYPES[config.dtype]
    dtypes = {name: torch.float32 if name.startswith("audio_encoder.") else half for name in tensors}
    size = sum(value.numel() * dtypes[name].itemsize for name, value in tensors.items())
    with whole_file(config.out, round(1.01 * size)) as partial:
        with tqdm(total=size, desc="writing", unit="B", unit_scale=True, file=sys.stderr) as bar:
            written = write_tensors(partial, tensors, dtypes, metadata, config.src, bar.update)
        _verify(partial, config.out.parent, half, written)


def _verify(path: Path, folder: Path, dtype: torch.dtype, written: dict[str, int]) -> None:
    """Load the checkpoint as if it were in `folder`, and compare the checksums of its tensors with those written."""
    state = load_checkpoint(path, dtype=dtype, folder=folder)[0].state_dict()
    size = sum(state[name].nbytes for name in written)
    with tqdm(total=size, desc="checking", unit="B", unit_scale=True, file=sys.stderr) as bar:
        for name, expected in written.items():
            if checksum(state[name]) != expected:
                raise FadaError(f"'{name}' does not read back as written; check the disk, or choose another.")
            bar.update(state[name].nbytes)


if __name__ == "__main__":
    sys.exit(main())
