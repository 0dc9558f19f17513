"""A job: a portrait and speech, checked and encoded."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .config import ModelConfig
from .errors import FadaError
from .face.region import FaceRegion, crop
from .media.audio import checked_speech
from .media.image import checked_picture, to_square
from .models.audio import SAMPLE_RATE
from .models.inputs import Masks, Subject
from .models.networks import Networks
from .sampling.denoise import prepare_subject
from .system import out_of_memory


@dataclass(frozen=True, eq=False)
class Job:
    """Portrait and speech of one video, encoded for one model by `Pipeline.encode`."""

    config: ModelConfig
    subject: Subject
    audio_features: Tensor  #: of the whole recording, (frames, layers, dim) float32 on the CPU

    @property
    def frames(self) -> int:
        """Number of frames of the video."""
        return len(self.audio_features)


@torch.inference_mode()
def encode_portrait(
    networks: Networks,
    device: torch.device,
    image: Tensor,
    region: FaceRegion | None = None,
    identity: Tensor | None = None,
    face_box: Tensor | None = None,
    masks: Masks | None = None,
) -> Subject:
    """Encode the portrait; arguments and errors as in `Pipeline.encode`."""
    image = checked_picture(image)
    config = networks.config
    wanted = config.condition.identity_dim
    if identity is not None and identity.shape != (1, wanted):
        takes = f"embeddings of {wanted} numbers" if wanted else "no identity embedding"
        raise FadaError(
            f"The model '{config.name}' takes {takes}, this one has the shape {tuple(identity.shape)}; "
            "give another identity model, or none."
        )
    with out_of_memory():
        square = to_square(image, config.size) if region is None else crop(image, region, config.size)
        if region is not None:
            face_box, masks = _face_inputs(config, region, face_box, masks)
        portrait = networks.vae.encode(square.to(device, networks.dtype)).float()
        if masks is not None:
            masks = [[mask.to(device, networks.dtype) for mask in level] for level in masks]
        identity, face_box = (None if value is None else value.to(device) for value in (identity, face_box))
        return prepare_subject(networks, portrait, identity, face_box, masks)


def _face_inputs(
    config: ModelConfig, region: FaceRegion, face_box: Tensor | None, masks: Masks | None
) -> tuple[Tensor | None, Masks | None]:
    """Face box and masks, derived from the region if the model takes them and they are not given."""
    if face_box is None and config.condition.face_locator:
        face_box = region.face_picture(config.size).expand(-1, config.condition.face_channels[0], -1, -1)
    if masks is None and config.unet.audio_regions > 1:
        masks = region.attention_masks(config.sides)
    return face_box, masks


@torch.inference_mode()
def encode_speech(networks: Networks, device: torch.device, audio: Tensor) -> Tensor:
    """Encode speech as audio features, (frames, layers, dim) float32 on the CPU.

    Arguments and errors are those of `Pipeline.encode`.
    """
    audio, fps = checked_speech(audio), networks.config.fps
    frames = math.ceil(len(audio) * fps / SAMPLE_RATE)
    with out_of_memory():
        return networks.audio_encoder.encode(audio.float().to(device), frames, fps)
