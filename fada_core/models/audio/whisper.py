"""The hidden states of Whisper's encoder as audio features of video frames, computed as in EchoMimic."""

from __future__ import annotations

import torch
import torch.nn.functional as F
import transformers  # imports its parts lazily: `from transformers import ...` would take seconds here
from torch import Tensor, nn

from ...config import AudioEncoderConfig
from ...errors import FadaError
from .mel import MEL_HOP, MEL_WINDOW, mel_filters

_SEGMENT = 3000  #: columns of Whisper's input, 30 s
_RATE = 50.0  #: rows of a hidden state per second, for two columns each
_BEFORE, _AROUND = 4, 10  #: rows of a video frame: before the current one, and in total


class WhisperEncoder(nn.Module):
    """All hidden states of Whisper (Radford et al. 2212.04356), ten rows of 20 ms around each video frame.

    Computed as in EchoMimic (arXiv 2407.08136): the recording is split into pieces of 30 s, the last piece is padded
    with zeros in the log-mel domain, and the states are taken before the encoder's final norm.

    Args:
        config: `dim` is Whisper's width, `layers` ten times its number of hidden states (its layers and their input).
        whisper: shape of the network; default: from `config` (whisper-tiny for a width of 384 and 4 layers).

    Raises:
        FadaError: depth or width of the network contradicts `config`.
    """

    def __init__(self, config: AudioEncoderConfig, whisper: transformers.WhisperConfig | None = None) -> None:
        from transformers.models.whisper.modeling_whisper import WhisperEncoder as Transformer

        super().__init__()
        states, rest = divmod(config.layers, _AROUND)
        if rest or not states:
            raise FadaError(f"Whisper gives {_AROUND} rows of each hidden state, so layers cannot be {config.layers}.")
        if whisper is None:
            whisper = transformers.WhisperConfig(
                d_model=config.dim,
                encoder_layers=states - 1,
                encoder_attention_heads=max(1, config.dim // 64),
                encoder_ffn_dim=4 * config.dim,
            )
        if (whisper.encoder_layers, whisper.d_model) != (states - 1, config.dim):
            raise FadaError(
                f"This Whisper has {whisper.encoder_layers} layers of width {whisper.d_model}, the model needs "
                f"{states - 1} of {config.dim}; use the one that it was trained with."
            )
        self.config, self.context_seconds = config, config.context_seconds
        self.model = Transformer(whisper)
        self.model.layer_norm = nn.Identity()  # type: ignore[assignment] # hidden states are taken before it
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> WhisperEncoder:
        """Stay in evaluation mode: dropout would make the features of this frozen encoder random."""
        return super().train(False)

    @torch.no_grad()
    def encode(self, waveform: Tensor, frames: int, fps: float) -> Tensor:
        """Features of `frames` video frames, (frames, 10 * states, dim) float32 on the CPU.

        For whisper-tiny these are 1.8 MB per second of audio; device memory hardly grows with the recording. Frame i
        gets the rows from 4 before to 5 after int(i * 50 / fps); beyond the ends of the recording, its first or last
        row is repeated. The states of a row are consecutive.

        Args:
            waveform: (samples,) float32, mono, 16 kHz, at least one sample.
            frames: at least 1; may extend beyond the end of the audio.
            fps: video frames per second.
        """
        mel = _log_mel(waveform, self.model.config.num_mel_bins)
        rows = torch.cat([self._states(mel[:, a : a + _SEGMENT]).cpu() for a in range(0, mel.shape[1], _SEGMENT)])
        middles = (torch.arange(frames, dtype=torch.float64) * _RATE / fps).long()
        indices = middles[:, None] - _BEFORE + torch.arange(_AROUND)
        return rows[indices.clamp(0, len(rows) - 1)].flatten(1, 2)

    def _states(self, mel: Tensor) -> Tensor:
        """Log-mel columns of up to 30 s, (bands, columns) -> (columns / 2, states, dim)"""
        padded = F.pad(mel, (0, _SEGMENT - mel.shape[1]))[None]
        states = self.model(padded.to(self.model.conv1.weight.dtype), output_hidden_states=True).hidden_states
        return torch.cat(states).transpose(0, 1)[: max(1, mel.shape[1] // 2)].float()


def _log_mel(waveform: Tensor, bands: int) -> Tensor:
    """Whisper's scaled log-mel spectrum of the whole recording, (bands, columns), computed in pieces of 30 s."""
    margin = MEL_WINDOW // 2
    mode = "reflect" if len(waveform) > margin else "constant"
    padded = F.pad(waveform.float()[None], (margin, margin), mode=mode)[0]
    window, filters = torch.hann_window(MEL_WINDOW, device=waveform.device), mel_filters(bands).to(waveform.device)
    columns = max(1, len(waveform) // MEL_HOP)
    parts = []
    for start in range(0, columns, _SEGMENT):
        end = min(start + _SEGMENT, columns)
        heard = padded[start * MEL_HOP : (end - 1) * MEL_HOP + MEL_WINDOW]
        power = torch.stft(heard, MEL_WINDOW, MEL_HOP, window=window, center=False, return_complex=True).abs().square()
        parts.append((filters @ power).clamp(min=1e-10).log10())
    mel = torch.cat(parts, 1)
    return (mel.clamp(min=mel.max() - 8) + 4) / 4


_OPENAI = {  # names in OpenAI's files -> names in transformers
    "positional_embedding": "embed_positions.weight",
    "blocks.": "layers.",
    "attn.query.": "self_attn.q_proj.",
    "attn.key.": "self_attn.k_proj.",
    "attn.value.": "self_attn.v_proj.",
    "attn.out.": "self_attn.out_proj.",
    "attn_ln.": "self_attn_layer_norm.",
    "mlp.0.": "fc1.",
    "mlp.2.": "fc2.",
    "mlp_ln.": "final_layer_norm.",
}


def whisper_weights(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a file from transformers or OpenAI to those of `WhisperEncoder.model`.

    Drops the decoder and the encoder's final norm.
    """
    renamed = {}
    for name, value in tensors.items():
        name = name.removeprefix("model.")
        if name.startswith("encoder."):
            name = name.removeprefix("encoder.")
            for theirs, ours in _OPENAI.items():
                name = name.replace(theirs, ours)
            if not name.startswith(("layer_norm.", "ln_post.")):
                renamed[name] = value
    return renamed
