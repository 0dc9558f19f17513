"""The project's own face finder: two small networks, trained on rendered people (`python -m fada_core.pretrain.face`).

The first network detects faces rotated by up to 45 degrees in an image pyramid. The second takes each detection as an
upright square of 96 pixels, predicts 71 landmarks, and classifies it as a face or not. The finder needs only torch and
its own weights (1 MB).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from .detect import Detector, Face
from .masks import Box

WEIGHTS = Path(__file__).with_name("finder.safetensors")
WINDOW, CROP = 128, 96  #: side in pixels of the networks' training pictures; the first takes any multiple of 16
STRIDES = (8, 16)  #: of the first network's outputs, in pixels
SIDES = (80, 160, 320)  #: longer sides of the pyramid's levels in pixels
CERTAIN, LIKELY = 0.85, 0.78
"""Smallest certainty, 0..1, of a face, and of the single most certain one where no face reaches CERTAIN: most pictures
that are searched show somebody."""
OVERLAP = 0.5  #: shared area, relative to the smaller of two boxes, above which they count as one face
MOST = 32  #: largest number of candidates for the second network
LOOKS = 3  #: passes of the second network
_POSSIBLE = -1.4  #: smallest logit of a candidate
LANDMARKS = 71  #: iBUG's 68 (jaw 17, brows 10, nose 9, eyes 12, outer lips 12, inner lips 8) and 3 of the forehead
JAW, INNER_LIPS, FOREHEAD = slice(0, 17), slice(60, 68), slice(68, 71)
LIPS, SILHOUETTE = slice(48, 68), (*range(17), 68, 69, 70)
POINTS = (range(36, 42), range(42, 48), (30,), (48,), (54,))  #: landmarks whose means are eyes, nose and mouth corners
TEMPLATE = ((-0.15, -0.12), (0.15, -0.12), (0.0, 0.03), (-0.12, 0.17), (0.12, 0.17))
"""The five points in the second network's square, relative to its centre and in units of its side."""


