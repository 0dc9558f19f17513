"""Training batches: random clips of a data set, with the frames before them and a portrait."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..config import ModelConfig
from ..errors import FadaError
from ..models.audio.projection import window_features
from ..models.inputs import ClipInputs, Masks
from ..tensors import map_tensors
from .faces import face_inputs
from .samples import ClipDataset, ClipSample

MOTION_AS_PORTRAIT = 0.3  #: share of samples whose motion frames are the portrait, as in a video's first clip
MOTION_NOISE = 0.3  #: largest deviation of noise on motion frames, which in sampling have the model's own errors
PORTRAIT_SHARE = 0.5  #: share of the other samples with the neutral portrait; the rest have any frame of the clip
ANYWHERE_SHARE = 0.2  #: of close-ups; the others show the mouth
JITTER = 2  #: latent cells by which the mouth lies beside the middle of a close-up, at most


@dataclass
class ClipBatch:
    """Clips of `clip_frames` frames, one row per sample."""

    ids: list[str]
    quality: Tensor  #: confidence in the ground truth, (batch,) in 0..1
    latents: Tensor  #: ground truth, (batch, frames, c, h, w)
    weights: Tensor  #: of the loss, (batch, frames, 1, h, w)
    portrait: Tensor  #: latents, (batch, c, h, w)
    motion: Tensor  #: latents of the frames before, (batch, motion_frames, c, h, w), lightly noised
    audio: Tensor  #: features around each frame, (batch, frames, window, layers, dim)
    # The following are None for models that do not take them.
    identity: Tensor | None = None  #: face embeddings, (batch, identity_dim); zeros where unknown
    face_box: Tensor | None = None  #: pictures of the face's box, (batch, 1, size, size) in 0..1
    masks: Masks | None = None  #: of the audio regions, masks[level][region], (batch, h*w, 1) in 0..1

    def to(self, device: torch.device) -> ClipBatch:
        return map_tensors(lambda value: value.to(device), self)

    def inputs(
        self, drop_reference: Tensor | None = None, drop_audio: Tensor | None = None, scales: Tensor | None = None
    ) -> ClipInputs:
        """The networks' inputs for these clips; the arguments are those of `ClipInputs`."""
        return ClipInputs(
            self.portrait,
            self.motion,
            self.audio,
            drop_reference=drop_reference,
            drop_audio=drop_audio,
            identity=self.identity,
            face_box=self.face_box,
            masks=self.masks,
            scales=scales,
        )


def draw_batch(data: ClipDataset, config: ModelConfig, generators: list[torch.Generator]) -> ClipBatch:
    """A batch of one random clip per generator."""
    rows = [_draw(data[int(torch.randint(len(data), (), generator=g))], config, g) for g in generators]
    return ClipBatch(
        ids=[row.pop("ids") for row in rows], **{name: _joined([row[name] for row in rows]) for name in rows[0]}
    )


def _joined(values: list[Any]) -> Any:
    """Stack the tensors of all samples, in nested lists, too."""
    if isinstance(values[0], list):
        return [_joined(list(entries)) for entries in zip(*values, strict=True)]
    return None if values[0] is None else torch.stack(values)


def _draw(sample: ClipSample, config: ModelConfig, generator: torch.Generator) -> dict[str, Any]:
    frames, length, before = len(sample.latents), config.clip_frames, config.motion_frames

    def draw(high: int, low: int = 0) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    start = draw(frames - length + 1, before)
    clip = slice(start, start + length)
    any_frame = sample.latents[draw(frames)]
    fresh, neutral, level = torch.rand(3, generator=generator).tolist()
    motion = sample.latents[start - before : start].float()
    portrait = (sample.portrait if neutral < PORTRAIT_SHARE else any_frame).float()
    if fresh < MOTION_AS_PORTRAIT and before:
        # A video's first clip starts from the portrait's pose, so the portrait is here the frame before the clip.
        portrait = motion[-1]
        motion = portrait.expand_as(motion)
    noise = torch.randn(motion.shape, generator=generator)
    identity = None
    if config.condition.identity_dim:
        identity = torch.zeros(config.condition.identity_dim) if sample.identity is None else sample.identity
    face_box, masks = face_inputs(config, sample.face, sample.lips)
    clean = sample.latents if sample.target_latents is None else sample.target_latents
    return {
        "ids": sample.id,
        "quality": torch.tensor(sample.quality),
        "latents": clean[clip].float(),
        "weights": sample.weights[clip].float(),
        "portrait": portrait,
        "motion": motion + MOTION_NOISE * level * noise,
        "audio": window_features(sample.audio, config.condition.audio_window)[clip],
        "identity": identity,
        "face_box": map_tensors(lambda value: value[0], face_box),
        "masks": map_tensors(lambda value: value[0], masks),
    }


def check_closeups(config: ModelConfig, cells: int) -> None:
    """Raises FadaError where a model cannot learn from `closeups` of this side (0: no close-ups)."""
    if not cells:
        return
    if config.condition.face_locator or config.unet.audio_regions > 1:
        raise FadaError(f"'{config.name}' needs whole pictures, with the face's place; train it without close-ups.")
    least, side = 2 ** (len(config.unet.block_out_channels) - 1), config.sides[0]
    if cells % least or not least <= cells <= side:
        raise FadaError(f"Close-ups of {cells} cells do not fit '{config.name}'; give a multiple of {least} to {side}.")


def closeups(batch: ClipBatch, cells: int, generators: list[torch.Generator]) -> ClipBatch:
    """A square of `cells` x `cells` of every clip, the same in all its pictures, mostly around the mouth.

    The mouth is where the loss weighs most.
    """
    side = batch.latents.shape[-1]
    free = side - cells
    corners = []
    for weights, generator in zip(batch.weights, generators, strict=True):
        anywhere, *places = torch.rand(3, generator=generator).tolist()
        row, column = divmod(int(weights.mean((0, 1)).argmax()), side)
        corner = [
            round(place * free) if anywhere < ANYWHERE_SHARE else round(at - cells / 2 + JITTER * (2 * place - 1))
            for at, place in zip((row, column), places, strict=True)
        ]
        corners.append([min(max(0, at), free) for at in corner])

    def cut(values: Tensor) -> Tensor:
        parts = [v[..., top : top + cells, left : left + cells] for v, (top, left) in zip(values, corners, strict=True)]
        return torch.stack(parts)

    return replace(
        batch,
        latents=cut(batch.latents),
        weights=cut(batch.weights),
        portrait=cut(batch.portrait),
        motion=cut(batch.motion),
    )
