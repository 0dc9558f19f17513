"""Inputs of the networks for a batch of clips: portrait, motion frames, audio, and which rows use which of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from ..tensors import map_tensors

Masks = Sequence[Sequence[Tensor]]
"""Masks of the audio regions: masks[level][region], (rows, h*w, 1) in 0..1."""
ReferenceFeatures = dict[str, Tensor]
"""The reference UNet's features, by the name of the attention that takes them, (rows, h*w, c) each."""


@dataclass(frozen=True, eq=False)
class ClipInputs:
    """A batch with one row per clip, or per guidance branch of a clip; rows are in any order."""

    portrait: Tensor  #: latents, (batch, c, h, w)
    motion: Tensor  #: latents of the frames before the clip, (batch, motion_frames, c, h, w)
    audio: Tensor  #: audio features around each frame, (batch, frames, window, layers, dim)
    drop_reference: Tensor | None = None
    """(batch,) bool: rows without portrait, identity and face box. They keep their motion frames, as in Hallo. None: no
    row."""
    drop_audio: Tensor | None = None  #: (batch,) bool: rows whose audio tokens are zeros; None: no row
    identity: Tensor | None = None
    """Face embeddings, (batch, identity_dim), for models with identity tokens; None: unknown, replaced by zeros."""
    face_box: Tensor | None = None
    """Images of the face's box, (batch, 1 or 3, size, size) in 0..1, for models with a face locator."""
    masks: Masks | None = None
    """1, batch or batch * frames rows each; None: each audio region is the whole picture."""
    scales: Tensor | None = None  #: ref_cfg and audio_cfg of each row, (batch, 2), for students
    region_weights: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Strength of the audio attention in each region (whole picture, face, lips)."""

    def __len__(self) -> int:
        return len(self.portrait)

    def select(self, rows: Tensor) -> ClipInputs:
        """The rows with these indices, (n,), in this order."""
        return self._with_rows(lambda value: value.unflatten(0, (len(self), -1))[rows].flatten(0, 1))

    def repeat(self, times: int) -> ClipInputs:
        """All rows, repeated `times` times as a whole."""
        return self._with_rows(lambda value: value.repeat(times, *(1,) * (value.ndim - 1)))

    def _with_rows(self, change: Callable[[Tensor], Tensor]) -> ClipInputs:
        masks = map_tensors(lambda mask: mask if len(mask) == 1 else change(mask), self.masks)
        return replace(map_tensors(change, replace(self, masks=None)), masks=masks)


@dataclass(frozen=True, eq=False)
class Subject:
    """The inputs that describe the person and are the same for all clips of a job; one row each."""

    portrait: Tensor  #: latents, (1, c, h, w) float32
    identity: Tensor | None = None  #: face embedding, (1, identity_dim)
    face_box: Tensor | None = None  #: image of the face's box, (1, 1 or 3, size, size) in 0..1
    masks: Masks | None = None
    portrait_features: ReferenceFeatures | None = None
    """From `sampling.guidance.portrait_features`, computed once per job. None: computed for each clip."""

    def clip(self, motion: Tensor, audio: Tensor, region_weights: tuple[float, ...] = (1.0, 1.0, 1.0)) -> ClipInputs:
        """Inputs of one clip, with one row; arguments are the fields of `ClipInputs`."""
        return ClipInputs(
            self.portrait,
            motion,
            audio,
            identity=self.identity,
            face_box=self.face_box,
            masks=self.masks,
            region_weights=region_weights,
        )
