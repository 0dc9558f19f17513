"""Dataclasses that describe a model completely, and the named presets.

A config is all that is needed to build the networks and to sample from them; a checkpoint stores it as JSON in its
metadata (`fada.config`). The `sd15` preset describes Hallo (arXiv 2406.08801) and its public weights.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from .errors import FadaError


@dataclass(frozen=True)
class UNetConfig:
    """Shapes of the denoising UNet, which the reference UNet shares up to its attention blocks.

    Defaults are Stable Diffusion 1.5 with Hallo's audio and motion modules.
    """

    in_channels: int = 4  #: latent channels (of x_t alone, without those that `concat_reference` adds)
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    attention_levels: tuple[bool, ...] = (True, True, True, False)  #: levels with spatial, audio and motion blocks
    num_heads: int = 8
    norm_groups: int = 32
    ff_mult: int = 4  #: hidden width of every GEGLU feed-forward, as a multiple of its input
    image_token_dim: int = 768  #: width of the identity tokens; 0: no image cross-attention
    audio_token_dim: int = 768  #: width of the audio tokens
    audio_self_attention: bool = True  #: spatial self-attention in the audio modules, before the audio (Hallo)
    audio_regions: int = 3  #: parallel masked audio attentions (full, face, lip); 1: one unmasked; 0: no audio modules
    audio_time_embedding: bool = False  #: add the frame's projected audio tokens to its time embedding
    audio_attention_scale: float = 0.0
    """Above 0: the spatial blocks attend to audio tokens instead of identity tokens, and the result is multiplied by
    this (EchoMimic: 3)."""
    motion_everywhere: bool = False
    """Motion modules also at the levels without attention, as in EchoMimic. Hallo's weights contain them, but its code
    does not use them."""
    motion_max_frames: int = 32  #: length of the motion modules' sine table
    gated_output: bool = False
    """An additional output channel gates the others cell by cell, so that still regions can be exactly zero."""
    concat_reference: bool = False
    """conv_in also takes the latents of the portrait (zeros without reference)."""


@dataclass(frozen=True)
class ConditionConfig:
    """What the UNet is conditioned on, and the small networks that prepare it."""

    identity_dim: int = 512  #: face embedding (ArcFace) for the image tokens; 0: no identity embedding
    image_tokens: int = 4
    audio_tokens: int = 32  #: tokens per frame after the audio projection
    audio_window: int = 5  #: frames of audio features that the projection sees: the frame itself and its neighbours
    audio_hidden: int = 512  #: inner width of the audio projection; 0: no projection, the encoder's rows are the tokens
    audio_activation: Literal["relu", "silu"] = "relu"
    face_locator: bool = True  #: encode an image of the face's box and add it after conv_in
    face_channels: tuple[int, ...] = (3, 16, 32, 64, 128)  #: channels of that image, then of the face locator's levels


@dataclass(frozen=True)
class ControlConfig:
    """How a student takes the guidance scales as input (FADA's learnable CFG tokens); teachers have none."""

    kind: Literal["none", "tokens", "embedding"] = "none"
    """`tokens`: three learned token sets, mixed like the three predictions of guidance, enter every spatial attention
    through a control layer. `embedding`: both scales are added to the time embedding (the ablation)."""
    tokens: int = 4  #: in each of the three sets
    dim: int = 768  #: width of a token, or of a scale's sine features


@dataclass(frozen=True)
class AudioEncoderConfig:
    """Per-frame audio features of shape (frames, layers, dim)."""

    kind: Literal["wav2vec2", "whisper", "mel"] = "wav2vec2"
    layers: int = 12  #: whisper: (layers + 1 hidden states) times the 10 rows of 20 ms around a frame
    dim: int = 768
    mels: int = 0  #: mel only: number of mel bands; dim = mels * spectrogram columns of one video frame
    context_seconds: float = 10.0  #: audio on each side of a window that is encoded with it, and then dropped
    window_seconds: float = 60.0  #: longer audio is encoded in windows of this length


@dataclass(frozen=True)
class VAEConfig:
    """The autoencoder. `kl`: diffusers' AutoencoderKL (SD 1.5's shapes); `taesd`: AutoencoderTiny, a small one with the
    same latents; `tiny`: the project's own small autoencoder."""

    kind: Literal["kl", "taesd", "tiny"] = "kl"
    latent_channels: int = 4
    downscale: int = 8  #: pixels per latent cell and axis
    scaling_factor: float = 0.18215
    shift_factor: float = 0.0
    # tiny only:
    width: int = 48  #: channels of the encoder's first level
    decoder_cell: int = 4  #: pixels per cell and axis at the decoder's first level: `downscale` or half of it
    decoder_widths: tuple[int, ...] = (96, 48)  #: channels of each decoder level; all but the first double the size
    decoder_blocks: tuple[int, ...] = (4, 2)  #: residual blocks of each decoder level


@dataclass(frozen=True)
class ScheduleConfig:
    """The noise schedule that a checkpoint was trained or is sampled with (names as in diffusers)."""

    train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: Literal["linear", "scaled_linear"] = "linear"
    zero_snr: bool = True  #: rescale betas to zero terminal SNR (Lin et al. 2305.08891, algorithm 1)
    prediction: Literal["v", "epsilon"] = "v"
    spacing: Literal["trailing"] = "trailing"
    previous_timestep: Literal["next", "stride"] = "next"
    """The timestep that a sampling step leads to. `next`: the next one of the list, and the clean sample after the
    last; `stride`: t - N_train // N, as in diffusers' DDIM and hence in Hallo and EchoMimic (this differs if N does not
    divide N_train)."""


@dataclass(frozen=True)
class ModelConfig:
    """Everything about one model; `fps`, `size` and the clip layout are those of its training."""

    name: str = "sd15"
    size: int = 512  #: side of the square picture in pixels
    fps: float = 25.0
    clip_frames: int = 16
    motion_frames: int = 2
    clip_overlap: int = 0
    """Above 0: clips are not chained; all are denoised together as windows that share this many frames (EchoMimic)."""
    hallo_compat: bool = False
    """Repeat a bug of the published code, which assigns image tokens and reference rows by the parity of the row."""
    motion_space: Literal["latents", "pixels"] = "pixels"
    """How a clip's last frames are passed on to the next clip: as latents, or decoded and encoded again as in Hallo."""
    residual_std: float = 0.0
    """Above 0: the network predicts the residual to the portrait's latents, divided by this assumed deviation.

    Most of a talking portrait stands still: for the avatars the residual's standard deviation is 0.58, its median
    magnitude 0.03. Choose a value well below that deviation: then still regions stay clean, and the network predicts
    only motion.
    """
    unet: UNetConfig = field(default_factory=UNetConfig)
    condition: ConditionConfig = field(default_factory=ConditionConfig)
    control: ControlConfig = field(default_factory=ControlConfig)
    audio: AudioEncoderConfig = field(default_factory=AudioEncoderConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)

    def __post_init__(self) -> None:
        if self.size % (self.vae.downscale * 2 ** (len(self.unet.block_out_channels) - 1)):
            raise FadaError(f"size {self.size} does not divide by the networks' total downscale; choose a multiple.")
        if self.clip_frames + self.motion_frames > self.unet.motion_max_frames:
            raise FadaError(
                f"clip_frames + motion_frames is {self.clip_frames + self.motion_frames}, more than the motion "
                f"modules' {self.unet.motion_max_frames} positions; lower one of them."
            )
        if self.clip_overlap and (self.motion_frames or self.clip_overlap >= self.clip_frames):
            raise FadaError("clip_overlap has to be smaller than clip_frames, and goes with motion_frames 0.")
        if self.unet.audio_attention_scale and self.unet.image_token_dim:
            raise FadaError("Spatial blocks attend to audio or to identity tokens; set one of the two to 0.")
        rows = self.condition.audio_window * self.audio.layers, self.audio.dim
        if not self.condition.audio_hidden and rows != (self.condition.audio_tokens, self.unet.audio_token_dim):
            raise FadaError(
                f"Without audio projection a frame has {rows[0]} audio tokens of width {rows[1]}, not "
                f"{self.condition.audio_tokens} of {self.unet.audio_token_dim}; correct the config."
            )

    @property
    def sides(self) -> list[int]:
        """Side of the UNet's feature maps at each level, in cells; the finest is that of the latents."""
        return [self.size // self.vae.downscale >> level for level in range(len(self.unet.block_out_channels))]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


SD15 = ModelConfig()

PORTRAIT = ModelConfig(
    name="portrait",
    size=256,
    clip_frames=12,
    motion_frames=2,
    motion_space="latents",
    residual_std=0.1,
    unet=UNetConfig(
        in_channels=64,
        block_out_channels=(96, 128, 144),
        layers_per_block=1,
        attention_levels=(False, True, True),
        num_heads=4,
        norm_groups=16,
        ff_mult=2,
        image_token_dim=0,
        audio_token_dim=96,
        audio_self_attention=False,
        audio_regions=1,
        audio_time_embedding=True,
        gated_output=True,
        concat_reference=True,
    ),
    condition=ConditionConfig(
        identity_dim=0,
        image_tokens=0,
        audio_tokens=8,
        audio_window=11,  # lips prepare for sounds 200 ms ahead
        audio_hidden=512,
        audio_activation="silu",
        face_locator=False,
    ),
    audio=AudioEncoderConfig(kind="mel", layers=1, dim=160, mels=40, context_seconds=1.0, window_seconds=30.0),
    vae=VAEConfig(
        kind="tiny",
        latent_channels=64,
        downscale=16,
        scaling_factor=1.0,
        width=64,
        decoder_cell=8,
        decoder_widths=(128, 64, 24),
        decoder_blocks=(3, 2, 1),
    ),
)
"""The shipped models, for any portrait, at 256 px: with latent cells of 16 px a clip takes seconds on a CPU."""

ECHOMIMIC = ModelConfig(
    name="echomimic",
    fps=24.0,
    clip_frames=12,
    motion_frames=0,
    clip_overlap=3,
    unet=UNetConfig(
        image_token_dim=0, audio_token_dim=384, audio_regions=0, audio_attention_scale=3.0, motion_everywhere=True
    ),
    condition=ConditionConfig(
        identity_dim=0,
        image_tokens=0,
        audio_tokens=50,
        audio_window=1,
        audio_hidden=0,
        face_channels=(1, 16, 32, 96, 256),
    ),
    audio=AudioEncoderConfig(kind="whisper", layers=50, dim=384),
    schedule=ScheduleConfig(previous_timestep="stride"),
)
"""EchoMimic (arXiv 2407.08136): networks like Hallo's, whose spatial blocks attend to Whisper's features."""

PRESETS: dict[str, ModelConfig] = {"sd15": SD15, "echomimic": ECHOMIMIC, "portrait": PORTRAIT}


def preset(name: str, **changes: Any) -> ModelConfig:
    """A named preset, optionally with some top-level entries changed."""
    if name not in PRESETS:
        raise FadaError(f"There is no preset '{name}'; choose one of {', '.join(PRESETS)}.")
    return replace(PRESETS[name], **changes)
