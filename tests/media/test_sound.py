"""Sound from outside: speech in any channel, at any level, in damaged files; no other file is opened."""

from __future__ import annotations

import io
import logging
import math
import os
import threading
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from fada_core.errors import FadaError
from fada_core.media.audio import checked_speech, from_waveform, load_audio, load_recording
from fada_core.media.listen import begins_container, listen
from fada_core.media.soundtrack import playable, soundtrack
from fada_core.media.video import probe, read_video

RATE = 16000
CODECS = {
    ".mp3": "libmp3lame", ".flac": "flac", ".ogg": "libopus", ".aac": "aac", ".aiff": "pcm_s16be", ".au": "pcm_s16be",
}  # fmt: skip


def tone(seconds: float = 0.5, rate: int = RATE, level: float = 0.3, frequency: float = 220.0) -> np.ndarray:
    return (level * np.sin(2 * math.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write(path: Path, planes: np.ndarray, layout: str, rate: int = RATE, codec: str = "pcm_s16le") -> Path:
    """Write (channels, samples) float32 in the format of the suffix."""
    with av.open(f"file:{path}", "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        packed = np.ascontiguousarray(planes.T, np.float32).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
        frame.sample_rate = rate
        for converted in av.AudioResampler(format=stream.format.name, layout=layout).resample(frame):
            container.mux(stream.encode(converted))
        container.mux(stream.encode(None))
    return path


def level(samples: torch.Tensor) -> float:
    """RMS in dB relative to full scale, without the edges."""
    return 20 * math.log10(float(samples[800:-800].square().mean().sqrt()))


SPEECH = level(torch.from_numpy(tone()))


# Channels (ITU-R BS.775)


@pytest.mark.parametrize(
    ("layout", "channel", "loss"),
    [
        ("mono", 0, 0.0),
        ("stereo", 0, 0.0),
        ("stereo", 1, 0.0),
        ("5.1", 2, 0.0),  # the centre, where films have their speech
        ("5.1", 0, 3.0),
        ("5.1", 4, 0.0),
        ("7.1", 2, 0.0),
    ],
)
def test_speech_is_found_in_any_channel(tmp_path: Path, layout: str, channel: int, loss: float) -> None:
    planes = np.zeros((av.AudioLayout(layout).nb_channels, RATE // 2), np.float32)
    planes[channel] = tone()
    assert level(load_audio(write(tmp_path / "a.wav", planes, layout))) == pytest.approx(SPEECH - loss, abs=0.1)
    assert level(from_waveform(torch.from_numpy(planes), RATE)) == pytest.approx(SPEECH - loss, abs=0.1)


def test_opposite_phase_is_no_silence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    planes = np.stack([tone(), -tone()])
    with caplog.at_level(logging.INFO, "fada.media"):
        assert level(load_audio(write(tmp_path / "a.wav", planes, "stereo"))) == pytest.approx(SPEECH, abs=0.1)
    assert "channel 1" in caplog.text
    assert level(from_waveform(torch.from_numpy(planes), RATE)) == pytest.approx(SPEECH, abs=0.1)


def test_bass_alone_is_not_heard(tmp_path: Path) -> None:
    planes = np.zeros((6, RATE), np.float32)
    planes[2], planes[3] = tone(1), tone(1, frequency=40)
    assert torch.allclose(load_audio(write(tmp_path / "a.wav", planes, "5.1")), torch.from_numpy(planes[2]), atol=1e-3)


# Level


def test_integers_stored_as_floats_are_recognised(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "a.wav", tone()[None] * 32768, "mono", codec="pcm_f32le")
    recording = load_recording(path)
    assert level(recording.samples) == pytest.approx(SPEECH, abs=0.01)
    assert "32768 is used" in caplog.text
    played = np.concatenate(list(soundtrack(recording).pieces))
    assert np.abs(played).max() == pytest.approx(0.3, abs=0.01)
    assert level(from_waveform(torch.from_numpy(tone() * 32768), RATE)) == pytest.approx(SPEECH, abs=0.01)


def test_integers_are_scaled_by_their_type() -> None:
    for scaled in (
        torch.from_numpy(tone() * 32768).to(torch.int16),
        torch.from_numpy(tone().astype(np.float64) * 2**31).to(torch.int32),
        torch.from_numpy(tone() * 128 + 128).to(torch.uint8),
    ):
        assert level(from_waveform(scaled, RATE)) == pytest.approx(SPEECH, abs=0.2)


def test_sound_beyond_full_scale_is_turned_down_where_it_is_played(tmp_path: Path) -> None:
    recording = load_recording(write(tmp_path / "a.wav", tone(level=2.0)[None], "mono", codec="pcm_f32le"))
    assert recording.samples.max() == pytest.approx(2, abs=0.01)  # the networks do not mind
    assert np.abs(np.concatenate(list(soundtrack(recording).pieces))).max() == pytest.approx(1, abs=1e-3)
    assert playable(torch.from_numpy(tone(level=2.0)), RATE).abs().max() == pytest.approx(1, abs=1e-3)


# The recording's own sound


def test_the_soundtrack_is_the_recordings_own(tmp_path: Path) -> None:
    planes = np.stack([tone(1, 48000), tone(1, 48000, frequency=330)])
    path = write(tmp_path / "a.wav", planes, "stereo", 48000)
    track = soundtrack(load_recording(path, start=0.25))
    assert (track.rate, track.channels) == (48000, 2)
    assert np.abs(np.concatenate(list(track.pieces)).T - planes[:, 12000:]).max() < 1e-4
    assert playable(torch.from_numpy(planes), 48000).shape == planes.shape


def test_many_channels_play_on_two_loudspeakers(tmp_path: Path) -> None:
    planes = np.zeros((6, RATE), np.float32)
    planes[0], planes[2], planes[5] = tone(1), tone(1, frequency=330), tone(1, frequency=550)
    track = soundtrack(load_recording(write(tmp_path / "a.wav", planes, "5.1")))
    left, right = np.concatenate(list(track.pieces)).T
    assert np.abs(left - (planes[0] + planes[2] / 2**0.5)).max() < 1e-3
    assert np.abs(right - (planes[2] + planes[5]) / 2**0.5).max() < 1e-3


# Damage


def encoded(path: Path, seconds: float, rate: int = RATE, codec: str = "libmp3lame", layout: str = "mono") -> bytes:
    planes = np.repeat(tone(seconds, rate)[None], av.AudioLayout(layout).nb_channels, 0)
    return write(path, planes, layout, rate, codec).read_bytes()


@pytest.mark.parametrize("suffix", [".mp3", ".aac", ".ogg"])
def test_junk_in_the_middle_costs_no_more_than_itself(tmp_path: Path, suffix: str) -> None:
    codec = {".mp3": "libmp3lame", ".aac": "aac", ".ogg": "libopus"}[suffix]
    content = bytearray(encoded(tmp_path / f"whole{suffix}", 4, codec=codec))
    middle = len(content) // 2
    content[middle : middle + 400] = np.random.default_rng(0).bytes(400)
    (tmp_path / f"junk{suffix}").write_bytes(content)
    assert 2.9 < len(load_audio(tmp_path / f"junk{suffix}")) / RATE <= 4.1


def test_damage_is_told_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = bytearray(encoded(tmp_path / "whole.mp3", 4))
    for at in range(4000, 8000, 1000):
        content[at : at + 300] = bytes(300)
    (tmp_path / "junk.mp3").write_bytes(content)
    recording = load_recording(tmp_path / "junk.mp3")
    list(soundtrack(recording).pieces)
    assert len([record for record in caplog.records if "is damaged" in record.message]) <= 1


def test_recordings_joined_end_to_end_are_heard_whole(tmp_path: Path) -> None:
    first = encoded(tmp_path / "a.mp3", 1.5, 44100, layout="stereo")
    second = encoded(tmp_path / "b.mp3", 1.5, 22050)
    (tmp_path / "both.mp3").write_bytes(first + second)
    recording = load_recording(tmp_path / "both.mp3")
    assert len(recording.samples) / RATE == pytest.approx(3, abs=0.15)
    track = soundtrack(recording)
    assert sum(map(len, track.pieces)) / track.rate == pytest.approx(3, abs=0.15)
    assert (track.rate, track.channels) == (44100, 2)


def test_a_file_that_is_cut_off_plays_as_far_as_it_goes(tmp_path: Path) -> None:
    content = encoded(tmp_path / "a.flac", 3, codec="flac")
    (tmp_path / "cut.flac").write_bytes(content[: len(content) // 2])
    assert 0.8 < len(load_audio(tmp_path / "cut.flac")) / RATE < 2


def test_nothing_that_can_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "noise.mp3").write_bytes(np.random.default_rng(0).bytes(20000))
    with pytest.raises(FadaError, match="'noise.mp3'"):
        load_audio(tmp_path / "noise.mp3")


# What may be opened


def test_a_playlist_opens_nothing(tmp_path: Path) -> None:
    write(tmp_path / "secret.wav", tone()[None], "mono")
    for suffix in (".m3u8", ".wav", ".mp4"):
        path = tmp_path / f"list{suffix}"
        path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.wav\n#EXT-X-ENDLIST\n")
        with pytest.raises(FadaError, match="cannot be read"):
            load_audio(path)
        with pytest.raises(FadaError, match="cannot be read"):
            next(read_video(path))
    (tmp_path / "list.ffconcat").write_text("ffconcat version 1.0\nfile secret.wav\n")
    with pytest.raises(FadaError, match="cannot be read"):
        load_audio(tmp_path / "list.ffconcat")


def test_a_picture_is_no_recording(tmp_path: Path) -> None:
    av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24").to_image().save(tmp_path / "a.png")
    with pytest.raises(FadaError, match="not a supported format"):
        probe(tmp_path / "a.png")


def test_a_colon_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "Interview: part1.wav", tone()[None], "mono")
    monkeypatch.chdir(tmp_path)
    assert len(load_audio("Interview: part1.wav")) == RATE // 2


def test_names_that_no_disk_takes(tmp_path: Path) -> None:
    for name in ("a" * 300 + ".wav", "a\0.wav"):
        with pytest.raises(FadaError, match="There is no file"):
            load_audio(tmp_path / name)


@pytest.mark.parametrize("value", [math.inf, math.nan, -1.0])
def test_times_that_cannot_be(tmp_path: Path, value: float) -> None:
    path = write(tmp_path / "a.wav", tone()[None], "mono")
    with pytest.raises(FadaError, match="start is"):
        load_audio(path, start=value)
    with pytest.raises(FadaError, match="duration is"):
        load_audio(path, duration=value)


def test_a_rate_that_cannot_be_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    content = bytearray(write(tmp_path / "a.wav", tone(6)[None], "mono").read_bytes())
    at = content.index(b"fmt ") + 12
    content[at : at + 4] = (1).to_bytes(4, "little")
    (tmp_path / "days.wav").write_bytes(content)
    with pytest.raises(FadaError, match="'days.wav' claims 1 samples per second"):
        load_audio(tmp_path / "days.wav")
    with pytest.raises(FadaError, match="1000 to 1000000"):
        from_waveform(torch.zeros(100), 1)


def test_more_than_a_day_of_speech_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fada_core.media.audio.MAX_HOURS", 0.001)
    path = write(tmp_path / "a.wav", tone(5)[None], "mono")
    with pytest.raises(FadaError, match="longer than 0.001 hours"):
        load_audio(path)
    assert len(load_audio(path, 1, 1)) == RATE


def test_samples_before_channels_are_told(tmp_path: Path) -> None:
    with pytest.raises(FadaError, match="channels before samples"):
        from_waveform(torch.zeros(48000, 2), 48000)


def test_speech_in_memory_of_other_ranges_is_told() -> None:
    good = torch.from_numpy(tone())
    assert checked_speech(good) is good
    for wrong, said in (
        ((good * 32767).to(torch.int16), "int16"),
        (good * 32767, "samples up to"),
        (torch.zeros(48000, 2), "shape"),
        (good * float("nan"), "not finite"),
        (torch.zeros(0), "empty"),
    ):
        with pytest.raises(FadaError, match=said):
            checked_speech(wrong)


# On the standard input


class Pipe(io.RawIOBase):
    """A stream without seeking that gives some hundred bytes at a time."""

    def __init__(self, content: bytes) -> None:
        self._left = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        content = self._left.read(min(len(buffer), 777))
        buffer[: len(content)] = content
        return len(content)


@pytest.mark.parametrize("open_", [io.BytesIO, lambda content: io.BufferedReader(Pipe(content))], ids=["file", "pipe"])
@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".flac", ".ogg", ".aac", ".mka", ".aiff", ".au"])
def test_recordings_on_a_pipe_are_recognised(tmp_path: Path, suffix: str, open_: Callable[[bytes], io.BytesIO]) -> None:
    path = write(tmp_path / f"a{suffix}", tone(1, 48000)[None], "mono", 48000, CODECS.get(suffix, "pcm_s16le"))
    heard = torch.cat(list(listen(open_(path.read_bytes()), 5)))
    assert len(heard) / RATE == pytest.approx(1, abs=0.08)
    assert level(heard[1600:-1600]) == pytest.approx(SPEECH, abs=0.5)


def test_raw_samples_stay_raw() -> None:
    samples = (tone() * 32768).astype("<i2")
    for start in (b"", b"\xff\xfb\x90\x00" * 8, b"G\x01" * 200):  # as an MP3's or a transport stream's first bytes
        content = start + samples.tobytes()
        heard = torch.cat(list(listen(io.BytesIO(content), 5)))
        assert torch.equal(heard, torch.from_numpy(np.frombuffer(content, "<i2").astype(np.float32) / 2**15))


def test_it_takes_few_bytes_to_tell() -> None:
    assert begins_container(b"RIFF") is True
    assert begins_container(bytes(16)) is False
    assert begins_container(b"\xff\xfb\x90\x00" + bytes(12)) is None


def test_an_unreadable_stream_is_told() -> None:
    with pytest.raises(FadaError, match="The standard input"):
        list(listen(io.BytesIO(b"RIFF" + bytes(1000)), 5))
    reading, writing = os.pipe()
    source = os.fdopen(reading, "rb")
    os.close(writing)
    source.close()
    with pytest.raises(FadaError, match="The standard input cannot be read"):
        list(listen(source, 5))
    assert threading.active_count() < 50
