"""The avatars: reproducible clips whose pictures, sound and truth agree."""

import json

import pytest
import torch

from fada_core.avatars import Speech, clip, render, sample, sample_identity, synthesize
from fada_core.errors import FadaError

SAMPLE_RATE = 16_000


def _motion(openness: torch.Tensor) -> dict[str, torch.Tensor]:
    n = len(openness)
    zeros = {name: torch.zeros(n) for name in ("rounding", "blink", "brow", "yaw", "pitch", "roll")}
    pairs = {"gaze": torch.zeros(n, 2), "shift": torch.zeros(n, 2)}
    return {"openness": openness, "width": torch.full((n,), 0.5)} | zeros | pairs


def _silence(seconds: float) -> Speech:
    return Speech(torch.zeros(int(seconds * SAMPLE_RATE)), [], "", "silence")


def test_seed_gives_the_same_clip_after_other_clips() -> None:
    pytest.importorskip("espeakng_loader")
    first = sample(5, "high", 1.0, size=32)
    sample(6, "moderate", 1.0, size=32)
    again = sample(5, "high", 1.0, size=32)
    assert torch.equal(first.frames, again.frames)
    assert torch.equal(first.waveform, again.waveform)
    assert torch.equal(first.portrait, again.portrait)
    assert not torch.equal(first.frames, sample(7, "high", 1.0, size=32).frames)


@pytest.mark.parametrize(("seconds", "fps"), [(1.0, 25.0), (0.5, 30.0), (1.3, 24.0)])
def test_truth_describes_every_frame(seconds: float, fps: float) -> None:
    made = sample(1, "high", seconds, size=32, fps=fps, speech=_silence(seconds))
    n = round(seconds * fps)
    assert made.frames.shape == (n, 3, 32, 32)
    assert made.frames.dtype == torch.uint8
    assert made.waveform.shape == (round(n / fps * SAMPLE_RATE),)
    assert made.portrait.shape == (3, 32, 32)
    assert all(len(value) == n for value in made.truth.values())
    for name in ("mouth_box", "eyes_box", "face_box"):
        box = made.truth[name]
        assert (box[:, :2] < box[:, 2:]).all()
        assert box.min() >= 0
        assert box.max() <= 32


def test_silence_keeps_the_mouth_closed() -> None:
    made = sample(2, "high", 1.0, size=32, speech=_silence(1.0))
    assert made.truth["openness"].abs().max() == 0


def test_speechless_clips_are_there_and_quiet() -> None:
    made = clip._speechless_track(1.0, torch.Generator().manual_seed(3))
    shown = sample(4, "high", 1.0, size=32, speech=made)
    assert shown.truth["openness"].max() == 0
    assert made.voice in ("silence", "white noise", "pink noise", "music")


@pytest.mark.parametrize("seed", range(4))
def test_an_open_mouth_is_seen(seed: int) -> None:
    identity = sample_identity(torch.Generator().manual_seed(seed))
    openness = torch.linspace(0, 1, 12)
    frames = render(identity, _motion(openness), 64)
    closed = frames[:1]
    changed = (frames - closed).abs().amax(1) > 0.2
    below = changed[:, 38:].float().sum((1, 2))
    assert changed[:, :20].sum() == 0  # the hair does not talk
    assert torch.corrcoef(torch.stack([openness, below]))[0, 1] > 0.95
    mouth = frames[:, :, 40:52, 26:38]
    dark = (mouth.amax(1) < -0.3).float().mean((1, 2))
    assert dark[-1] > dark[0]


def test_openness_follows_speech() -> None:
    pytest.importorskip("espeakng_loader")
    made = sample(3, "high", 2.0, size=32, speech=synthesize("Papa. Mama. Bob and Amy bought a map."))
    openness = made.truth["openness"]
    assert openness.max() > 0.6
    closures = [p for p in made.phonemes if set(p.symbol) & set("pbm") and 0.1 < p.start < 1.9]
    assert closures
    for phoneme in closures:
        frame = int(phoneme.start * 25)
        assert openness[max(0, frame - 1) : frame + 2].min() < 0.25


def test_phonemes_lie_within_the_audio_in_order() -> None:
    pytest.importorskip("espeakng_loader")
    speech = synthesize("Hello, my friend. How are you?", "en-us+f3")
    assert speech.phonemes[0].start >= 0
    assert speech.phonemes[-1].end <= len(speech.waveform) / SAMPLE_RATE
    for before, after in zip(speech.phonemes, speech.phonemes[1:], strict=False):
        assert before.start <= before.end <= after.start
    assert speech.waveform.abs().max() > 0.05


def test_identity_seed_keeps_the_face() -> None:
    one = sample(10, identity_seed=3, seconds=0.2, size=32, speech=_silence(0.2))
    two = sample(11, identity_seed=3, seconds=0.2, size=32, speech=_silence(0.2))
    assert one.identity == two.identity
    assert not torch.equal(one.truth["yaw"], two.truth["yaw"])


def test_moderate_differs_from_high() -> None:
    high = sample(8, "high", 0.4, size=32, speech=_silence(0.4))
    assert torch.equal(high.frames, high.clean_frames)
    assert high.degradations == []
    assert high.av_offset == 0
    worse = [sample(seed, "moderate", 0.4, size=32, speech=_silence(0.4)) for seed in range(6)]
    assert all(made.degradations and not torch.equal(made.frames, made.clean_frames) for made in worse)
    assert len({made.av_offset for made in worse}) > 1
    assert worse[0].identity != high.identity


def test_late_sound_is_shifted_by_its_offset() -> None:
    tone = torch.sin(torch.arange(16000) * 0.05)
    for seed in range(8):
        made = sample(seed, "moderate", 1.0, size=16, speech=Speech(tone, [], "", "tone"))
        noisy = any("audio" in name for name in made.degradations)
        if made.av_offset > 0 and not noisy:
            late = made.av_offset * 640
            assert torch.equal(made.waveform[late:], tone[:-late])
            assert made.waveform[:late].abs().max() == 0
            return
    pytest.fail("no late clip among the seeds")


def test_mistakes_are_named() -> None:
    with pytest.raises(FadaError, match="high or moderate"):
        sample(0, "best")  # type: ignore[arg-type]
    with pytest.raises(FadaError, match="at least one frame"):
        sample(0, seconds=0.001)


def test_unknown_voice_is_named() -> None:
    pytest.importorskip("espeakng_loader")
    with pytest.raises(FadaError, match="no voice 'klingon-x'"):
        synthesize("Hello", "klingon-x")


def test_command_writes_a_playable_clip(tmp_path) -> None:
    pytest.importorskip("espeakng_loader")
    av = pytest.importorskip("av")
    from fada_core.avatars.__main__ import Options, main

    main(Options(out=tmp_path / "clip", seed=1, seconds=0.6, size=32))
    facts = json.loads((tmp_path / "clip" / "truth.json").read_text(encoding="utf-8"))
    assert len(facts["frames"]["openness"]) == 15
    with av.open(str(tmp_path / "clip" / "truth.mp4")) as file:
        assert sum(1 for _ in file.decode(video=0)) == 15
        assert file.streams.audio
    assert (tmp_path / "clip" / "portrait.png").stat().st_size > 0
    assert (tmp_path / "clip" / "speech.wav").stat().st_size == 44 + 2 * 9600
