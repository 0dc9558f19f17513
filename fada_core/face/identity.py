"""The identity embedding that Hallo's image tokens are made of: an ArcFace network, which the user brings as ONNX.

No such weights come with FADA: those that Hallo was trained with (insightface's glintr100 of antelopev2, 512 numbers)
are for non-commercial use only. Without them a model gets zeros, as Hallo's does in training for a tenth of the
portraits: the likeness then comes from the reference network alone.
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

_SIDE = 112  #: pixels of an aligned face
_TEMPLATE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
"""Where eyes, nose and mouth corners lie in an aligned face (ArcFace, arXiv 1801.07698)."""
_CROP = 512  #: pixels of the square that the face is aligned from

Embedder = Callable[[Tensor, FaceRegion], Tensor]
"""From a picture, (1, 3, h, w) in -1..1, and the face's region in it to the embedding, (1, dim) float32, not normalised
(as Hallo takes it)."""


def aligned_face(image: Tensor, region: FaceRegion) -> Tensor:
    """The face turned, scaled and moved to ArcFace's template, (1, 3, 112, 112) in -1..1; black beyond the square."""
    square = crop(image, region, _CROP).float()
    scale = _CROP / region.side
    points = tuple(((x - region.left) * scale, (y - region.top) * scale) for x, y in region.points)
    matrix = _similarity(_TEMPLATE, points)
    # affine_grid counts from -1 to 1 between the outer edges of both pictures.
    cells = torch.tensor([[_SIDE / 2, 0, _SIDE / 2], [0, _SIDE / 2, _SIDE / 2], [0, 0, 1]], dtype=torch.float64)
    unit = torch.tensor([[2 / _CROP, 0, -1], [0, 2 / _CROP, -1], [0, 0, 1]], dtype=torch.float64)
    theta = (unit @ matrix @ cells)[:2].float()
    grid = F.affine_grid(theta[None], [1, 3, _SIDE, _SIDE], align_corners=False)
    return F.grid_sample(square + 1, grid, mode="bilinear", align_corners=False) - 1


def load_identity(path: str | Path) -> Embedder:
    """The embedder of an ArcFace network, .onnx: (1, 3, 112, 112) RGB in -1..1 to (1, dim).

    Raises:
        FadaError: no such file, not a network that onnxruntime can run, or onnxruntime is missing. Calling the result:
            it is not such a network.
    """
    path = Path(path)
    if not path.is_file():
        raise FadaError(f"There is no file '{path}'; give an ArcFace network as .onnx, or none at all.")
    if importlib.util.find_spec("onnxruntime") is None:
        raise FadaError("The identity embedding needs the library onnxruntime; run: pip install onnxruntime")
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    wrong = f"'{path.name}' is no ArcFace network that works here; give another .onnx file."
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except (errors.Fail, errors.InvalidGraph, errors.InvalidProtobuf, errors.NotImplemented) as error:
        raise FadaError(wrong) from error

    def embed(image: Tensor, region: FaceRegion) -> Tensor:
        face = aligned_face(image, region)
        try:
            embedding = session.run(None, {session.get_inputs()[0].name: face.numpy()})[0]
        except (errors.Fail, errors.InvalidArgument, errors.RuntimeException, ValueError) as error:  # other inputs
            raise FadaError(wrong) from error
        if embedding.ndim != 2 or len(embedding) != 1:
            raise FadaError(
                f"'{path.name}' gives numbers of the shape {embedding.shape}, not one embedding; give another."
            )
        return torch.from_numpy(embedding).float()

    return embed


def identity_embedding(image: Tensor, region: FaceRegion, path: str | Path) -> Tensor:
    """The embedding of one portrait by the network at `path`; see `load_identity` and `Embedder`."""
    return load_identity(path)(image, region)


def _similarity(source: Points, target: Points) -> Tensor:
    """The rotation, scale and shift, (3, 3) float64, that take points to others with the least squared error.

    With points as complex numbers it is a linear regression: target = a * source + b.
    """
    x, y = (torch.view_as_complex(torch.tensor(points, dtype=torch.float64)) for points in (source, target))
    centred = x - x.mean()
    a = (centred.conj() * (y - y.mean())).sum() / (centred.abs() ** 2).sum()
    b = y.mean() - a * x.mean()
    return torch.tensor([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag], [0, 0, 1]], dtype=torch.float64)
