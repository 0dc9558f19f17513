"""All networks of one model, with two computations: inputs -> conditioning, noisy latents -> prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from ..errors import FadaError
from . import precondition
from .audio import build_audio_encoder
from .audio.projection import AudioProjection
from .face import FaceLocator, ImageProjection
from .inputs import ClipInputs, ReferenceFeatures
from .reference import ReferenceUNet
from .unet import Conditioning, DenoisingUNet
from .vae import build_vae


@dataclass(frozen=True)
class ClipConditioning:
    """Everything that the denoising steps of a batch of clips share, from `Networks.condition`."""

    unet: Conditioning
    portrait: Tensor  #: latents, (batch, c, h, w) float32, in the UNet's order of rows
    rows: Tensor | None  #: for each row of the UNet, the caller's row; None: the order is the same
    back: Tensor | None  #: the inverse of `rows`


class Networks(nn.Module):
    """The networks that `config` describes, with fresh weights.

    Args:
        config: the model.
        operations: namespace of the layer classes, like `torch.nn`.
        device, dtype: of all parameters except the audio encoder's, which are float32.

    Raises:
        FadaError: the config's entries contradict each other.
    """

    def __init__(self, config: ModelConfig, *, operations: Any = nn, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        if config.residual_std and config.schedule.prediction != "v":
            raise FadaError("residual_std needs a model that predicts v; set prediction to 'v' or residual_std to 0.")
        self.config = config
        made = {"operations": operations, "device": device, "dtype": dtype}
        condition = config.condition
        self.reference_unet = ReferenceUNet(config, **made)
        self.denoising_unet = DenoisingUNet(config, **made)
        self.audioproj = AudioProjection(config, **made) if condition.audio_hidden else None
        self.imageproj = ImageProjection(config, **made) if condition.identity_dim else None
        self.face_locator = FaceLocator(config, **made) if condition.face_locator else None
        self.vae = build_vae(config.vae, **made)
        self.audio_encoder = build_audio_encoder(config.audio)

    @property
    def device(self) -> torch.device:
        return next(self.denoising_unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.denoising_unet.parameters()).dtype

    def image_tokens(self, identity: Tensor | None, drop: Tensor) -> Tensor | None:
        """Identity tokens, (batch, image_tokens, image_token_dim), or None for models without.

        Args:
            identity: face embeddings, (batch, identity_dim); None: unknown, replaced by zeros.
            drop: (batch,) bool, rows whose identity is hidden, also by an embedding of zeros.
        """
        if self.imageproj is None:
            return None
        if identity is None:
            identity = torch.zeros(len(drop), self.config.condition.identity_dim, device=drop.device)
        return self.imageproj(identity.masked_fill(drop[:, None], 0.0).to(self.dtype))

    def reference_features(
        self, portrait: Tensor | ReferenceFeatures, motion: Tensor, tokens: Tensor | None
    ) -> ReferenceFeatures:
        """Features of the reference UNet, with batch * (1 + motion_frames) rows: each portrait and its motion frames.

        Args:
            portrait: latents, (batch, c, h, w), or their features from an earlier call without motion frames.
            motion: latents of the frames before the clip, (batch, motion_frames, c, h, w).
            tokens: from `image_tokens`.
        """
        batch, frames = motion.shape[:2]
        if self.config.hallo_compat and isinstance(portrait, Tensor):
            # The published code repeats the batch of tokens instead of each row's tokens: row r gets tokens r % batch.
            latents = torch.cat([portrait[:, None], motion], 1).flatten(0, 1)
            repeated = None if tokens is None else tokens.repeat(1 + frames, 1, 1)
            return self.reference_unet(latents.to(self.dtype), repeated)
        features = self.reference_unet(portrait.to(self.dtype), tokens) if isinstance(portrait, Tensor) else portrait
        if not frames:
            return features
        repeated = None if tokens is None else tokens.repeat_interleave(frames, 0)
        moving = self.reference_unet(motion.flatten(0, 1).to(self.dtype), repeated)
        return {
            name: torch.cat([rows[:, None], moving[name].unflatten(0, (batch, frames))], 1).flatten(0, 1)
            for name, rows in features.items()
        }

    def condition(self, inputs: ClipInputs, features: ReferenceFeatures | None = None) -> ClipConditioning:
        """Compute everything that is constant over the denoising steps of a batch of clips; differentiable.

        Args:
            features: from `reference_features`, for the same rows; computed here if None.

        Raises:
            FadaError: an input that the model needs is missing.
        """
        batch = len(inputs)
        no_reference, no_audio = (
            inputs.portrait.new_zeros(batch, dtype=torch.bool) if drop is None else drop
            for drop in (inputs.drop_reference, inputs.drop_audio)
        )
        # The UNet skips work for its first rows: sort rows without reference first, and silent ones first among them.
        dropped = torch.stack([no_reference, no_audio], 1).tolist()
        order = sorted(range(batch), key=lambda row: (not dropped[row][0], not dropped[row][1]))
        dropped = [dropped[row] for row in order]
        rows = None
        if order != list(range(batch)):
            rows = torch.tensor(order, device=inputs.portrait.device)
            inputs, no_reference, no_audio = inputs.select(rows), no_reference[rows], no_audio[rows]
        tokens = self.image_tokens(inputs.identity, no_reference)
        if features is None:
            features = self.reference_features(inputs.portrait, inputs.motion, tokens)
        elif rows is not None:
            features = {name: value.unflatten(0, (batch, -1))[rows].flatten(0, 1) for name, value in features.items()}

        audio = inputs.audio.to(self.dtype)
        audio_tokens = audio.flatten(2, 3) if self.audioproj is None else self.audioproj(audio)
        face = concatenated = None
        if self.face_locator is not None:
            if inputs.face_box is None:
                raise FadaError("This model needs the face's place in the portrait; pass face_box.")
            face = self.face_locator(inputs.face_box.to(self.dtype)).masked_fill(no_reference[:, None, None, None], 0.0)
        if self.config.unet.concat_reference:
            concatenated = inputs.portrait.masked_fill(no_reference[:, None, None, None], 0.0).to(self.dtype)
        masks = inputs.masks
        unet = self.denoising_unet.prepare(
            audio_tokens=audio_tokens.masked_fill(no_audio[:, None, None, None], 0.0),
            reference=features,
            image_tokens=tokens,
            face_latents=face,
            reference_latents=concatenated,
            scales=inputs.scales,
            masks=None if masks is None else [[_per_frame(mask, audio) for mask in level] for level in masks],
            region_weights=inputs.region_weights,
            unreferenced_rows=sum(reference for reference, _ in dropped),
            # In training, all weights have to take part in each step, because processes synchronise all gradients.
            silent_rows=0 if torch.is_grad_enabled() else [*(silent for _, silent in dropped), False].index(False),
            hallo_compat=self.config.hallo_compat,
        )
        back = None if rows is None else rows.argsort()
        return ClipConditioning(unet, inputs.portrait, rows, back)

    def predict(
        self, latents: Tensor, timesteps: Tensor, alpha: Tensor, sigma: Tensor, conditioning: ClipConditioning
    ) -> Tensor:
        """v or noise (the config's `prediction`), (batch, frames, c, h, w) float32, after residual preconditioning.

        Args:
            latents: x_t, (batch, frames, c, h, w) float32.
            timesteps: (batch,) int64.
            alpha, sigma: the schedule's amplitudes at `timesteps`, (batch,) float32 or scalars.
            conditioning: from `condition`, for the same rows.
        """
        rows, portrait, std = conditioning.rows, conditioning.portrait, self.config.residual_std
        if rows is not None:
            latents, timesteps = latents[rows], timesteps[rows]
            alpha, sigma = (value[rows] if value.ndim else value for value in (alpha, sigma))
        seen = latents
        if std:
            sees_portrait = torch.arange(len(latents), device=latents.device) >= conditioning.unet.unreferenced_rows
            seen = precondition.network_input(latents, portrait, alpha, sigma, std, sees_portrait)
        flat = self.denoising_unet(seen.flatten(0, 1).to(self.dtype), timesteps, conditioning.unet)
        output = flat.float().unflatten(0, latents.shape[:2])
        if std:
            output = precondition.velocity(output, latents, portrait, alpha, sigma, std, sees_portrait)
        return output if rows is None else output[conditioning.back]


def _per_frame(mask: Tensor, audio: Tensor) -> Tensor:
    """Repeat a mask with one row per batch row, (batch, hw, 1), for all frames; leave other masks as they are."""
    batch, frames = audio.shape[:2]
    return mask.repeat_interleave(frames, 0) if len(mask) == batch > 1 else mask
