"""Reads the networks of other projects: autoencoder and audio encoder, as folders or single files."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ..config import AudioEncoderConfig, VAEConfig
from ..errors import FadaError
from ..models.audio import audio_encoder_weights
from ..models.vae import vae_weights
from ..records import read_json, shown
from .files import find, read_tensors

_VAE_STEMS = ("diffusion_pytorch_model", "sd-vae-ft-mse", "vae-ft-mse-840000-ema-pruned")
_AUDIO_STEMS = ("model", "pytorch_model", "whisper_tiny", "tiny")


def read_vae(path: Path, config: VAEConfig) -> tuple[VAEConfig, dict[str, Tensor]]:
    """The autoencoder's config (the given one, or TAESD's) and its tensors under their names in the checkpoint.

    Args:
        path: a folder of diffusers, a file, a folder with taesd_encoder and taesd_decoder, or one of these two files.

    Raises:
        FadaError: the file is missing, or the autoencoder has other latents than the networks.
    """
    folder = path if path.is_dir() else path.parent
    halves = [find([folder], f"taesd_{half}coder") for half in ("en", "de")]
    pair = [half for half in halves if half is not None]
    if len(pair) == 2 and (path.is_dir() or path in pair):
        taesd = {half: read_tensors(half, "TAESD's encoder and decoder") for half in pair}
        tensors = {f"{half.stem}.{name}": value for half, own in taesd.items() for name, value in own.items()}
    else:
        tensors = read_tensors(_file(path, _VAE_STEMS, "autoencoder", "--vae"), "the autoencoder, sd-vae-ft-mse")
        _check_scale(path, config)
    if any(name.startswith("taesd_") or ".layers." in name for name in tensors):
        config = VAEConfig(kind="taesd", scaling_factor=1.0)
    return config, {f"vae.{name}": value for name, value in vae_weights(config, tensors).items()}


def read_audio_encoder(path: Path, config: AudioEncoderConfig) -> dict[str, Tensor]:
    """The audio encoder's tensors under their names in the checkpoint.

    Args:
        path: a folder of transformers, or a file, which may be ComfyUI's (models/audio_encoders) or OpenAI's Whisper.

    Raises:
        FadaError: the file is missing, or another network.
    """
    name = {"wav2vec2": "wav2vec2-base-960h", "whisper": "whisper-tiny"}[config.kind]
    tensors = read_tensors(_file(path, _AUDIO_STEMS, "audio encoder", "--audio-encoder"), f"the audio encoder, {name}")
    named = audio_encoder_weights(config, tensors)
    return {f"audio_encoder.model.{name}": value for name, value in named.items()}


def _file(path: Path, stems: tuple[str, ...], what: str, option: str) -> Path:
    if path.is_file():
        return path
    found = find([path], *stems)
    if found is None:
        raise FadaError(f"There is no {what} in '{path}'; give its folder or file with {option}.")
    return found


def _check_scale(path: Path, config: VAEConfig) -> None:
    # SDXL's autoencoder has the same shapes; only the config of diffusers distinguishes them.
    described = path / "config.json"
    if described.is_file():
        settings = read_json(described, "the autoencoder's description")
        scale = settings.get("scaling_factor", config.scaling_factor) if isinstance(settings, dict) else None
        if scale not in (config.scaling_factor, 1.0):
            raise FadaError(
                f"The autoencoder in '{path}' has the scaling factor {shown(scale)}, not {config.scaling_factor}; it "
                "is for another model, give sd-vae-ft-mse."
            )
