"""The identity embedding for Hallo's image tokens, from an ArcFace network that the user provides as ONNX.

FADA does not include such weights: those that Hallo was trained with (insightface's glintr100 of antelopev2, 512
values) are for non-commercial use only. Without an embedding a model gets zeros, as Hallo does for a tenth of the
portraits in training; the likeness then comes only from the reference network.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import FadaError
from .detect import Points
from .region import FaceRegion, crop

_SIDE = 112  #: side of an aligned face in pixels
_TEMPLATE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
"""Eyes, nose and mouth corners in an aligned face, in pixels (ArcFace, arXiv 1801.07698)."""
_CROP = 512  #: side in pixels of the square from which the face is aligned

Embedder = Callable[[Tensor, FaceRegion], Tensor]
"""Takes a picture (1, 3, h, w) in -1..1 and the region of the face, and returns the embedding (1, dim) float32, not
normalised, as Hallo uses it."""


def aligned_face(image: Tensor, region: FaceRegion) -> Tensor:
    """The face aligned to ArcFace's template by rotation, scale and shift: (1, 3, 112, 112) in -1..1.

    Pixels beyond the region's square are black.
    """
    square = crop(image, region, _CROP).float()
    scale = _CROP / region.side
    points = tuple(((x - region.left) * scale, (y - region.top) * scale) for x, y in region.points)
    matrix = _similarity(_TEMPLATE, points)
    # Coordinates of affine_grid run from -1 to 1 between the outer edges of a picture.
    cells = torch.tensor([[_SIDE / 2, 0, _SIDE / 2], [0, _SIDE / 2, _SIDE / 2], [0, 0, 1]], dtype=torch.float64)
    unit = torch.tensor([[2 / _CROP, 0, -1], [0, 2 / _CROP, -1], [0, 0, 1]], dtype=torch.float64)
    theta = (unit @ matrix @ cells)[:2].float()
    grid = F.affine_grid(theta[None], [1, 3, _SIDE, _SIDE], align_corners=False)
    return F.grid_sample(square + 1, grid, mode="bilinear", align_corners=False) - 1


def load_identity(path: str | Path) -> Embedder:
    """Load an ArcFace network (.onnx) that maps RGB (1, 3, 112, 112) in -1..1 to an embedding (1, dim).

    Raises:
        FadaError: the file or onnxruntime is missing, or onnxruntime cannot load the network. Calling the embedder
            raises it for a network with other inputs or outputs.
    """
    path = Path(path)
    if not path.is_file():
        raise FadaError(f"There is no file '{path}'; give an ArcFace network as .onnx, or none at all.")
    if importlib.util.find_spec("onnxruntime") is None:
        raise FadaError("The identity embedding needs the library onnxruntime; run: pip install onnxruntime")
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    wrong = f"'{path.name}' is not a usable ArcFace network; give another .onnx file."
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except (errors.Fail, errors.InvalidGraph, errors.InvalidProtobuf, errors.NotImplemented) as error:
        raise FadaError(wrong) from error

    def embed(image: Tensor, region: FaceRegion) -> Tensor:
        face = aligned_face(image, region)
        try:
            embedding = session.run(None, {session.get_inputs()[0].name: face.numpy()})[0]
        except (errors.Fail, errors.InvalidArgument, errors.RuntimeException, ValueError) as error:  # wrong inputs
            raise FadaError(wrong) from error
        if embedding.ndim != 2 or len(embedding) != 1:
            raise FadaError(
                f"'{path.name}' gives the shape {embedding.shape}, not one embedding; give another network."
            )
        return torch.from_numpy(embedding).float()

    return embed


def identity_embedding(image: Tensor, region: FaceRegion, path: str | Path) -> Tensor:
    """The embedding of a portrait by the network at `path`; see `load_identity` and `Embedder`."""
    return load_identity(path)(image, region)


def _similarity(source: Points, target: Points) -> Tensor:
    """Least-squares similarity transform (3, 3) float64 from points to points.

    With points as complex numbers, this is the linear regression target = a * source + b.
    """
    x, y = (torch.view_as_complex(torch.tensor(points, dtype=torch.float64)) for points in (source, target))
    centred = x - x.mean()
    a = (centred.conj() * (y - y.mean())).sum() / (centred.abs() ** 2).sum()
    b = y.mean() - a * x.mean()
    return torch.tensor([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag], [0, 0, 1]], dtype=torch.float64)
