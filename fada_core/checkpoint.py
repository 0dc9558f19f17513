"""Checkpoints: one safetensors file <-> networks. Config and role are in its metadata; nothing is ever unpickled.

Metadata entries: `fada.config` (JSON of ModelConfig), `fada.role` (teacher | student), `fada.steps` (default number of
sampling steps), `fada.ref_cfg` and `fada.audio_cfg` (default scales), `fada.scale_ranges` (JSON, students),
`fada.license`, `fada.source` (origin of converted weights), `fada.training` (a JSON object of any content), and, if VAE
or audio encoder are not in the file, `fada.vae` and `fada.audio_encoder`: names of files or folders next to it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .atomic import whole_file
from .config import ModelConfig
from .config_json import config_from_dict
from .errors import FadaError
from .finite import all_finite
from .models.audio import audio_encoder_weights
from .models.networks import Networks
from .models.vae import vae_weights
from .records import OBJECT, Kind, RecordError, check, number, parse_json, several, shortened, shown
from .settings import Role

WEIGHTS = Path(__file__).parent / "weights"
_SIDE_FILES = ("diffusion_pytorch_model.safetensors", "model.safetensors")


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint's metadata besides its config."""

    role: Role
    steps: int = 25
    ref_cfg: float = 2.0  #: the paper's default
    audio_cfg: float = 6.5  #: the paper's default
    scale_ranges: tuple[tuple[float, float], tuple[float, float]] = ((1.0, 3.0), (1.0, 10.0))
    """Students: the (lowest, highest) ref_cfg, then audio_cfg, that the CFG tokens were trained with."""
    license: str = "Apache-2.0"
    source: str = ""  #: where converted weights were published
    training: dict[str, Any] = field(default_factory=dict)


def shipped_models() -> dict[str, Path]:
    """The models that come with the project: name -> path."""
    return {path.stem: path for path in sorted(WEIGHTS.glob("*.safetensors"), key=lambda path: path.stem)}


def resolve(name_or_path: str | Path) -> Path:
    """The path of a checkpoint, given a shipped model's name or a path.

    Raises:
        FadaError: there is no such file.
    """
    path = shipped_models().get(str(name_or_path), Path(name_or_path))
    try:
        found = path.is_file()
    except OSError:  # a name too long for the disk
        found = False
    if not found:
        names = ", ".join(shipped_models()) or "none"
        given = shortened(str(name_or_path), 300)
        raise FadaError(f"There is no model '{given}'; give a .safetensors file or a shipped model ({names}).")
    return path


def save_checkpoint(
    path: str | Path, networks: Networks, info: CheckpointInfo, dtype: torch.dtype | None = None
) -> None:
    """Write all weights, autoencoder and audio encoder included, into one file, atomically.

    Args:
        dtype: of floating-point weights in the file; default: as they are.

    Raises:
        FadaError: the disk is full, or `path` cannot be written.
    """
    tensors = {
        name: (value.to(dtype) if dtype is not None and value.is_floating_point() else value).contiguous().cpu()
        for name, value in networks.state_dict().items()
    }
    with whole_file(Path(path), sum(value.nbytes for value in tensors.values())) as partial:
        save_file(tensors, partial, checkpoint_metadata(networks.config, info))


def checkpoint_metadata(config: ModelConfig, info: CheckpointInfo) -> dict[str, str]:
    """The metadata of a checkpoint that contains VAE and audio encoder."""
    return {
        "fada.config": json.dumps(config.to_dict()),
        "fada.role": info.role,
        "fada.steps": str(info.steps),
        "fada.ref_cfg": str(info.ref_cfg),
        "fada.audio_cfg": str(info.audio_cfg),
        "fada.scale_ranges": json.dumps(info.scale_ranges),
        "fada.license": info.license,
        "fada.source": info.source,
        "fada.training": json.dumps(info.training),
    }


def read_info(name_or_path: str | Path) -> tuple[ModelConfig, CheckpointInfo]:
    """Read config and metadata of a checkpoint, without its weights.

    Raises:
        FadaError: there is no such file, it is not a FADA checkpoint, or its metadata are damaged.
    """
    path = resolve(name_or_path)
    metadata = _open_metadata(path)
    return _config(path, metadata), _info(path, metadata)