class _Block(nn.Module):
    """A residual block of a depthwise 5x5 and a pointwise convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 5, padding=2, groups=width, bias=False),
            nn.Conv2d(width, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.layers(x))


def _stage(before: int, width: int, blocks: int) -> nn.Sequential:
    """Downsample by 2 to `width` channels, then `blocks` residual blocks."""
    return nn.Sequential(
        nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        *(_Block(width) for _ in range(blocks)),
    )


def _rare(head: nn.Conv2d) -> nn.Conv2d:
    """The layer, so that its first output is low at first: faces are rare."""
    if head.bias is not None:
        nn.init.constant_(head.bias[:1], -4.0)
    return head


class WindowNetwork(nn.Module):
    """The first network: (n, 3, h, w) in -1..1, sides multiples of 16 -> (n, 15, h / s, w / s) for each s of STRIDES.

    Channels: the logit of a face with its centre near the cell; the logarithms of the distances from the cell's centre
    to the left, top, right and bottom of its box; x and y of five points relative to the cell's centre. Lengths are in
    units of 4 strides.
    """

    def __init__(self) -> None:
        super().__init__()
        fine, deep = 72, 144
        self.start = nn.Sequential(_stage(3, 16, 0), _stage(16, 40, 1), _stage(40, fine, 3))
        self.deep = _stage(fine, deep, 4)
        self.back = nn.Conv2d(deep, fine, 1)
        self.fine = _Block(fine)
        self.heads = nn.ModuleList(_rare(nn.Conv2d(width, 15, 1)) for width in (fine, deep))

    def forward(self, pictures: Tensor) -> list[Tensor]:
        x = self.start(pictures)
        deep = self.deep(x)
        fine = self.fine(x + F.interpolate(self.back(deep), scale_factor=2.0, mode="nearest"))
        return [head(x) for head, x in zip(self.heads, (fine, deep), strict=True)]


class CropNetwork(nn.Module):
    """The second network: squares (n, 3, 96, 96) in -1..1 -> landmarks (n, 71, 2) and logits of a face (n,).

    Landmarks are relative to the centre, in units of the side. Each is the mean of a probability map over 24 x 24 cells
    (Nibali et al. 2018).
    """

    def __init__(self) -> None:
        super().__init__()
        first, middle, deep = 40, 72, 128
        self.start = nn.Sequential(_stage(3, 16, 0), _stage(16, first, 1))
        self.middle = _stage(first, middle, 2)
        self.deep = _stage(middle, deep, 3)
        self.back = nn.ModuleList([nn.Conv2d(deep, middle, 1), nn.Conv2d(middle, first, 1)])
        self.joined = nn.ModuleList([_Block(middle), _Block(first)])
        self.maps = nn.Conv2d(first, LANDMARKS, 1)
        self.face = nn.Linear(deep, 1)

    def forward(self, squares: Tensor) -> tuple[Tensor, Tensor]:
        first = self.start(squares)
        middle = self.middle(first)
        deep = self.deep(middle)
        x = deep
        for back, joined, finer in zip(self.back, self.joined, (middle, first), strict=True):
            x = joined(finer + F.interpolate(back(x), scale_factor=2.0, mode="nearest"))
        maps = self.maps(x)
        rows, columns = maps.shape[-2:]
        share = maps.float().flatten(2).softmax(-1).unflatten(2, (rows, columns))
        x, y = ((torch.arange(n, device=maps.device) + 0.5) / n - 0.5 for n in (columns, rows))
        landmarks = torch.stack([(share.sum(2) * x).sum(2), (share.sum(3) * y).sum(2)], 2)
        return landmarks, self.face(deep.mean((2, 3)))[:, 0]


class FinderNetworks(nn.Module):
    """Both networks in one module, as in the weights file."""

    def __init__(self) -> None:
        super().__init__()
        self.window = WindowNetwork()
        self.crop = CropNetwork()


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """Eyes, nose tip and mouth corners (..., 5, 2) of landmarks (..., 71, 2); of each pair the left one in the picture
    comes first."""
    return np.stack([landmarks[..., list(part), :].mean(-2) for part in POINTS], -2)


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares similarity transform (3, 3) from points (n, 2) to points (n, 2).

    With points as complex numbers, this is the linear regression target = a * source + b.
    """
    x, y = (points @ np.array([1, 1j]) for points in (np.asarray(source), np.asarray(target)))
    centred = x - x.mean()
    a = (centred.conj() * (y - y.mean())).sum() / (np.abs(centred) ** 2).sum()
    b = y.mean() - a * x.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag], [0, 0, 1]])


class Found(NamedTuple):
    """A detected face, in pixels of the picture."""

    landmarks: np.ndarray  #: (71, 2), see LANDMARKS; of each pair the left one in the picture comes first
    certainty: float  #: 0..1

    @property
    def box(self) -> Box:
        """Box of the silhouette, from forehead to chin and from ear to ear."""
        return _bounds(self.landmarks[list(SILHOUETTE)])

    @property
    def face(self) -> Face:
        return Face(self.box, _bounds(self.landmarks[LIPS]), tuple(map(tuple, five_points(self.landmarks).tolist())))


class Finder:
    """Finds faces with trained networks; sets these to evaluation."""

    def __init__(self, networks: FinderNetworks) -> None:
        self.networks = networks.eval().requires_grad_(False)

    def __call__(self, pixels: np.ndarray) -> list[Face]:
        """A `detect.Detector`."""
        return [found.face for found in self.look(pixels)]

    @torch.inference_mode()
    def look(self, pixels: np.ndarray) -> list[Found]:
        """All faces in a picture (h, w, 3) uint8 RGB, the most certain first."""
        picture = torch.tensor(pixels).movedim(-1, 0)[None].float() / 127.5 - 1
        points, certainty = candidates(self.networks.window, picture)
        if not len(points):
            return []
        for _ in range(LOOKS):  # each pass takes its squares from the landmarks of the pass before
            seen, matrices = squares(picture, points)
            places, logits = self.networks.crop(seen)
            landmarks = places.double().numpy() @ matrices[:, :2, :2].swapaxes(1, 2) + matrices[:, None, :2, 2]
            points = five_points(landmarks)
        certainty = np.sqrt(certainty * logits.sigmoid().numpy())
        edges = landmarks[:, SILHOUETTE]
        boxes = np.concatenate([edges.min(1), edges.max(1)], 1)
        kept = best(boxes, certainty, CERTAIN) or best(boxes, certainty, LIKELY)[:1]
        return [Found(landmarks[n], float(certainty[n])) for n in kept]


