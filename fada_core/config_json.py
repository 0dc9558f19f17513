"""Reads a model's config from a checkpoint's JSON and checks types, ranges and consistency before anything is built.

The ranges are far beyond any existing model. They keep a damaged or hostile config from taking excessive time or
memory; whether the weights fit the config is checked in checkpoint.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from .config import ModelConfig
from .errors import FadaError
from .records import FLAG, Kind, RecordError, check, choice, number, several, shortened, text

_COUNT, _SIZE = (1, 256), (1, 8192)
RANGES: dict[str, tuple[float, float]] = {
    "size": (16, 2048),
    "fps": (1, 120),
    "clip_frames": _COUNT,
    "motion_frames": (0, 64),
    "clip_overlap": (0, 255),
    "residual_std": (0, 100),
    "unet.in_channels": (1, 64),
    "unet.block_out_channels": (8, 2560),
    "unet.layers_per_block": (1, 8),
    "unet.num_heads": (1, 64),
    "unet.norm_groups": _COUNT,
    "unet.ff_mult": (1, 16),
    "unet.image_token_dim": (0, 8192),
    "unet.audio_token_dim": _SIZE,
    "unet.audio_regions": (0, 3),
    "unet.audio_attention_scale": (0, 100),
    "unet.motion_max_frames": (1, 512),
    "condition.identity_dim": (0, 8192),
    "condition.image_tokens": (0, 256),
    "condition.audio_tokens": (1, 1024),
    "condition.audio_window": (1, 65),
    "condition.audio_hidden": (0, 8192),
    "condition.face_channels": (1, 2048),
    "control.tokens": _COUNT,
    "control.dim": (2, 8192),
    "audio.layers": (1, 480),
    "audio.dim": _SIZE,
    "audio.mels": (0, 512),
    "audio.context_seconds": (0, 600),
    "audio.window_seconds": (0.1, 3600),
    "vae.latent_channels": (1, 64),
    "vae.downscale": (2, 64),
    "vae.scaling_factor": (1e-4, 1e4),
    "vae.shift_factor": (-1e4, 1e4),
    "vae.width": (1, 2048),
    "vae.decoder_cell": (2, 64),
    "vae.decoder_widths": (1, 2048),
    "vae.decoder_blocks": (0, 32),
    "schedule.train_timesteps": (1, 10_000),
    "schedule.beta_start": (1e-8, 0.5),
    "schedule.beta_end": (1e-8, 0.5),
}
"""Lowest and highest value of every number in a config, or of each entry if it is a list."""
_LONGEST = 8  #: entries of a list, which are levels of a network
_TRANSFORMER_LAYERS = 64  #: at most, in an audio encoder


def config_from_dict(values: Any) -> ModelConfig:
    """A config from parsed JSON, the inverse of `ModelConfig.to_dict`.

    Raises:
        FadaError: an entry is unknown, has the wrong type, is out of range or contradicts another one.
    """
    config = _build(ModelConfig, values, "")
    for holds, rule in _rules(config):
        if not holds:
            raise FadaError(f"It breaks the rule that {rule}; correct it.")
    return config


def _build(cls: type, values: Any, path: str) -> Any:
    hints = get_type_hints(cls)
    nested = {field.name: hints[field.name] for field in fields(cls) if is_dataclass(hints[field.name])}
    if isinstance(values, Mapping):
        for name in values:
            if name not in hints:
                raise FadaError(
                    f"The config has an unknown entry '{path}{shortened(name)}'; the file needs a newer version of "
                    "FADA."
                )
    kinds = {name: _kind(hint, f"{path}{name}") for name, hint in hints.items() if name not in nested}
    try:
        check(values, kinds)
    except RecordError as error:
        raise FadaError(f"In {path[:-1] or 'it'}, {error}; correct it.") from error
    built = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    for name, part in nested.items():
        if name in values:
            built[name] = _build(part, values[name], f"{path}{name}.")
    return cls(**built)


def _kind(hint: Any, name: str) -> Kind:
    """The check for the entry `name`, which has this type hint."""
    if get_origin(hint) is tuple:
        first, *others = get_args(hint)
        if others == [...]:
            return several(_kind(first, name), 1, _LONGEST)
        return several(_kind(first, name), 1 + len(others), 1 + len(others))
    if get_origin(hint) is Literal:
        return choice(*get_args(hint))
    if hint is bool:
        return FLAG
    if hint is str:
        return text(longest=200)
    return number(*RANGES[name], whole=hint is int)


def _rules(config: ModelConfig) -> list[tuple[bool, str]]:
    """Consistency rules besides those of `ModelConfig` itself, as (whether it holds, the rule in words)."""
    unet, vae, audio, schedule = config.unet, config.vae, config.audio, config.schedule
    widths, tiny, mel = unet.block_out_channels, vae.kind == "tiny", audio.kind == "mel"
    divisors = (2, unet.norm_groups, unet.num_heads)
    divided = all(width % divisor == 0 for width in widths for divisor in divisors)
    tokens = bool(config.condition.identity_dim) == bool(unet.image_token_dim and config.condition.image_tokens)
    heads, layers = 2 * max(1, audio.dim // 64), audio.layers // (10 if audio.kind == "whisper" else 1)
    prediction = schedule.prediction == "v"
    return [
        (
            len(unet.attention_levels) == len(widths),
            "attention_levels has an entry for each of block_out_channels",
        ),
        (divided, "block_out_channels divide by 2, norm_groups and num_heads"),
        (unet.in_channels == vae.latent_channels, "unet.in_channels are vae.latent_channels"),
        (tokens, "identity_dim goes with image_token_dim and image_tokens"),
        (config.condition.audio_window % 2 == 1, "audio_window is odd"),
        (mel or (audio.dim % heads == 0 and layers <= _TRANSFORMER_LAYERS), "audio.dim and layers are a transformer's"),
        (not mel or audio.mels > 0, "a mel encoder has mels"),
        (vae.downscale in ((8, 16) if tiny else (8,)), "vae.downscale is 8, or 16 for the kind tiny"),
        (not tiny or vae.latent_channels % 4 == 0, "a tiny autoencoder has a multiple of 4 latent_channels"),
        (
            not tiny or vae.decoder_cell in (vae.downscale // 2, vae.downscale),
            "decoder_cell is downscale or half",
        ),
        (len(vae.decoder_widths) == len(vae.decoder_blocks), "decoder_blocks has an entry for each of decoder_widths"),
        (not tiny or 2 ** (len(vae.decoder_widths) - 1) <= vae.decoder_cell, "decoder_cell halves for each width"),
        (schedule.beta_start <= schedule.beta_end, "beta_start is no more than beta_end"),
        (prediction or not schedule.zero_snr, "zero_snr goes with the prediction v"),
        (prediction or not config.residual_std, "residual_std goes with the prediction v"),
    ]
