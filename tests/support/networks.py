"""Small networks with random weights, and their inputs."""

from __future__ import annotations

from dataclasses import replace

import torch

from fada_core.config import ECHOMIMIC, PORTRAIT, AudioEncoderConfig, ModelConfig
from fada_core.models.audio.projection import clip_windows
from fada_core.models.inputs import Subject
from fada_core.models.networks import Networks
from fada_core.sampling.denoise import Denoiser, prepare_subject, sample_clip
from fada_core.settings import SamplingSettings
from tests.support.small import SMALL_UNET, SMALL_VAE

FRAME = 640  #: samples of one frame at 25 fps

SMALL = replace(
    PORTRAIT,
    name="small",
    size=64,
    clip_frames=4,
    unet=SMALL_UNET,
    condition=replace(PORTRAIT.condition, audio_hidden=16, audio_tokens=2),
    vae=SMALL_VAE,
)
"""The preset of the shipped models at a width that takes milliseconds."""

IDENTITY = replace(
    SMALL,
    unet=replace(SMALL.unet, image_token_dim=24, concat_reference=False, audio_regions=3),
    condition=replace(SMALL.condition, identity_dim=10, image_tokens=3, face_locator=True),
    residual_std=0.0,
    motion_space="pixels",
)
"""The same with what Hallo's networks have on top: identity tokens, face locator, audio regions."""

OVERLAPPING = replace(
    ECHOMIMIC,
    size=32,
    clip_frames=4,
    clip_overlap=1,
    unet=replace(
        ECHOMIMIC.unet,
        block_out_channels=(8, 16),
        layers_per_block=1,
        attention_levels=(True, False),
        num_heads=2,
        norm_groups=4,
        ff_mult=1,
        audio_token_dim=8,
    ),
    condition=replace(ECHOMIMIC.condition, audio_tokens=10, face_channels=(1, 4, 4, 4, 4)),
    audio=AudioEncoderConfig(kind="whisper", layers=10, dim=8),
    vae=replace(ECHOMIMIC.vae, kind="tiny", width=8, decoder_widths=(16, 8)),
)
"""EchoMimic's networks at a small size: their windows overlap."""


def make_networks(config: ModelConfig) -> Networks:
    """Networks with random weights, also in the residual branches, so that every input affects the output."""
    networks = Networks(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in networks.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, 0.7 * parameter[0].numel() ** -0.5, generator=generator)
        else:
            parameter.fill_(float(name.endswith("weight")))
    return networks


def make_subject(networks: Networks) -> Subject:
    config, generator = networks.config, torch.Generator().manual_seed(1)
    side = config.size // config.vae.downscale
    portrait = torch.randn(1, config.vae.latent_channels, side, side, generator=generator)
    identity = face_box = None
    if config.condition.identity_dim:
        identity = torch.randn(1, config.condition.identity_dim, generator=generator)
        face_box = torch.ones(1, 3, config.size, config.size)
    return prepare_subject(networks, portrait, identity, face_box)


def make_features(config: ModelConfig, frames: int) -> torch.Tensor:
    return torch.randn(frames, config.audio.layers, config.audio.dim, generator=torch.Generator().manual_seed(2))


def speech(samples: int) -> torch.Tensor:
    """Noise, (samples,)."""
    return 0.3 * torch.randn(samples, generator=torch.Generator().manual_seed(1))


def run_clip(networks: Networks, subject: Subject | None = None, seed: int = 0, **settings):
    subject = make_subject(networks) if subject is None else subject
    config = networks.config
    audio = clip_windows(make_features(config, 9), 0, config.clip_frames, config.condition.audio_window)
    motion = subject.portrait[:, None].expand(-1, config.motion_frames, -1, -1, -1)
    generator = torch.Generator().manual_seed(seed)
    return sample_clip(Denoiser(networks), subject, motion, audio, SamplingSettings(**settings), generator)