def candidates(network: WindowNetwork, picture: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Candidates in a picture (1, 3, h, w) in -1..1: their five points (n, 5, 2) in pixels, and certainties (n,) in
    falling order."""
    longer = max(picture.shape[-2:])
    boxes, points, certainty = [], [], []
    for side in (s for s in SIDES if s <= max(2 * longer, SIDES[1])):
        scale = side / longer
        size = [max(1, round(length * scale)) for length in picture.shape[-2:]]
        small = F.interpolate(picture, size, mode="bilinear", antialias=True)
        room = [-length % 16 for length in size]
        small = F.pad(small, (0, room[1], 0, room[0]), mode="replicate")
        for stride, out in zip(STRIDES, network(small), strict=True):
            rows, columns = (out[0, 0] > _POSSIBLE).nonzero(as_tuple=True)
            cells = out[0, :, rows, columns].T.double().numpy()
            middle = (torch.stack([columns, rows], 1).numpy() + 0.5) * stride
            reach = np.exp(cells[:, 1:5]) * 4 * stride
            boxes.append(np.concatenate([middle - reach[:, :2], middle + reach[:, 2:]], 1) / scale)
            points.append((middle[:, None] + cells[:, 5:].reshape(-1, 5, 2) * 4 * stride) / scale)
            certainty.append(1 / (1 + np.exp(-cells[:, 0])))
    kept = best(np.concatenate(boxes), np.concatenate(certainty), 0.0)[:MOST]
    return np.concatenate(points)[kept], np.concatenate(certainty)[kept]


@cache
def load_finder() -> Detector:
    """The finder with the weights that come with the project; loaded once."""
    networks = FinderNetworks()
    networks.load_state_dict(load_file(WEIGHTS))
    return Finder(networks.float())


def _bounds(points: np.ndarray) -> Box:
    return Box(*points.min(0).tolist(), *points.max(0).tolist())


def squares(picture: Tensor, points: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Inputs of the second network: squares of a picture (1, 3, h, w) around faces with given five points (n, 5, 2).

    Returns the squares (n, 3, CROP, CROP), and the matrices (n, 3, 3) from their landmarks to pixels of the picture.
    """
    halves = [picture]  # mipmaps, which prevent aliasing
    while min(halves[-1].shape[-2:]) >= 2 * CROP:
        halves.append(F.avg_pool2d(halves[-1], 2))
    out, matrices = [], np.stack([similarity(np.array(TEMPLATE), each) for each in points])
    for matrix in matrices:
        level = int(np.log2(max(np.hypot(*matrix[:2, 0]) / CROP, 1)))
        level = min(level, len(halves) - 1)
        height, width = (length / 2 * 2**level for length in halves[level].shape[-2:])
        theta = np.diag([1 / width, 1 / height]) @ (matrix[:2] @ np.diag([0.5, 0.5, 1])) - [[0, 0, 1], [0, 0, 1]]
        grid = F.affine_grid(torch.tensor(theta)[None].float(), [1, 3, CROP, CROP], align_corners=False)
        out.append(F.grid_sample(halves[level], grid, padding_mode="border", align_corners=False))
    return torch.cat(out), matrices


def best(boxes: np.ndarray, certainty: np.ndarray, least: float, overlap: float = OVERLAP) -> list[int]:
    """Non-maximum suppression: indices of the boxes (n, 4) to keep, by falling certainty (n,) down to `least`.

    Of two boxes whose shared area is more than `overlap` of the smaller one, the more certain is kept.
    """
    kept: list[int] = []
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    for n in np.argsort(-certainty):
        if certainty[n] < least:
            break
        low, high = np.maximum(boxes[n, :2], boxes[kept, :2]), np.minimum(boxes[n, 2:], boxes[kept, 2:])
        shared = (high - low).clip(0).prod(1)
        if not (shared > overlap * np.minimum(area[n], area[kept])).any():
            kept.append(int(n))
    return kept
