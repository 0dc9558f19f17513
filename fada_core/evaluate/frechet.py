"""The Fréchet distance between distributions of generated and true pictures, and features for it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Features = Callable[[Tensor], Tensor]
"""Frames of one video (n, 3, h, w) in -1..1 -> (m, d), one row for each frame or for each stretch of frames."""

_RESAMPLES = 100
_RESAMPLES_WIDE = 10  # for more than 512 dimensions, where one distance takes seconds
_BANDS, _CELLS = 3, 4
_FLOOR = 0.01  # invisible amplitude (of -1..1), added before logarithms, so that flat and still cells are alike
CLIP_LENGTH = 16  #: frames, as usual for FVD


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared Fréchet distance of the normal distributions fitted to two sets of features.

    |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), Dowson and Landau 1982, as in FID (Heusel et al. 1706.08500),
    with unbiased covariances. The eigenvalues of S_a S_b are the squared singular values of R_a R_b^T for any roots
    S = R^T R. Such a root is the triangle of a QR decomposition, which avoids the square root of a nearly singular
    matrix.

    Args:
        a, b: (n, d), at least two rows each; with fewer the result is NaN.
    """
    if min(len(a), len(b)) < 2:
        return float("nan")
    (mean_a, root_a), (mean_b, root_b) = _normal(a), _normal(b)
    traces = root_a.square().sum() + root_b.square().sum()
    distance = (mean_a - mean_b).square().sum() + traces - 2 * torch.linalg.svdvals(root_a @ root_b.T).sum()
    return max(0.0, float(distance))  # below 0 only by rounding


def _normal(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and a root R (min(n, d), d) of the covariance, S = R^T R."""
    features = features.double()
    centred = (features - features.mean(0)) / (len(features) - 1) ** 0.5
    return features.mean(0), torch.linalg.qr(centred, mode="r").R if len(centred) > centred.shape[1] else centred


def distance_over_videos(made: Sequence[Tensor], true: Sequence[Tensor], seed: int = 0) -> tuple[float, float]:
    """Fréchet distance over all videos, and half the width of its 95 % interval.

    The interval is 1.96 times the standard deviation of 100 bootstrap samples (10 for wide features). Videos are drawn
    with replacement, each together with its truth; frames are not, because frames of a video are far from independent.
    The distance decreases with the number of videos (like FID), so compare only evaluations of the same size.

    Args:
        made, true: features of each video, (m, d) each, in the same order.
    """
    distance = frechet_distance(torch.cat(list(made)), torch.cat(list(true)))
    if len(made) < 2:
        return distance, float("nan")
    generator = torch.Generator().manual_seed(seed)
    resampled = []
    for _ in range(_RESAMPLES if made[0].shape[1] <= 512 else _RESAMPLES_WIDE):
        drawn = torch.randint(len(made), (len(made),), generator=generator).tolist()
        resampled.append(frechet_distance(torch.cat([made[i] for i in drawn]), torch.cat([true[i] for i in drawn])))
    return distance, 1.96 * statistics.stdev(resampled)


def frame_features(frames: Tensor) -> Tensor:
    """Texture and colour of each frame on a grid of 4 x 4 cells, (n, 96).

    For each cell: the logarithm of the mean amplitude in the three finest bands of a Laplacian pyramid (Burt and
    Adelson 1983), and the mean colour of the rest. There is no common network for drawn faces, one for photographs
    would have to be downloaded, and one of our own would miss what it was trained to ignore. These features need no
    weights, and respond to blur, noise, wrong colours and broken eyes.
    """
    parts, rest = [], frames
    for _ in range(_BANDS):
        coarse = F.avg_pool2d(rest, 2)
        band = rest - F.interpolate(coarse, rest.shape[-2:], mode="bilinear", align_corners=False)
        parts.append(_log(F.adaptive_avg_pool2d(band.abs().mean(1, keepdim=True), _CELLS)))
        rest = coarse
    parts.append(F.adaptive_avg_pool2d(rest, _CELLS))
    return torch.cat([part.flatten(1) for part in parts], dim=1)


def clip_features(frames: Tensor) -> Tensor:
    """Features (m, 192) of stretches of `CLIP_LENGTH` frames that overlap by half.

    They are the mean of the frames' features, and the logarithm of the root mean square of their change between frames,
    in which still, jumpy and flickering videos differ. A shorter video is one stretch.
    """
    rows = frame_features(frames)
    length = min(CLIP_LENGTH, len(rows))
    stretches = rows.unfold(0, length, max(1, length // 2))  # (m, d, length)
    change = stretches.diff(dim=2).square().mean(2).sqrt()
    return torch.cat([stretches.mean(2), _log(change)], dim=1)


def _log(amplitude: Tensor) -> Tensor:
    return (amplitude + _FLOOR).log()
