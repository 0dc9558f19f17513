"""The base head, a person's shape and its pose."""

import numpy as np
import pytest

from fada_core.avatars import assets
from fada_core.avatars.head import Body, FaceShape, Head
from fada_core.avatars.person import sample_person
from fada_core.errors import FadaError


@pytest.fixture(scope="module")
def person():
    return sample_person(np.random.default_rng(3), "high")


def test_base_head_is_consistent():
    head = assets.load()
    assert tuple(sorted(n[5:] for n in head.target_names if n.startswith("face/"))) == assets.UNITS
    assert head.skin_faces.max() < len(head.skin_base) == len(head.skin_uv)
    assert head.skin_uv.min() >= 0 and head.skin_uv.max() <= 1
    np.testing.assert_allclose(head.vertices[head.mirror] * [-1, 1, 1], head.vertices, atol=1e-3)
    assert head.region("lips").sum() > 100


def test_same_seed_same_head(person):
    again = sample_person(np.random.default_rng(3), "high")
    np.testing.assert_array_equal(Head(person).neutral, Head(again).neutral)
    other = sample_person(np.random.default_rng(4), "high")
    assert np.abs(Head(other).neutral - Head(person).neutral).max() > 0.05


def test_units_and_turning_move_the_head(person):
    head, data = Head(person), assets.load()
    rest = head.pose(np.zeros(52))
    open_ = head.pose(assets.units(jawOpen=0.5))
    chin = data.helpers["lower_teeth"].base
    assert (rest.vertices[chin, 1] - open_.vertices[chin, 1]).mean() > 0.03
    np.testing.assert_allclose(rest.vertices, head.neutral, atol=1e-5)
    turned = head.pose(np.zeros(52), yaw=0.4)
    skull, chest = data.neck > 0.999, data.neck < 0.001
    assert turned.vertices[skull & (data.vertices[:, 2] > 1.2), 0].mean() > 0.3  # to the person's left
    np.testing.assert_allclose(turned.vertices[chest], head.neutral[chest], atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(turned.normals[data.skin_base], axis=1), 1, atol=1e-3)


def test_bad_arguments_get_a_sentence(person, tmp_path):
    with pytest.raises(FadaError, match="52 finite face units"):
        Head(person).pose(np.zeros(51))
    with pytest.raises(FadaError, match="no face unit 'jawOpened'"):
        assets.unit_index("jawOpened")
    with pytest.raises(FadaError, match="head.npz is missing"):
        assets.HeadData(tmp_path / "head.npz")
    with pytest.raises(FadaError, match="no local target 'nose-long'"):
        Head(Body(0.5, 0.5, (1.0, 0.0, 0.0), FaceShape(targets={"nose-long": 1.0})))
