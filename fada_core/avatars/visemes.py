"""Phonemes to mouth shapes: openness, width and rounding over time, smoothed the way lips move."""

import torch
import torch.nn.functional as F

from .speech import SAMPLE_RATE, Phoneme

_GRID_HZ = 200
_REST = (0.0, 0.5, 0.0)
_SIGMA_S = 0.028  # the width of co-articulation
_CLOSED = frozenset("pbm")
#: IPA letter -> (openness, width, rounding), each 0..1. The values are ours, after the usual viseme classes.
# IPA symbols are escaped, because some tools for Windows read sources in its 8-bit code page.
_SHAPES: dict[str, tuple[float, float, float]] = {
    symbol: shape
    for symbols, shape in {
        "a\u0251\u0250": (1.0, 0.55, 0.0),
        "\u028c": (0.85, 0.5, 0.0),
        "æ": (0.9, 0.8, 0.0),
        "\u025b": (0.68, 0.75, 0.0),
        "e": (0.55, 0.85, 0.0),
        "\u0259\u025c\u025a\u0258": (0.5, 0.5, 0.15),
        "i": (0.3, 1.0, 0.0),
        "\u026a\u0268": (0.38, 0.8, 0.0),
        "o": (0.62, 0.25, 0.75),
        "\u0254\u0252": (0.85, 0.3, 0.55),
        "u\u0289": (0.3, 0.05, 1.0),
        "\u028a\u026f": (0.36, 0.15, 0.8),
        "y": (0.28, 0.15, 1.0),
        "øœ\u0275": (0.5, 0.25, 0.8),
        "pbm": (0.0, 0.5, 0.0),
        "\u03b2": (0.1, 0.5, 0.0),
        "fv\u028b\u0271": (0.12, 0.6, 0.0),
        "\u03b8ð": (0.26, 0.6, 0.0),
        "tdnszl\u026b\u027ec\u0272\u028e": (0.22, 0.62, 0.0),
        "\u0283\u0292\u0255\u0291\u0282": (0.24, 0.25, 0.6),
        "k\u0261g\u014bx\u0263qç\u025f": (0.32, 0.55, 0.0),
        "h\u0266\u0294": (0.42, 0.5, 0.0),
        "r\u0279\u0281\u0280\u027b": (0.32, 0.35, 0.4),
        "w\u0265": (0.16, 0.05, 1.0),
        "j\u029d": (0.25, 0.85, 0.0),
    }.items()
    for symbol in symbols
}


def _smooth(signal: torch.Tensor, sigma_s: float) -> torch.Tensor:
    """Gaussian smoothing of (channels, steps) along the steps."""
    radius = int(4 * sigma_s * _GRID_HZ)
    offsets = torch.arange(-radius, radius + 1) / _GRID_HZ
    kernel = torch.exp(-0.5 * (offsets / sigma_s) ** 2)
    padded = F.pad(signal[:, None], (radius, radius), mode="replicate")
    return F.conv1d(padded, (kernel / kernel.sum())[None, None])[:, 0]


def loudness(waveform: torch.Tensor, n: int, fps: float) -> torch.Tensor:
    """(n,) root mean square of each frame of `waveform`, 1 = the loudest frame; zeros for silence."""
    times = (torch.arange(n + 1) / fps * SAMPLE_RATE).long().clamp(max=len(waveform))
    power = F.pad(waveform.double().square().cumsum(0), (1, 0))
    rms = ((power[times[1:]] - power[times[:-1]]) / (SAMPLE_RATE / fps)).clamp(min=0).sqrt().float()
    return rms / rms.max().clamp(min=1e-4)


def mouth_track(phonemes: list[Phoneme], waveform: torch.Tensor, n: int, fps: float) -> dict[str, torch.Tensor]:
    """`openness`, `width` and `rounding`, each (n,) in 0..1, at the middle of every frame; at rest 0, 0.5 and 0."""
    steps = int(n / fps * _GRID_HZ) + 1
    track = torch.tensor(_REST)[:, None].repeat(1, steps)
    closure = torch.zeros(1, steps)
    for phoneme in phonemes:
        shapes = [_SHAPES[letter] for letter in phoneme.symbol if letter in _SHAPES]
        if not shapes:
            continue
        stress = 1.0 if "\u02c8" in phoneme.symbol else 0.86
        edges = torch.linspace(phoneme.start, phoneme.end, len(shapes) + 1) * _GRID_HZ
        for shape, start, end in zip(shapes, edges[:-1], edges[1:], strict=True):
            track[:, int(start) : int(end) + 1] = torch.tensor([shape[0] * stress, shape[1], shape[2]])[:, None]
        if _CLOSED & set(phoneme.symbol):  # lips meet before the sound, which may last only 15 ms
            closure[:, max(0, int((phoneme.start - 0.035) * _GRID_HZ)) : int((phoneme.end + 0.01) * _GRID_HZ) + 1] = 1
    track = _smooth(track, _SIGMA_S)
    track[:1] *= 1 - (_smooth(closure, 0.012) * 1.15).clamp(max=1)
    at = ((torch.arange(n) + 0.5) / fps * _GRID_HZ).long().clamp(max=steps - 1)
    openness, width, rounding = track[:, at]
    openness = openness * (0.8 + 0.35 * loudness(waveform, n, fps).sqrt())
    return {"openness": openness.clamp(0, 1), "width": width.clamp(0, 1), "rounding": rounding.clamp(0, 1)}
