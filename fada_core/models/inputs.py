"""The inputs of a batch of clips: who speaks, what came before, what is heard, and which rows see which of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from ..tensors import map_tensors

Masks = Sequence[Sequence[Tensor]]
"""Where each audio region works: masks[level][region], (rows, h*w, 1) in 0..1."""
ReferenceFeatures = dict[str, Tensor]
"""The reference UNet's features by the name of the attention they are for, (rows, h*w, c) each."""


@dataclass(frozen=True, eq=False)
class ClipInputs:
    """One row a clip, or a guidance branch of a clip; rows come in any order."""

    portrait: Tensor  #: latents, (batch, c, h, w)
    motion: Tensor  #: latents of the frames before the clip, (batch, motion_frames, c, h, w)
    audio: Tensor  #: audio features around each frame, (batch, frames, window, layers, dim)
    drop_reference: Tensor | None = None
    """(batch,) bool: rows that do not see the portrait, its identity and its face box. They keep their motion frames,
    as in Hallo. None: all rows see them."""
    drop_audio: Tensor | None = None  #: (batch,) bool: rows whose audio tokens are zeros; None: no row
    identity: Tensor | None = None
    """Face embeddings, (batch, identity_dim), for models with identity tokens; None: not known, zeros."""
    face_box: Tensor | None = None
    """Pictures of the face's box, (batch, 1 or 3, size, size) in 0..1, for models with a face locator."""
    masks: Masks | None = None
    """Of 1, batch or batch * frames rows each; None: every audio region is the whole picture."""
    scales: Tensor | None = None  #: ref_cfg and audio_cfg of each row, (batch, 2), for students
    region_weights: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Strength of the audio attention in each region (Hallo: whole picture, face, lips)."""

    def __len__(self) -> int:
        return len(self.portrait)

    def select(self, rows: Tensor) -> ClipInputs:
        """The rows with these indices, (n,), in this order."""
        return self._with_rows(lambda value: value.unflatten(0, (len(self), -1))[rows].flatten(0, 1))

    def repeat(self, times: int) -> ClipInputs:
        """All rows, then all again, `times` in all."""
        return self._with_rows(lambda value: value.repeat(times, *(1,) * (value.ndim - 1)))

    def _with_rows(self, change: Callable[[Tensor], Tensor]) -> ClipInputs:
        masks = map_tensors(lambda mask: mask if len(mask) == 1 else change(mask), self.masks)
        return replace(map_tensors(change, replace(self, masks=None)), masks=masks)


@dataclass(frozen=True, eq=False)
class Subject:
    """The person: what stays the same over all clips of a job. One row each."""

    portrait: Tensor  #: latents, (1, c, h, w) float32
    identity: Tensor | None = None  #: face embedding, (1, identity_dim)
    face_box: Tensor | None = None  #: picture of the face's box, (1, 1 or 3, size, size) in 0..1
    masks: Masks | None = None
    portrait_features: ReferenceFeatures | None = None
    """From `Networks.portrait_features`, computed once a job. None: computed for every clip."""

    def clip(self, motion: Tensor, audio: Tensor, region_weights: tuple[float, ...] = (1.0, 1.0, 1.0)) -> ClipInputs:
        """Inputs of one clip, one row; arguments as the fields of `ClipInputs`."""
        return ClipInputs(
            self.portrait,
            motion,
            audio,
            identity=self.identity,
            face_box=self.face_box,
            masks=self.masks,
            region_weights=region_weights,
        )
