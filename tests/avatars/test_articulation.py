"""Articulation: lips close where they must, each sound has its own shape, and the rest of the head moves."""

import numpy as np
import pytest

from fada_core.avatars import behaviour
from fada_core.avatars.articulation import Habits, lip_gap, loudness, mouth, sample_habits, seal, track
from fada_core.avatars.assets import UNITS, unit_index, units
from fada_core.avatars.phones import ARPABET, MISAKI, SOUNDS, Phoneme, sounds

FPS = 25.0


def _said(*symbols: str, length: float = 0.12, pause: float = 0.4) -> tuple[list[Phoneme], np.ndarray, int]:
    phonemes = [Phoneme(pause + i * length, pause + (i + 1) * length, s) for i, s in enumerate(symbols)]
    seconds = 2 * pause + len(symbols) * length
    return phonemes, np.full(int(seconds * 16000), 0.2, np.float32), round(seconds * FPS)


def _shape(symbol: str, **habits: float) -> np.ndarray:
    """Units (52,) in the middle of a long sound."""
    phonemes, waveform, n = _said(symbol, length=0.4)
    return track(phonemes, waveform, n, FPS, Habits(**habits), np.random.default_rng(0))["units"][n // 2]


def test_all_alphabets_end_in_known_sounds() -> None:
    for symbol in [*ARPABET.values(), *MISAKI.values()]:
        assert [letter for letter, _, _ in sounds(symbol)] == list(symbol)
        assert all(letter in SOUNDS for letter in symbol)
    assert sum(share for _, share, _ in sounds("aɪ")) == pytest.approx(1)
    assert sounds("") == []
    assert len(sounds("Ω")) == 1


def test_silence_has_closed_lips() -> None:
    made = track([], np.zeros(16000, np.float32), 25, FPS, Habits(), np.random.default_rng(0))
    assert made["units"].shape == (25, len(UNITS))
    assert made["openness"].max() == 0
    assert lip_gap(made["units"]).max() < -0.02
    assert set(np.flatnonzero(made["units"].max(0) > 1e-4)) == {unit_index("mouthClose")}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("stop", ["p", "b", "m"])
def test_lips_meet_whatever_the_habits_and_the_mood(seed: int, stop: str) -> None:
    rng = np.random.default_rng(seed)
    phonemes, waveform, n = _said("ˈɑ", stop, "ˈɑ", "i", stop, "i", "o", stop, "u", length=0.09)
    mood = behaviour.Mood(list(behaviour.MOODS)[seed % 5], 1.0).units
    made = track(phonemes, waveform, 4 * n, 4 * FPS, sample_habits(rng), rng, mood)
    times = (np.arange(4 * n) + 0.5) / FPS / 4
    for p in phonemes:
        inside = (times > p.start) & (times < p.end)
        if p.symbol == stop:
            assert made["openness"][inside].min() == 0
            assert made["openness"][inside].mean() < 0.12
        else:
            assert made["openness"][inside].max() > 0.04
    assert made["units"].min() >= 0
    assert made["units"].max() <= 1


def test_sounds_look_their_own() -> None:
    looks = {
        s: {k: float(v[0]) for k, v in mouth(_shape(s)[None]).items()} for s in ("ˈɑ", "i", "u", "o", "s", "f", "ʃ")
    }
    opened = {s: look["openness"] for s, look in looks.items()}
    assert opened["ˈɑ"] > 0.6
    assert max(opened["i"], opened["u"], opened["s"]) < 0.6 * opened["ˈɑ"]
    assert 0 < opened["f"] < 0.25
    assert looks["i"]["width"] > looks["ˈɑ"]["width"] + 0.2
    assert looks["u"]["width"] < 0.3
    assert looks["u"]["rounding"] > looks["ʃ"]["rounding"] > looks["ˈɑ"]["rounding"] + 0.2
    assert _shape("θ")[unit_index("tongueOut")] > 0.3
    assert _shape("f")[unit_index("mouthRollLower")] > 0.3
    shapes = np.stack([_shape(s) for s in "iɪeɛæaʌəuʊoɔ"])
    between = np.linalg.norm(shapes[:, None] - shapes, axis=-1)
    assert between[~np.eye(len(shapes), dtype=bool)].min() > 0.08


def test_rounding_looks_ahead() -> None:
    def rounding(vowel: str) -> float:
        phonemes, waveform, n = _said("i", "s", "t", vowel, length=0.1)
        made = track(phonemes, waveform, 8 * n, 8 * FPS, Habits(), np.random.default_rng(0))
        return float(made["units"][round((phonemes[2].start + 0.05) * 8 * FPS), unit_index("mouthPucker")])

    assert rounding("u") > rounding("i") + 0.15


def test_the_mouth_closes_in_pauses_and_moves_in_step_with_the_sound() -> None:
    phonemes, waveform, n = _said("h", "ˈɑ", "l", "o")
    made = track(phonemes, waveform, n, FPS, Habits(), np.random.default_rng(0))
    times = (np.arange(n) + 0.5) / FPS
    assert made["openness"][times < 0.3].max() == 0
    assert made["openness"][times > phonemes[-1].end + 0.22].max() == 0
    middle = (phonemes[1].start + phonemes[1].end) / 2
    assert abs(times[made["openness"].argmax()] - middle) < 0.06


def test_habits_show() -> None:
    jaw, upper = unit_index("jawOpen"), unit_index("mouthUpperUpLeft")
    usual = _shape("ˈɑ")
    assert _shape("ˈɑ", strength=1.3)[jaw] > 1.2 * usual[jaw]
    lips = _shape("ˈɑ", jaw=0.7)
    assert lips[jaw] < 0.8 * usual[jaw]
    assert lips[upper] > usual[upper]
    lopsided = _shape("ˈɑ", asymmetry=0.2)
    assert lopsided[upper] > 1.3 * lopsided[unit_index("mouthUpperUpRight")]
    assert _shape("u", corners=0.7)[unit_index("mouthPucker")] < 0.8 * _shape("u")[unit_index("mouthPucker")]
    assert _shape("ˈɑ", teeth=0.3)[upper] > usual[upper] + 0.2
    phonemes, waveform, n = _said("b", "ˈɑ", "d", "i", length=0.07)
    slow, quick = (
        track(phonemes, waveform, n, FPS, Habits(speed=s), np.random.default_rng(0))["units"][:, jaw].max()
        for s in (0.7, 1.4)
    )
    assert quick > slow


def test_seal_closes_a_smile() -> None:
    smile = units(mouthSmile=0.8, mouthUpperUp=0.4, jawOpen=0.2)[None]
    assert lip_gap(smile)[0] > 0
    assert mouth(seal(smile, np.array([[0.0], [0.0], [1.0]])))["openness"][0] == 0
    assert np.allclose(seal(smile, np.zeros((3, 1))), smile)


def test_loudness_is_of_each_frame() -> None:
    wave = np.concatenate([np.zeros(6400), np.ones(6400)]).astype(np.float32)
    assert np.allclose(loudness(wave, 20, 25.0), [0.0] * 10 + [1.0] * 10)
    assert not loudness(np.zeros(100, np.float32), 5, 25.0).any()


def _behave(seed: int, n: int = 500, **options: float) -> dict[str, np.ndarray]:
    emphasis = np.abs(np.sin(np.arange(n) / 7)).astype(np.float32)
    return behaviour.behave(n, FPS, emphasis, np.random.default_rng(seed), **options)


def test_behaviour_is_reproducible_smooth_and_within_range() -> None:
    for seed in range(8):
        made, again = _behave(seed), _behave(seed)
        assert all(np.array_equal(made[k], again[k]) for k in made)
        for name in ("yaw", "pitch", "roll"):
            assert np.abs(made[name]).max() < 0.6
            assert np.abs(np.diff(made[name])).max() < 0.06
        assert made["units"].shape == (500, len(UNITS))
        assert made["units"].min() >= 0
        assert made["units"].max() <= 1
        assert np.abs(made["gaze"]).max() <= 0.45
    moving, still = (np.std(_behave(3, amount=a)["roll"]) for a in (1.4, 0.3))
    assert moving > 2 * still


def test_people_blink_as_often_as_people_do() -> None:
    closed = np.stack([_behave(s)["units"][:, unit_index("eyeBlinkLeft")] > 0.5 for s in range(20)])
    blinks = (np.diff(closed.astype(int), axis=1) == 1).sum()
    assert 8 < blinks / (20 * 500 / FPS / 60) < 40
    assert closed.mean() < 0.15


def test_eyes_stay_on_the_viewer_while_the_head_turns() -> None:
    made = [_behave(s) for s in range(10)]
    world = np.concatenate([m["gaze"][:, 0] + m["yaw"] for m in made])
    assert np.median(np.abs(world)) < 0.06


def test_moods_are_seen() -> None:
    rng = np.random.default_rng(0)
    drawn = [behaviour.sample_mood(rng) for _ in range(200)]
    assert {m.name for m in drawn} == set(behaviour.MOODS)
    made = behaviour.behave(50, FPS, np.zeros(50), rng, mood=behaviour.Mood("surprised", 1.0))
    assert made["units"][:, unit_index("browOuterUpLeft")].min() > 0.5


def test_an_idle_mouth_keeps_closed() -> None:
    moved = 0
    for seed in range(20):
        face = behaviour.idle(60, FPS, np.random.default_rng(seed))
        made = track([], np.zeros(38400, np.float32), 60, FPS, Habits(), np.random.default_rng(0), face)
        assert made["openness"].max() == 0
        moved += face.max() > 0.05
    assert 8 < moved < 20


def test_some_portraits_have_open_mouths() -> None:
    rng = np.random.default_rng(0)
    drawn = [behaviour.portrait_units(rng, behaviour.sample_mood(rng)) for _ in range(200)]
    opened = [face for face, closed in drawn if not closed]
    assert 40 < len(opened) < 80
    assert (lip_gap(np.stack(opened)) > 0).mean() > 0.95
