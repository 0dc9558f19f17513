"""The hidden states of wav2vec 2.0 as audio features of video frames, computed as in Hallo."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
import transformers  # imports its parts lazily: `from transformers import ...` would take seconds here
from torch import Tensor, nn

from ...config import AudioEncoderConfig
from ...errors import FadaError
from .mel import SAMPLE_RATE

_PAD_FRAMES = 16  #: Hallo pads the audio with zeros to whole clips of 16 frames
_BLOCK_SAMPLES = 10 * SAMPLE_RATE  #: the first convolution takes 410 bytes per sample; blocks limit the memory for it


class Wav2Vec2Encoder(nn.Module):
    """Hidden states of all layers of wav2vec 2.0 at the video's rate, computed as in Hallo (arXiv 2406.08801).

    The whole recording is normalised to zero mean and unit variance. The features of the convolutions are interpolated
    linearly to one row per video frame before they enter the transformer. Recordings of up to `config.window_seconds`
    pass the transformer as a whole, as in Hallo; longer ones pass it in windows with `config.context_seconds` of
    context on each side. The steps before the transformer always cover the whole recording, block by block.

    Args:
        config: depth, width and windows.
        wav2vec2: shape of the network; default: wav2vec2-base, with `config.layers` and `config.dim`.

    Raises:
        FadaError: the architecture is not that of wav2vec2-base, or its depth or width contradicts `config`.
    """

    def __init__(self, config: AudioEncoderConfig, wav2vec2: transformers.Wav2Vec2Config | None = None) -> None:
        super().__init__()
        if wav2vec2 is None:
            wav2vec2 = transformers.Wav2Vec2Config(
                num_hidden_layers=config.layers,
                hidden_size=config.dim,
                intermediate_size=4 * config.dim,
                num_attention_heads=max(1, config.dim // 64),
            )
        if wav2vec2.do_stable_layer_norm or wav2vec2.feat_extract_norm != "group" or wav2vec2.add_adapter:
            raise FadaError("This wav2vec2 has another architecture than wav2vec2-base; use one of the base kind.")
        if (wav2vec2.num_hidden_layers, wav2vec2.hidden_size) != (config.layers, config.dim):
            raise FadaError(
                f"This wav2vec2 has {wav2vec2.num_hidden_layers} layers of width {wav2vec2.hidden_size}, the model "
                f"needs {config.layers} of {config.dim}; use the one that it was trained with."
            )
        self.config, self.context_seconds = config, config.context_seconds
        # Masking is only used in its own training; without it, the weights have no embedding of masked rows.
        unmasked = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}
        self.model = transformers.Wav2Vec2Model(
            transformers.Wav2Vec2Config.from_dict({**wav2vec2.to_dict(), **unmasked})
        )
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Wav2Vec2Encoder:
        """Stay in evaluation mode: dropout would make the features of this frozen encoder random."""
        return super().train(False)

    @torch.no_grad()
    def encode(self, waveform: Tensor, frames: int, fps: float) -> Tensor:
        """Features of `frames` video frames, (frames, layers, dim) float32 on the CPU.

        For wav2vec2-base these are 0.9 MB per second of audio; device memory hardly grows with the recording. As in
        Hallo, silence is appended up to a multiple of 16 frames; `frames` may include them.

        Args:
            waveform: (samples,) float32, mono, 16 kHz, at least one sample.
            frames: at least 1; may extend beyond the end of the audio.
            fps: video frames per second.
        """
        audio_frames = math.ceil(len(waveform) * fps / SAMPLE_RATE)
        rows = math.ceil(max(frames, audio_frames) / _PAD_FRAMES) * _PAD_FRAMES
        padding = round((rows - audio_frames) * SAMPLE_RATE / fps)
        features = self._extract(F.pad(_normalised(waveform), (0, padding)))
        features = F.interpolate(features, size=rows, mode="linear", align_corners=True).transpose(1, 2)
        window = max(1, int(self.config.window_seconds * fps))
        context = int(self.config.context_seconds * fps)
        parts = []
        for start in range(0, frames, window):
            low = max(0, start - context) if rows > window else 0
            high = start + window + context if rows > window else rows
            inner = slice(start - low, min(start + window, frames) - low)
            parts.append(self._transform(features[:, low:high].to(waveform.device))[inner].cpu())
        return torch.cat(parts)

    def _extract(self, samples: Tensor) -> Tensor:
        """Features of the convolutions, (1, dim, positions) on the CPU: block by block, but equal to a single pass.

        The first convolution is followed by a normalisation over the whole recording, so its statistics are computed
        first. (Statistics of each block would amplify pauses to the level of speech.)
        """
        first: Any
        first, *others = self.model.feature_extractor.conv_layers
        config, weight, norm = self.model.config, first.conv.weight, first.layer_norm
        strides = [math.prod(config.conv_stride[:i]) for i in range(len(config.conv_stride))]
        stride = strides[-1] * config.conv_stride[-1]
        field = 1 + sum((kernel - 1) * step for kernel, step in zip(config.conv_kernel, strides, strict=True))
        block = _BLOCK_SAMPLES // stride

        def pieces(kernel: int, step: int, count: int) -> list[Tensor]:
            positions = (len(samples) - kernel) // step + 1
            starts = range(0, positions, count)
            lasts = [min(start + count, positions) - 1 for start in starts]
            return [samples[None, None, a * step : b * step + kernel] for a, b in zip(starts, lasts, strict=True)]

        step = config.conv_stride[0]
        count, total, squares = 0, torch.zeros((), dtype=torch.double), torch.zeros((), dtype=torch.double)
        for piece in pieces(config.conv_kernel[0], step, block * (stride // step)):
            heard = first.conv(piece.to(weight.dtype))[0].cpu().double()
            count += heard.shape[1]
            total = total + heard.sum(1)
            squares = squares + heard.square().sum(1)
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0)
        mean, variance = mean.to(weight), variance.to(weight)

        features = []
        for piece in pieces(field, stride, block):
            hidden = first.conv(piece.to(weight.dtype))
            hidden = first.activation(F.batch_norm(hidden, mean, variance, norm.weight, norm.bias, eps=norm.eps))
            for layer in others:
                hidden = layer(hidden)
            features.append(hidden.cpu())
        return torch.cat(features, -1)

    def _transform(self, features: Tensor) -> Tensor:
        """(1, rows, channels of the convolutions) -> outputs of all layers, (rows, layers, dim)."""
        encoder = self.model.encoder
        hidden = self.model.feature_projection(features)[0]
        hidden = encoder.layer_norm(hidden + encoder.pos_conv_embed(hidden))
        states = []
        for layer in encoder.layers:
            output = layer(hidden)
            hidden = output[0] if isinstance(output, tuple) else output  # a tuple before transformers 5
            states.append(hidden[0])
        return torch.stack(states, 1).float()


def _normalised(waveform: Tensor) -> Tensor:
    """Normalise to zero mean and unit variance, like transformers' Wav2Vec2FeatureExtractor (epsilon 1e-7)."""
    # Sums are in double precision and by blocks, as a copy in double precision takes 460 MB per hour of audio.
    blocks = waveform.split(SAMPLE_RATE * 60)
    mean = sum(float(block.double().sum()) for block in blocks) / len(waveform)
    variance = sum(float((block.double() - mean).square().sum()) for block in blocks) / len(waveform)
    return (waveform - mean) / math.sqrt(variance + 1e-7)


def wav2vec2_weights(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a transformers file to those of `Wav2Vec2Encoder.model`.

    Removes the prefix of models with a head; drops the head, the quantiser and the mask embedding; and renames the
    weight norm of the positional convolution, `weight_g` and `weight_v` in files from before torch 2.
    """
    renamed = {}
    for name, value in tensors.items():
        name = name.removeprefix("wav2vec2.")
        if name.startswith(("feature_extractor.", "feature_projection.", "encoder.")):
            name = name.replace("conv.weight_g", "conv.parametrizations.weight.original0")
            renamed[name.replace("conv.weight_v", "conv.parametrizations.weight.original1")] = value
    return renamed
