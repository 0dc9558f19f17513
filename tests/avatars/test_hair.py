"""Hair: it lies on the head, leaves the face free, follows it where attached, and has a limited size."""

from dataclasses import replace

import numpy as np
import pytest

from fada_core.avatars import assets, beard, face_hair, hair
from fada_core.avatars.hair_traits import sample_hair_traits
from fada_core.avatars.head import Head
from fada_core.avatars.mesh import Part
from fada_core.avatars.person import sample_person
from fada_core.avatars.scalp import Skull
from fada_core.errors import FadaError


def somebody(seed: int) -> Head:
    return Head(sample_person(np.random.default_rng(seed), "high"))


def curls(style: str) -> float:
    return {"curly": 0.7, "afro": 0.95}.get(style, 0.2)


@pytest.mark.parametrize("style", hair.STYLES)
def test_scalp_hair_stays_outside_the_head_and_off_the_face(style):
    for seed in (1, 2):
        head = somebody(seed)
        traits = hair.HairTraits(style, curl=curls(style))
        meshes = [m for m in hair.grow(head, traits, np.random.default_rng(seed)) if m.part == Part.HAIR]
        assert sum(len(m.faces) for m in meshes) <= 10100
        skull = Skull(head.neutral)
        for mesh in meshes:
            assert np.isfinite(mesh.rest).all() and np.isfinite(mesh.tangent).all()
            assert mesh.uv.min() >= 0 and mesh.uv.max() <= 1 and mesh.material.texture.shape[2] == 4
            azimuth, slope, _, radius = skull.coordinates(mesh.rest)
            sunk = skull.radius(azimuth, slope, ears=False) - radius
            assert np.quantile(sunk[slope < 150], 0.99) < 0.08, mesh.name
            before_the_face = (np.abs(azimuth) < 30) & (slope > 85) & (slope < 150)
            assert before_the_face.mean() < 0.002, mesh.name
            assert mesh.neck.min() >= 0 and mesh.neck.max() <= 1


def test_the_same_seed_grows_the_same_hair():
    head, traits = somebody(3), hair.HairTraits("short", face_hair.FaceHairTraits(beard="full"))
    one, two = (hair.grow(head, traits, np.random.default_rng(5)) for _ in range(2))
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a.material.texture, b.material.texture)
        first, second = (getattr(mesh.rest, "offset", mesh.rest) for mesh in (a, b))
        assert np.array_equal(first, second)


def test_hair_of_the_face_follows_the_face():
    head = somebody(4)
    traits = hair.HairTraits("bald", face_hair.FaceHairTraits(beard="full"))
    meshes = {m.name: m for m in hair.grow(head, traits, np.random.default_rng(1))}
    still = head.pose(assets.units())

    def lowered(mesh: str, **units: float) -> np.ndarray:
        return (still.place(meshes[mesh]) - head.pose(assets.units(**units)).place(meshes[mesh]))[:, 1]

    assert np.quantile(lowered("beard", jawOpen=1.0), 0.95) > 0.15  # the chin's goes down
    assert np.abs(np.quantile(lowered("beard", jawOpen=1.0), 0.02)) < 0.02  # the sideburns stay
    assert lowered("left upper lashes", eyeBlink=1.0).mean() > 0.05
    assert np.abs(lowered("brow 1", jawOpen=1.0)).max() < 0.02
    assert lowered("brow 1", browInnerUp=1.0).min() < -0.02


def test_nothing_grows_on_lips():
    azimuth, height = np.meshgrid(np.linspace(-11, 11, 23), np.linspace(6.55, 6.68, 12))
    for kind in face_hair.KINDS[1:]:
        assert beard.beard_density(azimuth, height, kind, np.zeros(2)).max() < 0.05, kind


def test_a_recessed_hairline_and_a_thin_crown_have_less_hair():
    head = somebody(5)
    counts = []
    for recession, thinning in ((0, 0), (0.9, 0), (0.5, 1)):
        traits = hair.HairTraits("short", recession=recession, thinning=thinning)
        counts.append(
            sum(
                (m.material.texture[..., 3] > 128).mean()
                for m in hair.grow(head, traits, np.random.default_rng(2))
                if m.name == "scalp"
            )
        )
    assert counts[0] > counts[1] > counts[2]


def test_traits_suit_the_person():
    rng = np.random.default_rng(0)
    children = [sample_hair_traits(rng, 0.05, 0.95, (0.3, 0.3, 0.4), "high") for _ in range(60)]
    assert not any(t.face.beard or t.grey or t.style == "bald" for t in children)
    men = [sample_hair_traits(rng, 0.95, 0.95, (0.3, 0.3, 0.4), "high") for _ in range(60)]
    assert any(t.face.beard for t in men) and np.mean([t.grey for t in men]) > 0.5


def test_an_unknown_style_is_named():
    with pytest.raises(FadaError, match="no hair style 'mullet'"):
        hair.grow(somebody(6), replace(hair.HairTraits("bald"), style="mullet"), np.random.default_rng(0))