def load_checkpoint(
    name_or_path: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    operations: Any = nn,
    folder: Path | None = None,
) -> tuple[Networks, CheckpointInfo]:
    """Load the networks and the metadata of a checkpoint.

    Args:
        device: of the networks.
        dtype: of all networks but the audio encoder, which is float32; default float32.
        operations: namespace of the layer classes to build the networks from, like `torch.nn`.
        folder: where `fada.vae` and `fada.audio_encoder` of the metadata are; default: the checkpoint's folder.

    Raises:
        FadaError: the file is not a complete FADA checkpoint; the message names the file, the key and what to do.
    """
    from accelerate import init_empty_weights  # not at the top: ComfyUI's start would take longer

    path = resolve(name_or_path)
    metadata = _open_metadata(path)
    config, info = _config(path, metadata), _info(path, metadata)
    try:
        with init_empty_weights(include_buffers=False):
            networks = Networks(config, operations=operations)
    except FadaError as error:
        raise FadaError(f"The config of {path.name} does not hold: {error}") from error
    tensors = _read_tensors(path)
    vae = vae_weights(config.vae, _side_tensors(path, folder or path.parent, metadata, "fada.vae"))
    encoder = audio_encoder_weights(
        config.audio, _side_tensors(path, folder or path.parent, metadata, "fada.audio_encoder")
    )
    tensors |= {f"vae.{name}": value for name, value in vae.items()}
    tensors |= {f"audio_encoder.model.{name}": value for name, value in encoder.items()}
    wanted = networks.state_dict()
    tensors = as_linear(tensors, wanted)
    _check(path, tensors, wanted)
    networks.load_state_dict({name: _cast(name, value, device, dtype) for name, value in tensors.items()}, assign=True)
    # The activations are channels_last too; otherwise each convolution would reorder its weights at every step.
    networks.to(device, memory_format=torch.channels_last)
    return networks.eval().requires_grad_(False), info


