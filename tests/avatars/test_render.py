"""The renderer: the same scene gives the same picture, and pictures agree with the pose."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from fada_core.avatars.assets import units
from fada_core.avatars.landmarks import boxes, landmarks, mask
from fada_core.avatars.landmarks import vertices as landmark_vertices
from fada_core.avatars.mesh import Part
from fada_core.avatars.person import make_scene, sample_person
from fada_core.avatars.render import Motion, Renderer
from fada_core.errors import FadaError

SIZE = 96


def scene(seed):
    rng = np.random.default_rng(seed)
    return make_scene(sample_person(rng, "high"), rng, "high", SIZE)


def test_same_seed_same_frames():
    motion = Motion.still(np.stack([units(jawOpen=0.4), units(mouthSmile=0.6)]))
    one, parts, _ = Renderer(SIZE).frames(scene(5), motion)
    two, _, _ = Renderer(SIZE).frames(scene(5), motion)
    np.testing.assert_array_equal(one, two)
    assert one.shape == (2, SIZE, SIZE, 3) and parts.shape == (2, SIZE, SIZE)
    assert one.dtype == parts.dtype == np.uint8
    assert (one[0] != one[1]).any()


def test_an_open_mouth_shows_its_inside():
    motion = Motion.still(np.stack([units(), units(jawOpen=0.6)]))
    _, parts, _ = Renderer(SIZE).frames(scene(1), motion)
    cavity = np.isin(parts, [Part.MOUTH, Part.TEETH, Part.TONGUE]).sum((1, 2))
    assert cavity[0] <= 2 and cavity[1] > 20
    assert (parts == Part.EYES).any((1, 2)).all()


def test_closed_lids_hide_the_eyes():
    motion = Motion.still(np.stack([units(), units(eyeBlink=1)]))
    _, parts, _ = Renderer(SIZE).frames(scene(2), motion)
    eyes = (parts == Part.EYES).sum((1, 2))
    assert eyes[0] > 10 and eyes[1] <= 2


def test_bad_arguments_get_a_sentence():
    with pytest.raises(FadaError, match="at least 16 pixels"):
        Renderer(8)
    with pytest.raises(FadaError, match="needs yaw of shape"):
        Motion(np.zeros((3, 52)), np.zeros(2), np.zeros(3), np.zeros(3), np.zeros((3, 2)))
    with pytest.raises(FadaError, match="this renderer needs"):
        Renderer(64).frames(scene(0), Motion.still(np.zeros((1, 52))))


def test_truth_agrees_with_pixels():
    opened = np.linspace(0, 0.5, 8)
    motion = Motion.still(np.stack([units(jawOpen=w, mouthLowerDown=0.3 * w, mouthUpperUp=0.3 * w) for w in opened]))
    where = replace(scene(3), meshes=[])
    _, parts, poses = Renderer(SIZE).frames(where, motion)
    lips = landmark_vertices()[[62, 66]]  # the middle of the upper and the lower lip
    truth = np.array([p.still[lips[0], 1] - p.still[lips[1], 1] for p in poses]).clip(0)
    assert truth[0] == 0 and (np.diff(truth) > 0).all()
    cavity = np.isin(parts, [Part.MOUTH, Part.TEETH, Part.TONGUE])
    points = np.stack([landmarks(p, where.camera, SIZE) for p in poses])
    column = points[0, 62, 0].astype(int)
    height = cavity[:, :, column].sum(1)  # of the cavity, in the column of the lips' middle
    gap = points[:, 66, 1] - points[:, 62, 1]
    assert np.abs(height - gap.clip(0)).max() < 2
    assert np.corrcoef(cavity.sum((1, 2)), truth)[0, 1] > 0.98
    for picture, at in zip(parts, points, strict=True):
        mouth = binary_dilation(mask(picture, "mouth"), iterations=2)
        x, y = at[48:].astype(int).T
        assert mouth[y, x].all()
        left, top, right, bottom = boxes(at)["mouth"]
        rows, columns = np.nonzero(mask(picture, "mouth"))
        assert abs(columns.min() - left) < 3 and abs(columns.max() - right) < 3
        assert abs(rows.min() - top) < 3 and abs(rows.max() - bottom) < 3


def test_a_mask_needs_a_known_name():
    with pytest.raises(FadaError, match="no mask 'nose'"):
        mask(np.zeros((4, 4), np.uint8), "nose")


def test_a_statue_is_of_one_stuff():
    rng = np.random.default_rng(6)
    statue = make_scene(sample_person(rng, "high"), rng, "high", SIZE, "marble")
    picture, parts, _ = Renderer(SIZE).frames(statue, Motion.still(units(jawOpen=0.2)[None]))
    eyes, skin = (picture[0][parts[0] == p].mean(0) for p in (Part.EYES, Part.SKIN))
    assert np.abs(eyes - skin).max() < 70 and np.ptp(eyes) < 40  # blank, without an iris or a white
