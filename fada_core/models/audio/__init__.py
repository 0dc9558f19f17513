"""Audio encoders, which compute features of a waveform, and the projection of these features to audio tokens."""

from __future__ import annotations

from torch import Tensor

from ...config import AudioEncoderConfig
from .mel import SAMPLE_RATE, MelEncoder
from .wav2vec2 import Wav2Vec2Encoder, wav2vec2_weights
from .whisper import WhisperEncoder, whisper_weights

__all__ = ["SAMPLE_RATE", "audio_encoder_weights", "build_audio_encoder"]


AudioEncoder = MelEncoder | Wav2Vec2Encoder | WhisperEncoder


def build_audio_encoder(config: AudioEncoderConfig) -> AudioEncoder:
    """The encoder that `config.kind` names, with fresh weights; each has `encode(waveform, frames, fps)`."""
    return {"mel": MelEncoder, "wav2vec2": Wav2Vec2Encoder, "whisper": WhisperEncoder}[config.kind](config)


def audio_encoder_weights(config: AudioEncoderConfig, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a published file, from transformers or elsewhere, to those of the encoder's `model`."""
    return (whisper_weights if config.kind == "whisper" else wav2vec2_weights)(tensors)
