"""Textures of skin, eyes and teeth: each trait has its effect."""

from dataclasses import replace

import numpy as np
import pytest

from fada_core.avatars import eyes, mouth_texture, skin
from fada_core.avatars.hair_traits import sample_hair_traits
from fada_core.avatars.makeup import MakeUp
from fada_core.avatars.surface import spot, surface

SIZE = 128
ANCESTRIES = np.eye(3)


def traits(seed: int = 0, **changes) -> skin.SkinTraits:
    drawn = skin.sample_skin_traits(np.random.default_rng(seed), 0.4, 1.0, ANCESTRIES[2], "high")
    return replace(drawn, makeup=MakeUp(), **changes)


def paint(changed: skin.SkinTraits, age: float = 0.4) -> skin.SkinMaps:
    return skin.paint(changed, age, np.random.default_rng(7), SIZE)


def mean(picture: np.ndarray, weight: np.ndarray) -> np.ndarray:
    values = picture.reshape(SIZE * SIZE, -1)[surface(SIZE).index].astype(float)
    return (values * weight[:, None]).sum(0) / weight.sum()


def cheek() -> np.ndarray:
    return spot(surface(SIZE), 0.45, 6.9, 1.15, 0.15)


def test_the_same_seed_paints_the_same_skin():
    first, second = paint(traits()), paint(traits())
    for name in ("albedo", "height", "gloss", "creases"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert first.albedo.shape == (SIZE, SIZE, 3) and first.albedo.dtype == np.uint8
    assert first.gloss.min() >= 0 and first.gloss.max() <= 1


def test_more_melanin_is_darker_and_blood_is_redder():
    tones = [mean(paint(traits(melanin=m)).albedo, cheek()).sum() for m in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert all(a > b for a, b in zip(tones, tones[1:], strict=False)) and tones[0] > 2.5 * tones[-1]
    pale, red = (mean(paint(traits(melanin=0.1, redness=r)).albedo, cheek()) for r in (0, 1))
    assert red[0] / red[1] > 1.05 * pale[0] / pale[1]


@pytest.mark.parametrize("melanin", [0.05, 0.5, 0.95])
def test_lips_stand_out_from_the_skin(melanin):
    albedo = paint(traits(melanin=melanin)).albedo
    lips = mean(albedo, surface(SIZE).lips * (1 - surface(SIZE).mouth))
    skin_color = mean(albedo, cheek())
    assert lips[0] / lips[1] > 1.05 * skin_color[0] / skin_color[1]


def test_stubble_darkens_the_chin_alone():
    chin = spot(surface(SIZE), 0, 6.28, 1.45, 0.1)
    forehead = spot(surface(SIZE), 0, 7.6, 1.45, 0.1)
    shaved, rough = (paint(traits(melanin=0.2, stubble=s)).albedo for s in (0, 1))
    assert mean(rough, chin).sum() < 0.9 * mean(shaved, chin).sum()
    np.testing.assert_allclose(mean(rough, forehead), mean(shaved, forehead), rtol=0.01)


def test_creases_lie_where_a_face_folds():
    maps = paint(traits(wrinkles=0.5), age=0.7)
    brows = spot(surface(SIZE), 0.1, 7.65, 1.45, 0.12)
    cheeks = spot(surface(SIZE), 0.29, 6.75, 1.35, 0.1)
    depth = np.abs(maps.creases)
    assert mean(depth, cheeks)[0] > 5 * mean(depth, cheeks)[1]
    assert mean(depth, brows)[1] > 5 * mean(depth, brows)[0]
    assert -2 < maps.creases.min() < -0.2


def test_age_leaves_lines():
    face = spot(surface(SIZE), 0.3, 6.95, 1.3, 0.5)
    rough = [mean(np.abs(paint(traits(wrinkles=w)).height), face)[0] for w in (0.0, 1.0)]
    assert rough[1] > 1.5 * rough[0]


def test_lipstick_covers_the_lips():
    lips = surface(SIZE).lips * (1 - surface(SIZE).mouth) > 0.9
    made_up = replace(traits(), makeup=MakeUp(lipstick=1.0, lipstick_color=(0.02, 0.02, 0.5)))
    red, _, blue = mean(paint(made_up).albedo, lips.astype(float))
    assert blue > 1.5 * red


def test_ancestries_have_their_own_range():
    def melanin(row: int) -> list[float]:
        rng = np.random.default_rng(3)
        return sorted(skin.sample_skin_traits(rng, 0.3, 0.5, ANCESTRIES[row], "high").melanin for _ in range(200))

    african, asian, european = melanin(0), melanin(1), melanin(2)
    assert african[100] > asian[100] > european[100]
    assert european[0] < 0.1 and european[-1] > 0.35 and african[-1] > 0.85


def test_children_wear_neither_wrinkles_nor_make_up():
    rng = np.random.default_rng(5)
    drawn = [skin.sample_skin_traits(rng, 0.03, 0.0, ANCESTRIES[1], "moderate") for _ in range(50)]
    assert all(t.makeup == MakeUp() and t.wrinkles < 0.05 for t in drawn)


def test_the_eye_is_a_pupil_in_an_iris_in_white():
    rng = np.random.default_rng(2)
    drawn = eyes.sample_eye_traits(rng, 0.3, ANCESTRIES[2], "high")
    picture = eyes.eye_texture(drawn, rng, 128).astype(float).mean(2)
    at = eyes.eye_uv(np.array([[0, 0, 1], [np.sin(0.25), 0, np.cos(0.25)], [np.sin(0.5), 0, np.cos(0.5)]]))
    pupil, iris, white = (picture[int((1 - v) * 128), int(u * 128)] for u, v in at)
    assert pupil < 40 and pupil < iris < white and white > 180


def test_brown_eyes_are_the_rule_but_in_europe():
    rng = np.random.default_rng(4)

    def blue(row: int) -> int:
        drawn = (eyes.sample_eye_traits(rng, 0.3, ANCESTRIES[row], "high").iris for _ in range(200))
        return sum(iris[2] > iris[0] for iris in drawn)

    assert blue(0) < 8 and blue(1) < 8 and blue(2) > 40


def test_teeth_are_lighter_than_gums_and_whiter_where_they_should_be():
    def row(white: float) -> np.ndarray:
        made = mouth_texture.MouthTraits(white=white, stains=0.0, crooked=0.0, gap=0.0, gum=0.1, coat=0.2)
        return mouth_texture.teeth_texture(made, True, np.random.default_rng(1)).astype(float)

    white, yellow = row(1.0), row(0.0)
    tooth = white[70:100, 240:252].mean((0, 1))
    gum = white[5:20, 230:280].mean((0, 1))
    assert tooth.mean() > 1.3 * gum.mean() and gum[0] > 1.3 * gum[1]
    assert yellow[70:100, 240:252].mean((0, 1))[2] < tooth[2] - 30


def test_polished_skin_is_smoother():
    rough = traits(roughness=0.8, moles=8, pimples=10, wrinkles=0.6)
    natural, clean = (np.abs(np.diff(paint(t).height, axis=1)).mean() for t in (rough, skin.polished(rough)))
    assert clean < 0.7 * natural


def test_scalp_and_stubble_come_from_the_hair():
    rng = np.random.default_rng(1)
    hair = sample_hair_traits(rng, 0.5, 1.0, (0.0, 0.0, 1.0), "high")
    hair = replace(hair, style="cropped", recession=0.0, thinning=0.0)
    bearded = replace(hair, face=replace(hair.face, beard="full"))
    worn = skin.with_hair(traits(melanin=0.1), bearded, 1.0, rng)
    assert worn.stubble > 0.5 and worn.scalp > 0.5
    crown = spot(surface(SIZE), 0.2, 8.2, 0.6, 0.15)
    assert mean(paint(worn).albedo, crown).sum() < 0.8 * mean(paint(traits(melanin=0.1)).albedo, crown).sum()
    woman = skin.with_hair(traits(), replace(hair, face=replace(hair.face, beard="")), 0.0, rng)
    assert woman.stubble == 0