def as_linear(tensors: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Flatten 1x1 convolution kernels (o, i, 1, 1) to (o, i) where `wanted` has a matrix.

    Stable Diffusion 1.5 projects into and out of its transformers by 1x1 convolutions; here these are linear layers.
    """
    matrices = {name for name, value in wanted.items() if value.ndim == 2}
    return {
        name: value.flatten(1) if name in matrices and value.shape[2:] == (1, 1) else value
        for name, value in tensors.items()
    }


def _cast(name: str, value: Tensor, device: torch.device | str, dtype: torch.dtype | None) -> Tensor:
    # The audio encoder runs only once per job, and its features drive every frame: keep it in full precision.
    half = dtype is not None and not name.startswith("audio_encoder.")
    return value.to(device, dtype if half else torch.float32) if value.is_floating_point() else value.to(device)


def _open_metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        with path.open("rb") as file:
            head = file.read(4)
        # A pickle starts with its protocol and an opcode; safetensors with the header's length, far below 2 MB.
        pickled = head[:1] == b"\x80" and head[1:2] in b"\2\3\4\5" and head[2:3] >= b"\x20"
        if pickled or head == b"PK\x03\x04":
            raise FadaError(
                f"{path.name} is a pickle with another name; FADA reads only safetensors, convert the file first."
            ) from error
        raise FadaError(f"{path.name} is not a whole safetensors file ({error}); download or copy it again.") from error
    if "fada.config" not in metadata:
        raise FadaError(f"{path.name} has no 'fada.config' in its metadata; it is not a FADA checkpoint.")
    return metadata


def _config(path: Path, metadata: dict[str, str]) -> ModelConfig:
    try:
        return config_from_dict(parse_json(metadata["fada.config"]))
    except RecordError as error:
        raise FadaError(f"'fada.config' in {path.name} cannot be used: {error}; the file is damaged.") from error
    except FadaError as error:
        raise FadaError(f"The config of {path.name} does not hold: {error}") from error


_FACTS: dict[str, Kind] = {
    "fada.steps": number(1, 10_000, whole=True),
    "fada.ref_cfg": number(0, 1000),
    "fada.audio_cfg": number(0, 1000),
    "fada.scale_ranges": several(several(number(0, 1000), 2, 2), 2, 2),
    "fada.training": OBJECT,
}
"""Metadata entries that are JSON, and what each has to be."""


def _info(path: Path, metadata: dict[str, str]) -> CheckpointInfo:
    roles: dict[str | None, Role] = {"teacher": "teacher", "student": "student"}
    role = roles.get(metadata.get("fada.role"))
    if role is None:
        found = shortened(str(metadata.get("fada.role")))
        raise FadaError(f"'fada.role' in {path.name} is '{found}', not teacher or student; the file is damaged.")
    try:
        facts = {name: parse_json(metadata[name]) for name in _FACTS if name in metadata}
        check(facts, _FACTS, ("fada.steps", "fada.ref_cfg", "fada.audio_cfg"))
        ranges = facts.get("fada.scale_ranges", CheckpointInfo.scale_ranges)
        if any(low > high for low, high in ranges):
            raise RecordError(f"its fada.scale_ranges are {shown(ranges)}, not lowest and highest")
    except RecordError as error:
        raise FadaError(f"The metadata of {path.name} cannot be used: {error}; the file is damaged.") from error
    (ref_low, ref_high), (audio_low, audio_high) = ranges
    return CheckpointInfo(
        role=role,
        steps=facts["fada.steps"],
        ref_cfg=float(facts["fada.ref_cfg"]),
        audio_cfg=float(facts["fada.audio_cfg"]),
        scale_ranges=((float(ref_low), float(ref_high)), (float(audio_low), float(audio_high))),
        license=metadata.get("fada.license", ""),
        source=metadata.get("fada.source", ""),
        training=facts.get("fada.training", {}),
    )


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise FadaError(f"{path.name} is not a whole safetensors file ({error}); download or copy it again.") from error


def _side_tensors(path: Path, folder: Path, metadata: dict[str, str], entry: str) -> dict[str, Tensor]:
    """Weights of the file or folder that `entry` of the metadata names; empty if the metadata has no such entry."""
    if entry not in metadata:
        return {}
    folder = folder.resolve()
    try:
        side = (folder / metadata[entry]).resolve()
        side.exists()
    except (OSError, ValueError) as error:  # the name is too long, or has a zero byte
        raise FadaError(f"'{entry}' in {path.name} is no name of a file; the file is damaged.") from error
    if not side.is_relative_to(folder):
        raise FadaError(f"'{entry}' in {path.name} points outside the checkpoint's folder; put the file next to it.")
    if side.is_dir():
        side = next((side / name for name in _SIDE_FILES if (side / name).is_file()), side / _SIDE_FILES[0])
    if not side.is_file():
        raise FadaError(f"{path.name} needs '{shortened(metadata[entry], 300)}' in the same folder; put it there.")
    return _read_tensors(side)


def _check(path: Path, found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    missing, unknown = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing:
        raise FadaError(
            f"{path.name} lacks '{missing[0]}' ({len(missing)} keys in all); it does not fit its own config."
        )
    if unknown:
        raise FadaError(
            f"{path.name} has the unknown key '{shortened(unknown[0], 120)}' ({len(unknown)} in all); it does not fit "
            "its own config."
        )
    for name, value in found.items():
        if value.shape != wanted[name].shape:
            raise FadaError(
                f"'{name}' in {path.name} has the shape {tuple(value.shape)}, not {tuple(wanted[name].shape)}; "
                "it does not fit its own config."
            )
        floating = wanted[name].is_floating_point()
        if value.is_floating_point() != floating or value.is_complex():
            raise FadaError(f"'{name}' in {path.name} holds {value.dtype}, which is no kind of weights; get it again.")
        if floating and not all_finite(value):
            raise FadaError(
                f"'{name}' in {path.name} has values that are not finite; the file is damaged or its training failed: "
                "get it again, or an earlier one."
            )
