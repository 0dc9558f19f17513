"""Evaluation on portraits, without the face mesh, which is not shipped."""

from pathlib import Path

import pytest
import torch

from fada_core.errors import FadaError
from fada_core.evaluate import mesh
from fada_core.evaluate.portraits import PortraitsConfig, portrait_sets


def _landmarks(gap: float, frames: int = 2) -> torch.Tensor:
    points = torch.full((frames, 468, 2), 50.0)
    points[:, mesh.UPPER, 1] = 60.0
    points[:, mesh.LOWER, 1] = 60.0 + gap
    points[:, mesh.CORNERS[0], 0] = 40.0
    points[:, mesh.CORNERS[1], 0] = 60.0
    return points


def test_openness_is_a_share_of_the_mouth_s_width() -> None:
    torch.testing.assert_close(mesh.openness(_landmarks(5.0)), torch.full((2,), 0.25))
    assert mesh.openness(_landmarks(0.0)).max() == 0


def test_what_speaks_is_not_counted_as_likeness() -> None:
    points = _landmarks(5.0)
    points[:, list(mesh.JAW)] = torch.tensor([[30.0, 80.0]])
    mask = mesh.still_mask(points, 100)[0, 0]
    assert mask[79, 30] == 0  # the jaw
    assert mask[5, 5] == 1


def test_no_mesh_no_pictures_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FadaError, match="--mesh"):
        next(portrait_sets(PortraitsConfig(portraits=tmp_path), 1.0, 64, 25.0, 12))
    pytest.importorskip("ai_edge_litert")
    with pytest.raises(FadaError, match="face_mesh"):
        mesh.FaceMesh(tmp_path / "face_landmark.tflite")
    (tmp_path / "other.tflite").write_bytes(b"nothing")
    with pytest.raises(FadaError, match="face_landmark"):
        mesh.FaceMesh(tmp_path / "other.tflite")
