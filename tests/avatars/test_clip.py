"""Clips: they are reproducible, and their pictures, sound and ground truth agree."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from fada_core.avatars import styles
from fada_core.avatars.__main__ import Options, run
from fada_core.avatars.clip import sample
from fada_core.avatars.mesh import Part
from fada_core.avatars.phones import SAMPLE_RATE, Phoneme
from fada_core.avatars.speech import Speech, synthesize
from fada_core.errors import FadaError

pytest.importorskip("numba")
SIZE = 64


def _said(seconds: float, *sounds: tuple[float, float, str]) -> Speech:
    """A hum with these phonemes."""
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return Speech((0.3 * np.sin(880 * times)).astype(np.float32), [Phoneme(*sound) for sound in sounds], "", "test")


def test_seed_gives_the_same_clip_after_other_clips() -> None:
    pytest.importorskip("espeakng_loader")
    first = sample(5, "moderate", 0.4, size=SIZE)
    sample(6, "high", 0.2, size=SIZE)
    again = sample(5, "moderate", 0.4, size=SIZE)
    for name in ("portrait", "frames", "waveform"):
        assert torch.equal(getattr(first, name), getattr(again, name)), name
    assert not torch.equal(first.frames, sample(7, "moderate", 0.4, size=SIZE).frames)


@pytest.mark.parametrize(("seconds", "fps"), [(0.24, 25.0), (0.2, 30.0), (0.3, 24.0)])
def test_truth_describes_every_frame(seconds: float, fps: float) -> None:
    made = sample(1, "high", seconds, size=SIZE, fps=fps, speech=_said(seconds))
    n = round(seconds * fps)
    assert made.frames.shape == (n, 3, SIZE, SIZE)
    assert made.frames.dtype == torch.uint8
    assert made.parts.shape == (n, SIZE, SIZE)
    assert made.waveform.shape == (round(n / fps * SAMPLE_RATE),)
    assert made.portrait.shape == (3, SIZE, SIZE)
    assert all(len(value) == n for value in made.truth.values())


def test_the_openness_is_that_of_the_cavity_in_the_picture() -> None:
    said = _said(1.2, (0.2, 0.5, "\u0251"), (0.5, 0.7, "m"), (0.7, 1.0, "\u0251"))
    made = sample(8, "high", 1.2, size=128, speech=said, framing="face")
    inside = torch.isin(made.parts, torch.tensor([Part.MOUTH, Part.TEETH, Part.TONGUE], dtype=torch.uint8))
    height = inside.any(2).sum(1).float()
    openness = made.truth["openness"]
    assert openness.max() > 0.3
    assert torch.corrcoef(torch.stack([height, openness]))[0, 1] > 0.9
    assert height[openness < 0.01].max() <= 1


def test_silence_keeps_the_mouth_closed() -> None:
    made = sample(2, "high", 0.4, size=SIZE, speech=Speech(np.zeros(6400, np.float32), [], "", "silence"))
    assert made.truth["openness"].max() == 0


def test_other_words_with_the_same_person_and_movement() -> None:
    pytest.importorskip("espeakng_loader")
    one, other = (sample(3, "high", 0.4, size=SIZE, words_seed=seed) for seed in (1, 2))
    for name in ("yaw", "pitch", "roll", "gaze"):
        torch.testing.assert_close(one.truth[name], other.truth[name])
    assert torch.equal(one.portrait, other.portrait)
    assert one.text != other.text
    assert not torch.equal(one.truth["units"], other.truth["units"])


@pytest.mark.parametrize("style", styles.STYLES)
def test_every_style_is_one_of_the_same_scene(style: str) -> None:
    made = sample(4, "high", 0.08, size=SIZE, style=style, speech=_said(0.08))
    assert made.style == style
    assert made.frames.float().std() > 5


def test_the_face_is_where_a_model_sees_it() -> None:
    for seed in range(3):
        made = sample(seed, "high", 0.04, size=SIZE, framing="face", speech=_said(0.04))
        x0, y0, x1, y1 = made.truth["face_box"][0].tolist()
        assert 0.42 < max(x1 - x0, y1 - y0) / SIZE < 0.72
        assert abs((x0 + x1) / 2 - SIZE / 2) < 0.15 * SIZE


def test_high_has_no_defects_and_moderate_has_all_kinds() -> None:
    clean = sample(0, "high", 0.08, size=SIZE, speech=_said(0.08))
    assert torch.equal(clean.frames, clean.clean_frames)
    assert clean.av_offset == 0
    spoilt = [sample(seed, "moderate", 0.08, size=SIZE, speech=_said(0.08)) for seed in range(6)]
    assert all(not torch.equal(made.frames, made.clean_frames) for made in spoilt)
    assert len({made.style for made in spoilt}) > 1
    assert any(made.av_offset for made in spoilt)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pool": "low"}, "no pool"),
        ({"seconds": 0.0}, "at least one frame"),
        ({"seconds": float("inf")}, "at least one frame"),
        ({"size": 8}, "16 pixels"),
        ({"style": "cubist"}, "no style"),
        ({"framing": "wide"}, "no framing"),
    ],
)
def test_what_cannot_be_rendered_is_a_sentence(changes: dict[str, object], words: str) -> None:
    given = {"pool": "high", "seconds": 0.04, "size": SIZE, "speech": _said(0.04)} | changes
    with pytest.raises(FadaError, match=words):
        sample(0, **given)


def test_the_command_writes_a_clip_with_its_truth(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    run(Options(out=tmp_path / "clip", seed=3, seconds=0.4, size=SIZE))
    facts = json.loads((tmp_path / "clip" / "truth.json").read_text(encoding="utf-8"))
    assert len(facts["frames"]["openness"]) == 10
    assert len(facts["frames"]["landmarks"][0]) == 68
    for name in ("portrait.png", "speech.wav", "truth.mp4"):
        assert (tmp_path / "clip" / name).stat().st_size > 0


def test_the_command_draws_a_sheet(tmp_path: Path) -> None:
    run(Options(sheet=tmp_path / "sheet.png", people=2, size=SIZE))
    assert (tmp_path / "sheet.png").stat().st_size > 0


def test_the_command_needs_somewhere_to_write(tmp_path: Path) -> None:
    with pytest.raises(FadaError, match="nothing to write"):
        run(Options())
    with pytest.raises(FadaError, match="even size"):
        run(Options(out=tmp_path, size=65))


def test_a_recording_with_its_text_drives_the_mouth(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("pocketsphinx")
    text = "the old house by the river was empty"
    soundfile.write(tmp_path / "say.wav", synthesize(text, "en-us").waveform, SAMPLE_RATE)
    run(Options(out=tmp_path / "clip", size=SIZE, recording=tmp_path / "say.wav", text=text))
    facts = json.loads((tmp_path / "clip" / "truth.json").read_text(encoding="utf-8"))
    assert facts["text"] == text
    assert len(facts["phonemes"]) > 15
    assert max(facts["frames"]["openness"]) > 0.2
    with pytest.raises(FadaError, match="nothing to align"):
        run(Options(out=tmp_path / "clip", size=SIZE, recording=tmp_path / "say.wav"))
