"""Voices, phoneme times and texts, and the effects of a recording on speech."""

import numpy as np
import pytest

from fada_core.avatars import espeak, flite, hibari, sound, texts
from fada_core.avatars.alignment import align
from fada_core.avatars.phones import SOUNDS, VOWELS
from fada_core.avatars.speech import SAMPLE_RATE, Speech, Voice, fitted, sample_voice, synthesize, talk
from fada_core.errors import FadaError

TEXT = "Papa and Mama bought five maps."
ENGINES = {"espeak": "en-us+f3", "flite": "slt", "hibari": "heart"}


def _voice(engine: str, **settings: float) -> Voice:
    if engine == "espeak":
        pytest.importorskip("espeakng_loader")
    elif not {"flite": flite, "hibari": hibari}[engine].available():
        pytest.skip(f"{engine} is not installed")
    return Voice(engine, ENGINES[engine], **settings)


def _level(speech: Speech, start: float, end: float) -> float:
    part = speech.waveform[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)]
    return float(np.sqrt(np.mean(part**2)))


@pytest.mark.parametrize("engine", ENGINES)
def test_phonemes_lie_in_order_where_their_sound_is(engine: str) -> None:
    speech = synthesize(TEXT, _voice(engine))
    times = [(p.start, p.end) for p in speech.phonemes]
    assert all(start <= end for start, end in times)
    assert all(before[1] <= after[0] + 1e-6 for before, after in zip(times, times[1:], strict=False))
    assert times[-1][1] <= len(speech.waveform) / SAMPLE_RATE + 1e-6
    letters = "".join(p.symbol for p in speech.phonemes)
    assert letters.count("p") >= 3
    assert letters.count("m") == 3
    vowels = [_level(speech, p.start, p.end) for p in speech.phonemes if set(p.symbol) & VOWELS]
    stops = [_level(speech, p.start + 0.01, p.start + 0.035) for p in speech.phonemes if p.symbol == "p"]
    assert min(vowels) > 0.01
    assert np.mean(stops) < 0.3 * np.mean(vowels)  # a stop starts with its silent closure


@pytest.mark.parametrize("engine", ENGINES)
def test_same_text_same_sound(engine: str) -> None:
    voice = _voice(engine)
    first = synthesize(TEXT, voice, seed=3)
    synthesize("Something else.", voice)
    again = synthesize(TEXT, voice, seed=3)
    assert np.array_equal(first.waveform, again.waveform)
    assert first.phonemes == again.phonemes


@pytest.mark.parametrize("engine", ENGINES)
def test_rate_and_spectrum_keep_the_phonemes_in_step(engine: str) -> None:
    usual = synthesize(TEXT, _voice(engine))
    quick = synthesize(TEXT, _voice(engine, rate=1.3))
    small = synthesize(TEXT, _voice(engine, spectrum=1.1))
    length = len(usual.waveform)
    assert 0.65 * length < len(quick.waveform) < 0.92 * length
    assert 0.9 * length < len(small.waveform) < 1.1 * length
    end = max(p.end for p in small.phonemes if p.symbol)
    assert _level(small, 0, end) > 5 * _level(small, end, len(small.waveform) / SAMPLE_RATE - 0.01)


def test_times_agree_with_an_aligner() -> None:
    pytest.importorskip("pocketsphinx")
    for engine in ENGINES:
        try:
            speech = synthesize(TEXT, _voice(engine))
        except pytest.skip.Exception:
            continue
        found = align(speech.waveform, TEXT)
        for letter in "pmf":
            mine, other = ([p.start for p in s.phonemes if p.symbol == letter] for s in (speech, found))
            assert len(mine) == len(other)
            apart = np.abs(np.subtract(mine, other))
            assert apart[1 if letter == "p" else 0 :].max() < 0.06, (
                engine,
                letter,
            )  # nobody hears where p begins


def test_alignment_names_what_it_does_not_know() -> None:
    pytest.importorskip("pocketsphinx")
    silence = np.zeros(16000, np.float32)
    with pytest.raises(FadaError, match="without English words"):
        align(silence, "!")
    with pytest.raises(FadaError, match="up to 9999"):
        align(silence, "It is 123456.")
    with pytest.raises(FadaError, match="does not find these words"):
        align(silence[:1600], "much more than fits into a tenth of a second")


def test_alignment_takes_words_that_no_dictionary_has() -> None:
    pytest.importorskip("pocketsphinx")
    text = "Papa met Bomballino 7 times."
    speech = synthesize(text, _voice("espeak"))
    found = align(speech.waveform, text)
    mine, other = ([p.start for p in s.phonemes if p.symbol == "b"] for s in (speech, found))
    assert len(mine) == len(other) == 2
    assert np.abs(np.subtract(mine, other)).max() < 0.06


def test_every_language_speaks_in_known_sounds() -> None:
    pytest.importorskip("espeakng_loader")
    rng = np.random.default_rng(0)
    for language, voice in texts.LANGUAGES.items():
        speech = synthesize(texts.sentence(rng, language), voice)
        spoken = [p.symbol for p in speech.phonemes if p.symbol]
        assert len(spoken) > 8, language
        assert np.mean([bool(set(symbol) & set(SOUNDS)) for symbol in spoken]) > 0.95, language


