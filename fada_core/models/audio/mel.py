"""Log-mel spectra as audio features of video frames; needs no weights."""

from __future__ import annotations

from functools import cache

import librosa
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...config import AudioEncoderConfig
from ...errors import FadaError

SAMPLE_RATE = 16000  #: of the audio for all encoders, Hz
MEL_HOP = 160  #: samples between two columns: 100 columns per second
MEL_WINDOW = 400  #: samples of a column
MEL_COLUMNS = 4  #: columns of one video frame: 40 ms, the duration of a frame at 25 fps
_FLOOR = 1e-5  #: lower limit of amplitudes before the logarithm; silence has this value


@cache
def mel_filters(bands: int) -> Tensor:
    """Slaney's mel filters, (bands, 201), for the spectrum of MEL_WINDOW samples."""
    return torch.from_numpy(librosa.filters.mel(sr=SAMPLE_RATE, n_fft=MEL_WINDOW, n_mels=bands))


class MelEncoder(nn.Module):
    """Four log-mel columns around the middle of each video frame, scaled by fixed constants to about -2..1.

    The features do not depend on the rest of the recording, so speech that arrives live has the same features as in a
    complete recording. The encoder has neither weights nor buffers: casting the networks to half precision does not
    change it.
    """

    context_seconds = 0.0  #: seconds of earlier speech that the features of a frame depend on

    def __init__(self, config: AudioEncoderConfig) -> None:
        super().__init__()
        if (config.layers, config.dim) != (1, config.mels * MEL_COLUMNS):
            raise FadaError(
                f"A mel encoder with {config.mels} bands needs layers 1 and dim {config.mels * MEL_COLUMNS}, "
                f"not {config.layers} and {config.dim}; correct the config."
            )
        self.config = config

    @torch.no_grad()
    def encode(self, waveform: Tensor, frames: int, fps: float) -> Tensor:
        """Features of `frames` video frames, (frames, 1, mels * 4) float32 on the CPU, column by column.

        Column j covers the 400 samples around (j + 0.5) / 100 s. Frame i gets the four consecutive columns whose middle
        is nearest to the frame's middle, (i + 0.5) / fps; at 25 fps these are columns 4i .. 4i + 3. Before the start
        and after the end of the audio there is silence. Memory is bounded by `config.window_seconds`.

        Args:
            waveform: (samples,) float32, mono, 16 kHz.
            frames: at least 1; may extend beyond the end of the audio.
            fps: video frames per second.
        """
        block = max(1, int(self.config.window_seconds * fps))
        parts = [self._rows(waveform, at, min(at + block, frames), fps) for at in range(0, frames, block)]
        return torch.cat(parts)[:, None]

    def _rows(self, waveform: Tensor, start: int, end: int, fps: float) -> Tensor:
        middles = (torch.arange(start, end, dtype=torch.float64) + 0.5) / fps * (SAMPLE_RATE / MEL_HOP)
        first = (middles - MEL_COLUMNS / 2 + 0.5).floor().long()
        columns = self._columns(waveform, int(first[0]), int(first[-1]) + MEL_COLUMNS)
        indices = (first - first[0])[:, None] + torch.arange(MEL_COLUMNS)
        return columns[indices.to(waveform.device)].flatten(1).cpu()

    def _columns(self, waveform: Tensor, start: int, end: int) -> Tensor:
        """Columns start .. end - 1 as rows, (end - start, mels)."""
        margin = (MEL_WINDOW - MEL_HOP) // 2
        low, high = start * MEL_HOP - margin, end * MEL_HOP + margin
        heard = waveform[max(low, 0) : max(high, 0)]
        before = min(max(-low, 0), high - low)
        padded = F.pad(heard.float(), (before, high - low - before - len(heard)))
        window = torch.hann_window(MEL_WINDOW, device=waveform.device)
        spectrum = torch.stft(padded, MEL_WINDOW, MEL_HOP, window=window, center=False, return_complex=True).abs()
        mel = mel_filters(self.config.mels).to(waveform.device) @ spectrum
        return (mel.clamp(min=_FLOOR).log().T + 4) / 4
