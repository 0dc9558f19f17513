"""All networks of one model, and what is done with them: prepare the conditions of a clip, predict its noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from ..errors import FadaError
from . import precondition
from .audio import build_audio_encoder
from .audio.projection import AudioProjection
from .face import FaceLocator, ImageProjection
from .reference import ReferenceUNet
from .unet import Conditioning, DenoisingUNet
from .vae import build_vae

ReferenceFeatures = dict[str, Tensor]
"""Attention block -> what the reference UNet saw there, (rows, h*w, c)."""


class Networks(nn.Module):
    """The networks that `config` describes, with fresh weights.

    Args:
        config: the model.
        operations: where layer classes are taken from, `torch.nn` or a namespace like it.
        device, dtype: of every parameter; the audio encoder stays in float32 (it runs once a job).

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
        """Identity tokens, (batch, image_tokens, image_token_dim), or None where the preset has none.

        Args:
            identity: face embeddings, (batch, identity_dim); None: no face is known, which is an embedding of zeros.
            drop: (batch,) bool, rows whose identity is hidden: they get the tokens of an embedding of zeros.
        """
        if self.imageproj is None:
            return None
        if identity is None:
            identity = torch.zeros(len(drop), self.config.condition.identity_dim, device=drop.device)
        return self.imageproj(identity.masked_fill(drop[:, None], 0.0).to(self.dtype))

    def reference_features(
        self, portrait: Tensor | ReferenceFeatures, motion: Tensor, tokens: Tensor | None
    ) -> ReferenceFeatures:
        """Reference UNet's features of portraits and motion frames; rows: each portrait followed by its motion frames.

        Args:
            portrait: latents, (batch, c, h, w), or this method's features of them (from an earlier clip, with no
                motion frames).
            motion: latents of the frames before the clip, (batch, motion_frames, c, h, w).
            tokens: from `image_tokens`.
        """
        batch, frames = motion.shape[:2]
        if self.config.hallo_compat and isinstance(portrait, Tensor):
            # The published code repeats the token batch instead of each row's tokens: row r gets tokens r % batch.
            latents = torch.cat([portrait[:, None], motion], 1).flatten(0, 1)
            repeated = None if tokens is None else tokens.repeat(1 + frames, 1, 1)
            return self.reference_unet(latents.to(self.dtype), repeated)
        if isinstance(portrait, Tensor):
            portrait = self.reference_unet(portrait.to(self.dtype), tokens)
        if not frames:
            return portrait
        repeated = None if tokens is None else tokens.repeat_interleave(frames, 0)
        moving = self.reference_unet(motion.flatten(0, 1).to(self.dtype), repeated)
        return {
            name: torch.cat([rows[:, None], moving[name].unflatten(0, (batch, frames))], 1).flatten(0, 1)
            for name, rows in portrait.items()
        }

    def condition_features(
        self,
        features: ReferenceFeatures,
        portrait: Tensor,
        motion: Tensor,
        tokens: Tensor | None,
        audio: Tensor,
        *,
        drop_reference: Tensor,
        drop_audio: Tensor,
        face_box: Tensor | None = None,
        scales: Tensor | None = None,
        masks: Sequence[Sequence[Tensor]] | None = None,
        region_weights: tuple[float, ...] = (1.0, 1.0, 1.0),
    ) -> Conditioning:
        """Keys and values of a clip from what the reference UNet saw; see `condition` for the arguments.

        Args:
            features, tokens: from `reference_features` and `image_tokens`, for the same rows.
        """
        plain_rows = int(drop_reference.sum())
        if drop_reference[plain_rows:].any():
            raise ValueError("rows without reference have to come first")
        audio = audio.to(self.dtype)
        audio_tokens = audio.flatten(2, 3) if self.audioproj is None else self.audioproj(audio)
        audio_tokens = audio_tokens.masked_fill(drop_audio[:, None, None, None], 0.0)
        hidden = drop_reference[:, None, None, None]
        face = None
        if self.face_locator is not None:
            if face_box is None:
                raise FadaError("This model needs the face's place in the portrait; pass face_box.")
            face = self.face_locator(face_box.to(self.dtype)).masked_fill(hidden, 0.0)
        concatenated = None
        if self.config.unet.concat_reference:
            concatenated = portrait.masked_fill(hidden, 0.0).to(self.dtype)
        return self.denoising_unet.prepare(
            audio_tokens=audio_tokens,
            reference=features,
            image_tokens=tokens,
            face_latents=face,
            reference_latents=concatenated,
            scales=scales,
            masks=None if masks is None else [[_per_frame(mask, audio) for mask in level] for level in masks],
            region_weights=region_weights,
            plain_rows=plain_rows,
            # In training every weight takes part in every step, as gradients shared by processes need it.
            silent_rows=0 if torch.is_grad_enabled() else _leading(drop_audio),
            hallo_compat=self.config.hallo_compat,
        )

    def condition(
        self,
        portrait: Tensor,
        motion: Tensor,
        audio: Tensor,
        *,
        drop_reference: Tensor,
        drop_audio: Tensor,
        identity: Tensor | None = None,
        face_box: Tensor | None = None,
        scales: Tensor | None = None,
        masks: Sequence[Sequence[Tensor]] | None = None,
        region_weights: tuple[float, ...] = (1.0, 1.0, 1.0),
    ) -> Conditioning:
        """All conditions of a clip from its inputs; differentiable.

        Args:
            portrait: latents, (batch, c, h, w).
            motion: latents of the frames before the clip, (batch, motion_frames, c, h, w).
            audio: audio features around each frame, (batch, frames, window, layers, dim).
            drop_reference: (batch,) bool, rows that do not see the portrait, its identity and its face box; they come
                first. They keep their motion frames, as in Hallo.
            drop_audio: (batch,) bool, rows whose audio tokens are zeros.
            identity: face embeddings, (batch, identity_dim), for presets with identity tokens; None: not known.
            face_box: pictures of the face's box, (batch, 1 or 3, size, size) in 0..1, for presets with a face locator.
            scales: guidance scales, ref_cfg and audio_cfg of each row, (batch, 2), for students.
            masks: masks[level][region], each (1 or batch or batch * frames, hw, 1) in 0..1; None: the whole picture.
            region_weights: strength of each region's audio attention.
        """
        tokens = self.image_tokens(identity, drop_reference)
        features = self.reference_features(portrait, motion, tokens)
        return self.condition_features(
            features,
            portrait,
            motion,
            tokens,
            audio,
            drop_reference=drop_reference,
            drop_audio=drop_audio,
            face_box=face_box,
            scales=scales,
            masks=masks,
            region_weights=region_weights,
        )

    def predict(
        self,
        latents: Tensor,
        timesteps: Tensor,
        alpha: Tensor,
        sigma: Tensor,
        portrait: Tensor,
        conditioning: Conditioning,
    ) -> Tensor:
        """v or noise (the config's `prediction`), (batch, frames, c, h, w) float32, residual preconditioning included.

        Args:
            latents: x_t, (batch, frames, c, h, w) float32.
            timesteps: (batch,) int64.
            alpha, sigma: the schedule's amplitudes at `timesteps`, (batch,) float32, or scalars for all rows.
            portrait: latents, (batch, c, h, w) float32; rows without reference are ignored.
            conditioning: from `condition`, for the same rows.
        """
        std = self.config.residual_std
        if not std:
            return self._output(latents, timesteps, conditioning)
        sees_portrait = torch.arange(len(latents), device=latents.device) >= conditioning.plain_rows
        seen = precondition.network_input(latents, portrait, alpha, sigma, std, sees_portrait)
        output = self._output(seen, timesteps, conditioning)
        return precondition.velocity(output, latents, portrait, alpha, sigma, std, sees_portrait)

    def guided_step(
        self,
        x: Tensor,
        timesteps: Tensor,
        alpha: Tensor,
        sigma: Tensor,
        weights: Tensor,
        portrait: Tensor,
        conditioning: Conditioning,
        line: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """All that a denoising step computes, in one call for the compiler.

        Args:
            x: x_t of one video, (1, frames, c, h, w) float32, which is every row's.
            timesteps, alpha, sigma, conditioning: as for `predict`; a row is a branch of the guidance.
            weights: each branch's factor, (batch,) float32.
            portrait: latents, (1, c, h, w) float32.
            line: (2,) float32, of a solver whose next x is line[0] x_t + line[1] prediction.

        Returns:
            The weighted sum of the branches' predictions, and the next x or None; both (1, frames, c, h, w) float32.
        """
        rows = len(weights)
        latents, portraits = x.expand(rows, -1, -1, -1, -1), portrait.expand(rows, -1, -1, -1)
        predictions = self.predict(latents, timesteps, alpha, sigma, portraits, conditioning)
        guided = (weights[:, None, None, None, None] * predictions).sum(0, keepdim=True)
        return guided, None if line is None else line[0] * x + line[1] * guided

    def _output(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        flat = self.denoising_unet(latents.flatten(0, 1).to(self.dtype), timesteps, conditioning)
        return flat.float().unflatten(0, latents.shape[:2])


def _leading(flags: Tensor) -> int:
    """How many of (n,) bool are true before the first that is not."""
    return int(flags.cumprod(0).sum())


def _per_frame(mask: Tensor, audio: Tensor) -> Tensor:
    """A mask of each batch row, (batch, hw, 1), as one of each frame; other masks are left as they are."""
    batch, frames = audio.shape[:2]
    return mask.repeat_interleave(frames, 0) if len(mask) == batch > 1 else mask
