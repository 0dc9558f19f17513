"""The face finder on people that were in no training, in changed pictures, and in pictures without faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fada_core.face.finder import (
    FOREHEAD,
    INNER_LIPS,
    JAW,
    WEIGHTS,
    Finder,
    FinderNetworks,
    best,
    load_finder,
    similarity,
)
from fada_core.face.masks import Box
from fada_core.face.region import ASSUMED, DETECTED, find_face
from fada_core.pretrain import nonfaces
from fada_core.pretrain.face import FaceConfig, run, wanted
from fada_core.pretrain.stills import Still, StillSet, draw
from fada_core.pretrain.windows import MIRRORED, Window, Windows, box
from fada_core.training import LoopConfig

HELD_OUT = 1_000_000


@pytest.fixture(scope="module")
def stills() -> list[Still]:
    return [still for seed in range(6) for still in draw(HELD_OUT + seed, 2, 192)]


def covered(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """Intersection over union."""
    shared = Box(max(first[0], second[0]), max(first[1], second[1]), min(first[2], second[2]), min(first[3], second[3]))
    both = max(shared.width, 0) * max(shared.height, 0)
    return both / (Box(*first).width * Box(*first).height + Box(*second).width * Box(*second).height - both)


def spoilt(picture: Image.Image) -> dict[str, tuple[Image.Image, np.ndarray]]:
    """Changed pictures, each with the map from the original's pixels to its own."""
    wide = Image.new("RGB", (768, 768), (90, 90, 90))
    wide.paste(picture, (300, 280))
    noise = np.random.default_rng(0).normal(0, 15, (192, 192, 3))
    turn = np.array([[np.cos(0.35), -np.sin(0.35), 0], [np.sin(0.35), np.cos(0.35), 0], [0, 0, 1]])
    turn[:2, 2] = 96 - turn[:2, :2] @ (96, 96)
    inverse = np.linalg.inv(turn)[:2].ravel().tolist()
    return {
        "as it is": (picture, np.eye(3)),
        "grey": (picture.convert("L").convert("RGB"), np.eye(3)),
        "half the size": (picture.resize((96, 96)), np.diag([0.5, 0.5, 1])),
        "a part of a large one": (wide, np.array([[1, 0, 300], [0, 1, 280], [0, 0, 1]])),
        "turned": (picture.transform((192, 192), Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR), turn),
        "noisy": (Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8)), np.eye(3)),
    }


def test_faces_are_found_in_any_state(stills: list[Still]) -> None:
    finder = load_finder()
    found: dict[str, list[float]] = {}
    for still in stills:
        for name, (picture, matrix) in spoilt(Image.fromarray(still.picture)).items():
            truth = still.points @ matrix[:2, :2].T + matrix[:2, 2]
            boxes = [face.box for face in finder(np.asarray(picture))]
            found.setdefault(name, []).append(max([covered(each, box(truth)) for each in boxes], default=0.0))
    for name, overlaps in found.items():
        assert np.mean(np.array(overlaps) > 0.5) >= 0.75, (name, overlaps)


def test_landmarks_lie_on_the_face(stills: list[Still]) -> None:
    errors = []
    for still in stills:
        size = np.ptp(box(still.points).reshape(2, 2), axis=0).max()
        for found in load_finder().look(still.picture)[:1]:
            assert 0 < found.certainty <= 1
            errors.append(np.linalg.norm(found.landmarks - still.points, axis=1) / size)
    by_point = np.mean(errors, 0)
    assert by_point[INNER_LIPS].mean() < 0.09 and by_point[JAW].mean() < 0.1 and by_point[FOREHEAD].mean() < 0.1


def test_of_two_people_both_are_found(stills: list[Still]) -> None:
    finder, pairs = load_finder(), []
    for first, second in zip(stills[::2], stills[1::2], strict=True):
        pairs.append(len(finder(np.concatenate([first.picture, second.picture], 1))))
    assert np.median(pairs) == 2 and max(pairs) <= 3


def test_nobody_is_found_where_nobody_is() -> None:
    finder = load_finder()
    pictures = [nonfaces.draw(HELD_OUT + seed, 256) for seed in range(40)]
    pictures += [np.full((200, 300, 3), grey, np.uint8) for grey in (0, 128, 255)]
    pictures.append(np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8))
    assert sum(len(finder(picture)) for picture in pictures) <= 2  # of 44


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3000, 20), (17, 23)])
def test_pictures_of_any_size_are_looked_at(size: tuple[int, int]) -> None:
    assert load_finder()(np.full((*size, 3), 100, np.uint8)) == []


