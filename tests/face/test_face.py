"""The face front end: found, cut out, told to the networks as Hallo does it, and put back where it came from.

The environment variable FADA_PARITY_MASKS names another folder with a `masks.safetensors` of the same form.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fada_core.checkpoint import CheckpointInfo
from fada_core.errors import FadaError
from fada_core.face.detect import Face, face_of_box, face_of_landmarks, load_detector
from fada_core.face.identity import aligned_face, identity_embedding
from fada_core.face.masks import Box, attention_masks, expand, face_picture
from fada_core.face.paste import PasteBack
from fada_core.face.region import ASSUMED, DETECTED, GIVEN, FaceRegion, crop, find_face
from fada_core.media.image import load_image, to_square, to_uint8
from fada_core.pipeline import Pipeline
from tests.support.networks import IDENTITY, SMALL, make_networks
from tests.support.small import ARCFACE

FIXTURE = Path(os.environ.get("FADA_PARITY_MASKS", Path(__file__).parents[1] / "fixtures" / "hallo"))


def noise(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """A picture, (1, 3, h, w), of values that bytes have."""
    pixels = np.random.default_rng(seed).integers(0, 256, (1, 3, height, width))
    return torch.from_numpy(pixels).float() / 255 * 2 - 1


def finds(*boxes: tuple[float, float, float, float]) -> Any:
    """A detector that finds these in every picture."""
    return lambda pixels: [face_of_box(Box(*box)) for box in boxes]


def square(region: FaceRegion) -> tuple[int, int, int]:
    return region.left, region.top, region.side


# What the networks see


def test_masks_are_hallos() -> None:
    recorded = load_file(FIXTURE / "masks.safetensors")
    cases = sorted({name.split(".")[0] for name in recorded})
    assert cases
    for case in cases:
        width, height = recorded[f"{case}.size_wh"].tolist()
        face = face_of_landmarks(recorded[f"{case}.landmarks"].numpy())
        masks = attention_masks(face.box, face.lips, width, height, (64, 32, 16, 8))
        for level, regions in enumerate(masks):
            for name, mask in zip(("full", "face", "lip"), regions, strict=True):
                wanted = recorded[f"{case}.{name}_level{level}"]
                assert mask.shape == (*wanted.shape, 1)
                assert (mask[..., 0] - wanted).abs().max() < 1 / 255 - 1e-4  # to the bit
        if f"{case}.face_locator_input" in recorded:
            wanted = recorded[f"{case}.face_locator_input"].float()
            picture = face_picture(face.box, width, height, len(wanted))
            assert (picture[0, 0] * 255 - wanted).abs().max() < 0.01


def test_face_picture_is_the_expanded_box() -> None:
    face = Box(182, 252, 476, 684)
    assert expand(face, 1.2, 700, 900) == (153, 209, 505, 727)  # as Hallo expands it
    picture = face_picture(face, 700, 900, 512)
    assert picture.shape == (1, 1, 512, 512)
    rows, columns = (picture[0, 0] > 0.5).any(1).nonzero(), (picture[0, 0] > 0.5).any(0).nonzero()
    assert [int(rows.min()), int(rows.max()) + 1] == pytest.approx([209 / 900 * 512, 727 / 900 * 512], abs=1)
    assert [int(columns.min()), int(columns.max()) + 1] == pytest.approx([153 / 700 * 512, 505 / 700 * 512], abs=1)


def test_expanded_boxes_move_into_the_picture_or_are_cut() -> None:
    assert expand(Box(0, 40, 20, 60), 2.0, 100, 100) == (0, 30, 40, 70)
    assert expand(Box(80, 80, 100, 100), 2.0, 100, 100) == (60, 60, 100, 100)
    assert expand(Box(0, 0, 100, 100), 1.2, 100, 100) == (0, 0, 100, 100)


def test_the_pipeline_tells_the_networks_where_the_face_is() -> None:
    pipe = Pipeline(make_networks(IDENTITY), CheckpointInfo("teacher", steps=1))
    image, speech = noise(90, 70), torch.zeros(640)
    region = find_face(image, box=(30, 20, 60, 55))
    subject = pipe.encode(image, speech, region=region).subject
    assert torch.equal(subject.face_box, region.face_picture(64).expand(-1, 3, -1, -1))
    assert [level[0].shape for level in subject.masks] == [(1, 64, 1), (1, 16, 1), (1, 4, 1)]
    identity = torch.ones(1, 10)
    cond = pipe.encode(image, speech, region=region, identity=identity)
    assert torch.equal(cond.subject.identity, identity)
    assert next(pipe.sample(cond, steps=1)).isfinite().all()
    with pytest.raises(FadaError, match="embeddings of 10 numbers"):
        pipe.encode(image, speech, region=region, identity=torch.ones(1, 512))
    with pytest.raises(FadaError, match="70x90 pixels, but this one has 80x90"):
        pipe.encode(noise(90, 80), speech, region=region)
    tiny = Pipeline(make_networks(SMALL), CheckpointInfo("teacher"))
    with pytest.raises(FadaError, match="no identity embedding"):
        tiny.encode(image, speech, identity=identity)
    assert torch.equal(
        tiny.encode(image, speech).subject.portrait,
        tiny.encode(image, speech, region=find_face(image)).subject.portrait,
    )


# Where the face is


def test_a_box_and_a_mask_of_it_give_the_same_square() -> None:
    image = noise(300, 200)
    region = find_face(image, box=(60, 100, 110, 150), detector=finds((0, 0, 50, 50)))  # the box comes first
    assert square(region) == (40, 80, 90)
    mask = torch.zeros(1, 300, 200)
    mask[:, 100:150, 60:110] = 0.6
    mask[:, 0, 0] = 0.4
    assert find_face(image, mask=mask, detector=finds((0, 0, 50, 50))) == region
    assert square(find_face(image, box=(60, 100, 110, 150), margin=0)) == (60, 100, 50)
    assert square(find_face(image, box=(60, 100, 110, 150), margin=3)) == (0, 25, 200)
    assert torch.equal(crop(image, region, 90), image[..., 80:170, 40:130])


def test_lips_and_eyes_lie_in_the_face() -> None:
    face = face_of_box(Box(100, 200, 200, 320))
    assert 100 < face.lips.x0 < 150 < face.lips.x1 < 200
    assert 260 < face.lips.y0 < face.lips.y1 < 320
    eyes, nose, mouth = face.points[:2], face.points[2], face.points[3:]
    assert eyes[0][0] < nose[0] < eyes[1][0] and mouth[0][0] < mouth[1][0]
    assert eyes[0][1] < nose[1] < mouth[0][1]


def test_without_any_source_the_middle_of_the_picture(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    image = noise(60, 100)
    region = find_face(image)
    assert torch.equal(crop(image, region, 32), to_square(image, 32))
    assert [record.getMessage() for record in caplog.records] == [
        "Without a face detector, the centre square of the picture is used."
    ]
    assert square(find_face(image, box=region.face)) == square(region)  # the face is where we would have put it


def test_no_face_is_an_error_only_where_a_detector_was_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(FadaError, match="No face was found"):
        find_face(noise(60, 100), detector=finds())
    assert find_face(noise(60, 100), detector=finds(), required=False) == find_face(noise(60, 100))
    assert [record.levelname for record in caplog.records if "No face was found" in record.message] == ["WARNING"]


def test_of_two_faces_the_larger_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    region = find_face(noise(200, 300), detector=finds((10, 10, 40, 40), (100, 50, 180, 140)))
    assert region.face == (100, 50, 180, 140)
    assert "2 faces" in caplog.text


def test_a_face_that_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    region = find_face(noise(200, 300), detector=finds((-40, 120, 60, 260)))
    assert region.face == (0, 120, 60, 200)
    assert square(region) == (0, 56, 144)
    assert "is cut off by the edge" in caplog.text
    assert all(mask.isfinite().all() for level in region.attention_masks((8, 4)) for mask in level)
    for box in ((300, 0, 400, 100), (-50, -50, 0, 10)):
        with pytest.raises(FadaError, match="outside the picture of 300x200"):
            find_face(noise(200, 300), box=box)


def test_a_face_as_large_as_the_picture_has_masks_too() -> None:
    region = find_face(noise(80, 300), box=(0, 0, 300, 80))
    assert square(region) == (110, 0, 80)
    masks = region.attention_masks((8,))[0]
    assert all(mask.min() >= 0 and mask.max() <= 1 for mask in masks)
    assert region.face_picture(32).eq(1).all()


def test_mistakes_are_named() -> None:
    image = noise(100, 100)
    for box, words in {
        (20, 20, 10, 40): "not a box",
        (20, 20, 40): "four numbers",
        (float("nan"), 20, 40, 40): "not a box",
        (20, 20, 30, 35): "at least 16",
    }.items():
        with pytest.raises(FadaError, match=words):
            find_face(image, box=box)
    with pytest.raises(FadaError, match="empty"):
        find_face(image, mask=torch.zeros(1, 64, 64))
    with pytest.raises(FadaError, match="64x32 pixels, the picture 100x100"):
        find_face(image, mask=torch.ones(32, 64))
    for margin in (-0.1, 3.1, float("nan")):
        with pytest.raises(FadaError, match="margin"):
            find_face(image, margin=margin)


# Any picture


def test_pictures_of_every_kind_come_back_whole(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (80, 60, 3), dtype=np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(colours).save(tmp_path / "turned.png", exif=turned)
    alpha = np.full((80, 60, 1), 255, np.uint8)
    alpha[:20] = 0
    Image.fromarray(np.concatenate([colours, alpha], 2)).save(tmp_path / "alpha.png")
    Image.fromarray(colours[..., 0]).save(tmp_path / "grey.png")
    iio.imwrite(tmp_path / "deep.png", colours[..., 0].astype(np.uint16) * 257)
    for name, upright in {"turned": (60, 80), "alpha": (80, 60), "grey": (80, 60), "deep": (80, 60)}.items():
        image = load_image(tmp_path / f"{name}.png")
        assert image.shape[-2:] == upright
        region = find_face(image, box=(20, 30, 40, 50))
        frames = -crop(image, region, 16).repeat(2, 1, 1, 1)
        pasted = PasteBack(image, region)(frames)
        assert pasted.shape == (2, 3, *upright)
        left, top, side = square(region)
        same = to_uint8(pasted) == to_uint8(image)
        assert not same[:, top : top + side, left : left + side].all()
        same[:, top : top + side, left : left + side] = True
        assert same.all(), name


@pytest.mark.parametrize(("height", "width"), [(40, 40), (16, 40), (300, 8000)])
def test_tiny_and_huge_pictures(height: int, width: int) -> None:
    image = noise(height, width)
    sizes = []

    def detector(pixels: np.ndarray) -> list[Face]:
        sizes.append(pixels.shape)
        h, w = pixels.shape[:2]
        return [face_of_box(Box(w / 2 - h / 2, 0, w / 2 + h / 2, h))]

    region = find_face(image, detector=detector)
    assert max(sizes[0]) <= 1280
    assert region.face == pytest.approx((width / 2 - height / 2, 0, width / 2 + height / 2, height), rel=0.01, abs=1)
    assert crop(image, region, 64).shape == (1, 3, 64, 64)
    assert PasteBack(image, region)(torch.zeros(1, 3, 64, 64)).shape == image.shape
    assert aligned_face(image, region).isfinite().all()


def test_of_several_faces_one_is_chosen() -> None:
    image, boxes = noise(100, 300), [Box(200, 20, 260, 80), Box(10, 30, 40, 60), Box(90, 30, 130, 70)]
    faces = {"detector": lambda pixels: [face_of_box(box) for box in boxes]}
    assert find_face(image, **faces).face == boxes[0]  # the largest
    left_to_right = sorted(boxes)
    for index, box in enumerate(left_to_right, 1):
        region = find_face(image, index=index, **faces)
        assert (region.face, region.faces, region.source) == (box, tuple(left_to_right), DETECTED)
    with pytest.raises(FadaError, match="no face number 4: 3 found"):
        find_face(image, index=4, **faces)
    for detector in (None, lambda pixels: []):
        with pytest.raises(FadaError, match="no face number 1: 0 found"):
            find_face(image, index=1, detector=detector, required=False)


def test_a_region_says_how_its_place_is_known() -> None:
    image = noise(60, 80)
    assert find_face(image, box=(10, 10, 40, 40)).source == GIVEN
    assert find_face(image).source == ASSUMED
    nobody = find_face(image, detector=lambda pixels: [], required=False)
    assert (nobody.source, nobody.faces) == (ASSUMED, ())


# Back into the picture


def test_only_the_square_changes() -> None:
    image = noise(900, 700)
    region = find_face(image, box=(420, 100, 600, 320))
    pasted = PasteBack(image, region)(noise(64, 64, seed=1))
    assert pasted.shape == (1, 3, 900, 700)
    left, top, side = square(region)
    assert (left, top, side) == (304, 12, 396)
    inside = torch.zeros(900, 700, dtype=torch.bool)
    inside[top : top + side, left : left + side] = True
    changed = (pasted != image).any(1)[0]
    assert not changed[~inside].any()
    middle = slice(top + 100, top + side - 100), slice(left + 100, left + side - 100)
    assert changed[middle].float().mean() > 0.99


def test_the_picture_itself_pasted_back_changes_nothing() -> None:
    image = noise(120, 90)
    region = find_face(image, box=(30, 40, 55, 65))
    pasted = PasteBack(image, region)(crop(image, region, region.side))
    torch.testing.assert_close(pasted, image, atol=1e-6, rtol=0)


def test_a_shift_of_colour_is_taken_out() -> None:
    image = noise(120, 90) * 0.5
    region = find_face(image, box=(30, 40, 55, 65))
    shift = torch.tensor([0.2, -0.1, 0.05])[:, None, None]
    frames = (crop(image, region, region.side) + shift).repeat(2, 1, 1, 1)
    frames[..., 15:30, 15:30] += 0.3  # what has moved, in the middle, stays
    wanted = image.clone()
    wanted[..., region.top + 15 : region.top + 30, region.left + 15 : region.left + 30] += 0.3
    torch.testing.assert_close(PasteBack(image, region)(frames), wanted.repeat(2, 1, 1, 1), atol=1e-5, rtol=0)
    left = PasteBack(image, region, match_colour=False)(frames)[0, :, region.top + 8, region.left + 8]
    torch.testing.assert_close(left - image[0, :, region.top + 8, region.left + 8], shift.flatten(), atol=1e-5, rtol=0)


def test_the_edge_is_soft_but_at_the_pictures_own() -> None:
    image, white = -torch.ones(1, 3, 100, 100), torch.ones(1, 3, 32, 32)
    region = find_face(image, box=(0, 30, 40, 70))
    assert square(region) == (0, 14, 72)
    row = PasteBack(image, region, feather=0.25, match_colour=False)(white)[0, 0, 50]
    assert (row[:54] > 0.999).all()  # begins with the picture
    assert (row[54:72].diff() < 0).all() and row[72:].eq(-1).all()
    assert row[54:72].diff().abs().max() < 0.2
    hard = PasteBack(image, region, feather=0, match_colour=False)(white)[0, 0, 50]
    assert (hard[:72] > 0.999).all() and hard[72:].eq(-1).all()


def test_what_the_model_did_not_change_stays_the_picture_s_own() -> None:
    image = noise(200, 160)
    region = find_face(image, box=(50, 40, 110, 120))
    still = torch.nn.functional.interpolate(crop(image, region, region.side), (32, 32), mode="area")
    frames = still.repeat(2, 1, 1, 1)
    frames[1, :, 20:24, 14:18] += 0.9  # the mouth
    paste = PasteBack(image, region, still=still)
    unchanged, changed = paste(frames)
    torch.testing.assert_close(unchanged, image[0], atol=1e-5, rtol=0)
    cell = region.side / 32
    mouth = slice(round(region.top + 21 * cell), round(region.top + 23 * cell))
    across = slice(round(region.left + 15 * cell), round(region.left + 17 * cell))
    assert (changed - image[0])[:, mouth, across].mean() > 0.3
    far = changed[:, : round(region.top + 12 * cell)]
    torch.testing.assert_close(far, image[0, :, : far.shape[1]], atol=1e-5, rtol=0)


def test_a_small_flicker_is_not_laid_over_the_picture() -> None:
    image = noise(200, 160)
    region = find_face(image, box=(50, 40, 110, 120))
    still = torch.nn.functional.interpolate(crop(image, region, region.side), (32, 32), mode="area")
    flicker = 0.015 * torch.rand(still.shape, generator=torch.Generator().manual_seed(3))
    pasted = PasteBack(image, region, still=still, match_colour=False)(still + flicker)
    torch.testing.assert_close(pasted[0], image[0], atol=1e-5, rtol=0)


def test_what_cannot_be_pasted() -> None:
    image = noise(50, 40)
    region = find_face(image)
    with pytest.raises(FadaError, match="40x50 pixels, but this one has 50x50"):
        PasteBack(noise(50, 50), region)
    with pytest.raises(FadaError, match="feather"):
        PasteBack(image, region, feather=0.6)
    with pytest.raises(FadaError, match="square"):
        PasteBack(image, region)(torch.zeros(1, 3, 32, 16))
    with pytest.raises(FadaError, match="use one model for both"):
        PasteBack(image, region, still=torch.zeros(1, 3, 32, 32))(torch.zeros(1, 3, 16, 16))


# The optional libraries


def library(monkeypatch: pytest.MonkeyPatch, name: str, **contents: Any) -> None:
    """A stand-in for a library that need not be installed."""
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    vars(module).update(contents)
    monkeypatch.setitem(sys.modules, name, module)


def test_yunets_rows_become_a_face(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    image = noise(1300, 2600)
    image[:, 0] = 1  # red
    seen = []

    class FaceDetectorYN:
        @classmethod
        def create(cls, model: str, config: str, size: tuple[int, int], score_threshold: float) -> FaceDetectorYN:
            return cls()

        def setInputSize(self, size: tuple[int, int]) -> None:  # noqa: N802 - OpenCV's name
            self.size = size

        def detect(self, pixels: np.ndarray) -> tuple[int, np.ndarray]:
            seen.append((self.size, pixels.shape, pixels[0, 0, 2]))
            row = [100, 200, 80, 100, 120, 240, 160, 240, 140, 255, 125, 275, 155, 275, 0.9]
            return 1, np.array([row], np.float32)

    library(monkeypatch, "cv2", FaceDetectorYN=FaceDetectorYN, error=RuntimeError)
    path = tmp_path / "face_detection_yunet_2023mar.onnx"
    path.touch()
    region = find_face(image, detector=load_detector(path))
    scale = 2600 / 1280
    assert seen == [((1280, 640), (640, 1280, 3), 255)]  # blue, green, red
    assert region.face == pytest.approx([x * scale for x in (100, 200, 180, 300)])
    assert region.points[2] == pytest.approx((140 * scale, 255 * scale))
    assert (region.lips.x0, region.lips.x1) == pytest.approx((125 * scale, 155 * scale))
    assert region.lips.y0 < 275 * scale < region.lips.y1


def test_mediapipes_landmarks_become_a_face(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recorded = load_file(Path(__file__).parents[1] / "fixtures" / "hallo" / "masks.safetensors")
    marks = recorded["c2.landmarks"].numpy()

    class FaceLandmarker:
        @classmethod
        def create_from_options(cls, options: SimpleNamespace) -> FaceLandmarker:
            assert options.base_options.model_asset_buffer == b"model"
            return cls()

        def detect(self, picture: SimpleNamespace) -> SimpleNamespace:
            assert picture.data.shape == (900, 700, 3)
            return SimpleNamespace(face_landmarks=[[SimpleNamespace(x=x / 700, y=y / 900) for x, y in marks]])

    picture = {"Image": SimpleNamespace, "ImageFormat": SimpleNamespace(SRGB=1)}
    vision = SimpleNamespace(FaceLandmarker=FaceLandmarker, FaceLandmarkerOptions=SimpleNamespace)
    library(monkeypatch, "mediapipe", **picture)
    library(monkeypatch, "mediapipe.tasks")
    library(monkeypatch, "mediapipe.tasks.python", BaseOptions=SimpleNamespace, vision=vision)
    path = tmp_path / "face_landmarker.task"
    path.write_bytes(b"model")
    region = find_face(noise(900, 700), detector=load_detector(path))
    assert region.face == pytest.approx((182, 252, 476, 684))
    assert region.lips == pytest.approx(tuple(face_of_landmarks(marks).lips))


def test_a_detector_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("cv2", "mediapipe"):
        monkeypatch.setitem(sys.modules, name, None)
    yunet, landmarker = tmp_path / "face_detection_yunet_2023mar.onnx", tmp_path / "face_landmarker.task"
    for path in (yunet, landmarker):
        path.touch()
    with pytest.raises(FadaError, match="pip install mediapipe"):
        load_detector(landmarker)
    with pytest.raises(FadaError, match="pip install opencv-python-headless"):
        load_detector(yunet)
    with pytest.raises(FadaError, match="no file"):
        load_detector(tmp_path / "gone.task")
    with pytest.raises(FadaError, match="not a face detector"):
        load_detector(tmp_path / "model.safetensors")


@pytest.mark.parametrize(("name", "needs"), [("a.onnx", "cv2"), ("a.task", "mediapipe.tasks.python")])
def test_a_broken_detector_is_named(tmp_path: Path, name: str, needs: str) -> None:
    pytest.importorskip(needs)
    (tmp_path / name).write_bytes(b"half a download")
    with pytest.raises(FadaError, match="download it again"):
        load_detector(tmp_path / name)


# Identity


def test_a_library_that_does_not_load_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = ModuleType("mediapipe")  # without its parts, as half an installation is
    module.__spec__ = ModuleSpec("mediapipe", None)
    for name in [name for name in sys.modules if name.startswith("mediapipe.")]:  # of a whole one
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mediapipe", module)
    (tmp_path / "face_landmarker.task").touch()
    with pytest.raises(FadaError, match="mediapipe cannot be loaded"):
        load_detector(tmp_path / "face_landmarker.task")


def test_an_aligned_face_has_its_eyes_where_arcface_expects_them() -> None:
    points = ((110.0, 60.0), (150.0, 90.0), (115.0, 100.0), (80.0, 110.0), (110.0, 132.0))  # a head on its side
    image = -torch.ones(1, 3, 200, 260)
    for x, y in points:
        image[..., round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3] = 1
    box = Box(60, 30, 180, 150)
    region = find_face(image, detector=lambda pixels: [Face(box, box, points)])
    aligned = aligned_face(image, region)
    assert aligned.shape == (1, 3, 112, 112)
    rows, columns = (aligned[0, 0] > 0).nonzero(as_tuple=True)
    for x, y in ((38.3, 51.7), (73.5, 51.5), (56.0, 71.7), (41.5, 92.4), (70.7, 92.2)):
        assert ((rows - y) ** 2 + (columns - x) ** 2).min().sqrt() < 8, (x, y)


def test_identity_of_a_network_that_the_user_brings(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "arcface.onnx").write_bytes(ARCFACE)
    image = noise(90, 70)
    region = find_face(image, box=(20, 20, 50, 60))
    embedding = identity_embedding(image, region, tmp_path / "arcface.onnx")
    torch.testing.assert_close(embedding, aligned_face(image, region).mean((2, 3)), atol=1e-5, rtol=0)
    (tmp_path / "broken.onnx").write_bytes(ARCFACE[:40])
    with pytest.raises(FadaError, match="not a usable ArcFace network"):
        identity_embedding(image, region, tmp_path / "broken.onnx")
    (tmp_path / "wide.onnx").write_bytes(ARCFACE.replace(b"\x08\x70", b"\x08\x60"))  # wants 96 pixels
    with pytest.raises(FadaError, match="not a usable ArcFace network"):
        identity_embedding(image, region, tmp_path / "wide.onnx")


def test_identity_needs_a_file_and_a_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    image = noise(90, 70)
    with pytest.raises(FadaError, match="no file"):
        identity_embedding(image, find_face(image), tmp_path / "gone.onnx")
    (tmp_path / "arcface.onnx").write_bytes(ARCFACE)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(FadaError, match="pip install onnxruntime"):
        identity_embedding(image, find_face(image), tmp_path / "arcface.onnx")
