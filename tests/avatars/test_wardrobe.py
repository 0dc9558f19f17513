"""Clothes cover the shoulders, glasses and hats fit the head, a mask follows the jaw, and hats press hair flat."""

import numpy as np
import pytest

from fada_core.avatars import accessories, assets, garments, hair, headwear, wardrobe
from fada_core.avatars.head import Head
from fada_core.avatars.mesh import Part
from fada_core.avatars.person import sample_person
from fada_core.avatars.scalp import base, skull_of

COLORS = np.array([[0.3, 0.1, 0.1], [0.5, 0.5, 0.5], [0.8, 0.8, 0.8]], np.float32)


def somebody(seed: int) -> Head:
    return Head(sample_person(np.random.default_rng(seed), "high"))


def sound(mesh) -> None:
    points = getattr(mesh.rest, "offset", mesh.rest)
    assert np.isfinite(points).all() and mesh.faces.min() >= 0 and len(mesh.faces) < 7000
    assert mesh.uv.min() >= 0 and mesh.uv.max() <= 1
    if mesh.neck is not None:
        assert mesh.neck.min() >= 0 and mesh.neck.max() <= 1


@pytest.mark.parametrize("kind", wardrobe.CLOTHES)
def test_clothes_cover_the_shoulders_and_lie_off_the_skin(kind):
    head = somebody(1)
    skull = skull_of(head)
    meshes = garments.clothes(skull, kind, COLORS, "plain", np.random.default_rng(0))
    for mesh in meshes:
        sound(mesh)
        assert mesh.part == Part.CLOTHES
    points = np.concatenate([m.rest for m in meshes])
    plain = base()["points"]
    chest = np.flatnonzero((plain[:, 1] < 4.9) & (np.abs(plain[:, 0]) < 0.8) & (plain[:, 2] > 0.9) & base_skin())
    for vertex in chest:
        away = points - head.neutral[vertex]
        assert np.sqrt((away**2).sum(1)).min() < 0.25
    garment = meshes[0].rest
    near = ((garment[:, None] - head.neutral[None, chest]) ** 2).sum(-1)
    above = ((garment - head.neutral[chest][near.argmin(1)]) * skull.normals[chest][near.argmin(1)]).sum(1)
    assert above[near.min(1) < 0.01].min() > 0


def base_skin() -> np.ndarray:
    skin = np.zeros(len(base()["points"]), bool)
    skin[base()["faces"]] = True
    return skin


def test_glasses_rest_on_the_nose_before_the_eyes_and_reach_the_ears():
    for seed in range(4):
        head = somebody(seed)
        frame, lenses = accessories.glasses(skull_of(head), "square", np.zeros(3), 0.0, np.random.default_rng(seed))
        sound(frame), sound(lenses)
        eyes = np.concatenate([head.neutral[assets.load().helpers[f"{s}_eye"].base] for s in ("left", "right")])
        assert lenses.rest[:, 2].max() > eyes[:, 2].max() + 0.05
        lens = lenses.rest[lenses.rest[:, 0] > 0]
        eye = eyes[eyes[:, 0] > 0].mean(0)
        assert lens[:, 0].min() < eye[0] < lens[:, 0].max() and lens[:, 1].min() < eye[1] < lens[:, 1].max()
        ears = head.neutral[base()["ear"]]
        assert frame.rest[:, 2].min() < ears[:, 2].mean() < frame.rest[:, 2].max()


@pytest.mark.parametrize("kind", headwear.KINDS[1:])
def test_hats_enclose_the_skull_and_leave_the_face_free(kind):
    head = somebody(2)
    skull = skull_of(head)
    for mesh in headwear.wear(skull, kind, COLORS[:2], np.random.default_rng(1)):
        sound(mesh)
        azimuth, slope, _, radius = skull.coordinates(mesh.rest)
        over = slope < 55
        assert (radius - skull.radius(azimuth, slope, ears=False))[over].min() > 0.02
        if mesh.material.texture.shape[2] == 3:
            assert not ((np.abs(azimuth) < 25) & (slope > 90) & (slope < 140)).any()


def test_a_hat_presses_hair_flat():
    head = somebody(3)
    worn = wardrobe.WardrobeTraits("shirt", "plain", tuple(map(tuple, COLORS)), hat="cap")
    traits = wardrobe.fit(hair.HairTraits("afro", curl=0.9), worn)
    skull = skull_of(head)
    for mesh in hair.grow(head, traits, np.random.default_rng(0)):
        if mesh.part != Part.HAIR:
            continue
        azimuth, slope, _, radius = skull.coordinates(mesh.rest)
        assert (radius - skull.radius(azimuth, slope, ears=False))[slope < 55].max() < 0.17


def test_a_mask_follows_the_jaw_and_hides_the_mouth():
    head = somebody(4)
    mask, loops = accessories.face_mask(skull_of(head), np.full(3, 0.5), np.random.default_rng(0))
    sound(mask), sound(loops)
    still, spoken = (head.pose(assets.units(jawOpen=w)).place(mask) for w in (0.0, 1.0))
    assert (still - spoken)[-60:, 1].mean() > 0.1 and np.abs((still - spoken)[:40]).max() < 0.05


def test_everything_that_is_drawn_can_be_made():
    rng = np.random.default_rng(7)
    for seed in range(12):
        person = sample_person(rng, "moderate")
        traits = wardrobe.sample_wardrobe_traits(rng, person.age, person.sex, person.ancestry, "moderate")
        for mesh in wardrobe.dress(Head(person), traits, np.random.default_rng(seed)):
            sound(mesh)
    high = [wardrobe.sample_wardrobe_traits(rng, 0.5, 0.5, (0.3, 0.3, 0.4), "high") for _ in range(200)]
    assert not any(t.mask or t.prop or t.lens_tint > 0.5 for t in high)


def test_a_prop_comes_and_goes_but_shakes_little_in_its_place():
    shifts = accessories.prop_motion("microphone", 400, 25, np.random.default_rng(3))
    length = np.sqrt((shifts**2).sum(1))
    assert shifts.shape == (400, 3) and length.min() < 0.2 and length.max() > 3
    assert np.abs(np.diff(shifts, axis=0)).max() < 0.8
    assert np.median(np.abs(np.diff(shifts, axis=0))) < 0.02