def test_it_is_the_detector_of_a_region(stills: list[Still]) -> None:
    still = stills[0]
    image = torch.from_numpy(still.picture).movedim(-1, 0)[None].float() / 127.5 - 1
    region = find_face(image, detector=load_finder(), required=False)
    assert region.source == DETECTED and covered(region.face, box(still.points)) > 0.5
    assert region.face.y0 < region.lips.y0 < region.lips.y1 < region.face.y1
    assert region.points[0][0] < region.points[1][0] and region.points[0][1] < region.points[3][1]
    assert find_face(torch.zeros(1, 3, 64, 64), detector=load_finder(), required=False).source == ASSUMED


def test_the_weights_are_small_and_of_half_precision() -> None:
    assert WEIGHTS.stat().st_size <= 2_000_000
    state = load_file(WEIGHTS)
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float16}


def test_of_boxes_that_share_a_place_the_most_certain_is_kept() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [2, 2, 6, 6], [20, 0, 30, 10], [40, 0, 50, 10]], float)
    assert best(boxes, np.array([0.7, 0.9, 0.8, 0.6, 0.1]), 0.5) == [1, 3]
    assert best(boxes[:0], np.zeros(0), 0.5) == []


def test_a_similarity_takes_points_to_others() -> None:
    matrix = np.array([[0.6, -0.8, 3.0], [0.8, 0.6, -2.0], [0, 0, 1]]) @ np.diag([2.0, 2.0, 1.0])
    points = np.random.default_rng(0).normal(size=(5, 2))
    np.testing.assert_allclose(similarity(points, points @ matrix[:2, :2].T + matrix[:2, 2]), matrix, atol=1e-9)


# Training


def test_cells_are_told_what_to_say() -> None:
    points = np.full((1, 71, 2), 60.0, np.float32)
    points[0, 0], points[0, 16], points[0, 8], points[0, 69] = (44, 60), (76, 60), (60, 80), (60, 40)  # 32 x 40 pixels
    fine, coarse = (wanted(Window(np.zeros((128, 128, 3), np.uint8), points, np.array([True])), s) for s in (8, 16))
    target, role = fine
    assert role[7, 7] == 1 and role[0, 0] == 0 and role[6, 6] == -1
    assert np.exp(target[:4, 7, 7]) * 32 == pytest.approx([60 - 44, 60 - 40, 76 - 60, 80 - 60])
    assert coarse[1].max() == 0 or (coarse[1] == 1).sum() >= 1
    unseen = wanted(Window(np.zeros((128, 128, 3), np.uint8), points, np.array([False])), 8)[1]
    assert unseen.max() == 0 and unseen[7, 7] == -1


def test_a_mirrored_face_keeps_its_names() -> None:
    assert (MIRRORED[MIRRORED] == np.arange(71)).all()
    still = draw(HELD_OUT, 1, 64)[0]
    mirrored = np.stack([64 - still.points[:, 0], still.points[:, 1]], 1)[MIRRORED]
    assert mirrored[0, 0] < mirrored[16, 0] and mirrored[36, 0] < mirrored[45, 0] and mirrored[48, 0] < mirrored[54, 0]


def test_a_training_makes_weights_that_are_used(tmp_path: Path) -> None:
    loop = LoopConfig(steps=2, warmup_steps=1, save_every=1, preview_every=2)
    config = FaceConfig(tmp_path, people=2, nonfaces=6, empty=8, workers=1, batch=4, loop=loop, cpu=True)
    networks = FinderNetworks()
    networks.load_state_dict(load_file(run(config)))
    assert networks.window.start[0][1].running_var.ne(1).any()  # measured
    Finder(networks).look(np.zeros((64, 64, 3), np.uint8))
    assert all((tmp_path / part / "preview-000002.png").exists() for part in ("window", "crop"))
    windows = Windows(StillSet(tmp_path / "data", 2), nonfaces.collection(tmp_path / "data", 6, 192))
    first, second = (windows.window(np.random.default_rng(5)) for _ in range(2))
    assert (first.picture == second.picture).all() and (first.points == second.points).all()
    crop, points, shown = next(c for c in (windows.crop(np.random.default_rng(n)) for n in range(20)) if c[2])
    assert crop.shape == (96, 96, 3) and shown and 20 < points[:, 0].mean() < 76