def test_voices_fit_sex_and_age() -> None:
    rng = np.random.default_rng(1)
    women = [sample_voice(rng, 0.4, 0.0, ("espeak",)) for _ in range(20)]
    men = [sample_voice(rng, 0.4, 1.0, ("espeak",)) for _ in range(20)]
    children = [sample_voice(rng, 0.0, 1.0, ("espeak",)) for _ in range(20)]
    assert all(v.name.split("+")[1] in espeak.FEMALE for v in women + children)
    assert all(v.name.split("+")[1] in espeak.MALE for v in men)
    assert np.mean([v.spectrum for v in children]) > np.mean([v.spectrum for v in women]) + 0.05
    assert len({v.language for v in women + men}) > 4


def test_a_talk_fills_its_time() -> None:
    pytest.importorskip("espeakng_loader")
    speech = talk(2.4, Voice("espeak", "en-us+m3"), np.random.default_rng(2))
    assert speech.waveform.shape == (38400,)
    assert np.abs(speech.waveform).max() == pytest.approx(0.9, abs=1e-3)
    assert speech.phonemes[-1].end <= 2.4
    assert fitted(speech, 16000).phonemes[-1].end <= 1.0


def test_mistakes_are_named() -> None:
    pytest.importorskip("espeakng_loader")
    with pytest.raises(FadaError, match="no voice 'klingon-x'"):
        synthesize("Hello", "klingon-x")
    with pytest.raises(FadaError, match="no words in 'xx'"):
        texts.sentence(np.random.default_rng(0), "xx")
    if flite.available():
        with pytest.raises(FadaError, match="voice rms keeps its pitch"):
            synthesize("Hello", Voice("flite", "rms", pitch=1.1))
        with pytest.raises(FadaError, match="no voice 'hal'"):
            synthesize("Hello", Voice("flite", "hal"))
    with pytest.raises(FadaError, match="no engine to draw"):
        sample_voice(np.random.default_rng(0), 0.5, 0.5, ())


def _clicks() -> np.ndarray:
    out = np.zeros(38400, np.float32)
    for at in (4000, 17000, 30000):
        out[at : at + 800] = np.hanning(800) * np.sin(np.arange(800) * 0.6)
    return out


@pytest.mark.parametrize("pool", ["high", "moderate"])
def test_recordings_stay_in_step(pool: str) -> None:
    dry = _clicks()
    kinds = set()
    for seed in range(25):
        wet, done = sound.record(dry, pool, np.random.default_rng(seed), [dry[::-1].copy()])
        kinds |= {d.split()[0] for d in done}
        assert wet.shape == dry.shape
        assert wet.dtype == np.float32
        assert 0.05 < np.abs(wet).max() <= 1
        if pool == "high":
            level = np.abs(wet).reshape(-1, 160).mean(1)
            assert abs(int(level.argmax()) % 240 - 27) <= 190
            assert level[25:30].max() > 3 * level[15:24].max()
    assert ("telephone" in kinds) == (pool == "moderate")
    assert ("babble" in kinds) == (pool == "moderate")
    assert {"room", "microphone", "mp3"} <= kinds


def test_codecs_and_rooms_delay_nothing() -> None:
    dry = _clicks()
    for wet in (
        sound.compressed(dry, 48_000),
        sound.telephone(dry),
        np.convolve(dry, sound.room(np.random.default_rng(0), 0.3, 6.0))[: len(dry)],
    ):
        shift = np.correlate(wet[3000:6000], dry[3500:5500], "valid").argmax() - 500
        assert abs(int(shift)) < 48  # 3 ms


def test_noise_has_its_ratio() -> None:
    tone = np.sin(np.arange(32000) * 0.2).astype(np.float32)
    mixed = sound.mix(tone, sound.noise("pink noise", 32000, np.random.default_rng(0)), 20)
    assert 10 * np.log10(np.mean(tone**2) / np.mean((mixed - tone) ** 2)) == pytest.approx(20, abs=1.5)


def test_late_sound_is_late() -> None:
    tone = np.arange(1, 101, dtype=np.float32)
    assert np.array_equal(sound.delay(tone, 10)[10:], tone[:-10])
    assert np.array_equal(sound.delay(tone, -10)[:-10], tone[10:])
    assert not sound.delay(tone, 10)[:10].any()


def test_speechless_sound_is_of_all_kinds() -> None:
    rng = np.random.default_rng(0)
    made = [sound.speechless(0.5, rng) for _ in range(60)]
    assert {kind for _, kind in made} == set(sound.SPEECHLESS)
    for waveform, kind in made:
        assert waveform.shape == (8000,)
        assert (np.abs(waveform).max() > 0.01) == (kind != "silence")


def test_numbers_are_spoken_as_words() -> None:
    spoken = {7: "seven", 42: "forty two", 305: "three hundred and five", 1500: "one thousand five hundred"}
    spoken |= {1005: "one thousand and five", 2026: "two thousand and twenty six"}
    assert {value: texts.number_words(value) for value in spoken} == spoken
