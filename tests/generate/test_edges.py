"""Input and output of the command: files of the user are kept, and the sound is that of the recording."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from fada_core.generate import video
from fada_core.media.audio import load_audio
from fada_core.media.outputs import UNFINISHED
from fada_core.media.video import probe, read_video
from tests.support.generate import Run, decoded_frames, refused, write_sound


def test_no_sink_overwrites_an_input(run: Run, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    write_sound(project / "audio.wav", 0.2)
    before = (project / "audio.wav").read_bytes()
    refused(run(audio=project / "audio.wav", out=project), "audio.wav", "overwritten")
    refused(run(out=project), "project", "is not empty")
    assert (project / "audio.wav").read_bytes() == before
    for option in ("model", "image"):
        target = tmp_path / f"{option}.mp4"
        target.write_bytes(b"precious")
        refused(run(**{option: target, "out": target}), "overwritten")
        assert target.read_bytes() == b"precious"


@pytest.mark.parametrize("out", ["", "."])
def test_a_video_needs_a_name(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    monkeypatch.chdir(tmp_path)
    refused(run(out=out), "no name")


def test_a_sheet_does_not_replace_its_video(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "load_image", lambda path: pytest.fail("the work began"))
    refused(run(out=tmp_path / "y.gif", sheet=tmp_path / "y.gif"), "same place")
    refused(run(sheet=tmp_path / "x.psd"), ".psd", ".png")
    refused(run(sheet=tmp_path / ("x" * 300 + ".png")), "too long")
    refused(run(out=tmp_path / ("x" * 300 + ".mp4")), "too long")


def test_the_sound_is_the_recordings_own(run: Run, tmp_path: Path) -> None:
    t = np.arange(48000) / 48000
    both = np.stack([0.3 * np.sin(2 * np.pi * 220 * t), 0.2 * np.sin(2 * np.pi * 6000 * t)], 1)
    soundfile.write(tmp_path / "stereo.wav", both, 48000)
    assert run(audio=tmp_path / "stereo.wav", duration=0.4, start=0.2, out=tmp_path / "frames")[0] == 0
    made, rate = soundfile.read(tmp_path / "frames" / "audio.wav")
    assert rate == 48000 and np.abs(made - both[9600 : 9600 + len(made)]).max() < 1e-3
    assert len(made) == 19200 and not (tmp_path / "frames" / UNFINISHED).exists()
    run(audio=tmp_path / "stereo.wav", duration=0.4)
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.audio[0]
        assert (stream.rate, stream.channels) == (48000, 2)


def test_a_recording_on_the_standard_input_is_decoded(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sound(tmp_path / "speech.wav", 0.5, 44100)
    content = (tmp_path / "speech.wav").read_bytes()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    code, out, _ = run(audio="-", json=True)
    assert code == 0 and json.loads(out)["frames"] == 13
    assert load_audio(tmp_path / "out.mp4")[1000:7000].std() == pytest.approx(0.3 / 2**0.5, rel=0.1)


def test_a_closed_standard_input_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    refused(run(audio="-"), "standard input is closed")


def test_impossible_values_are_refused(run: Run) -> None:
    refused(run(duration="inf"), "duration is inf")
    refused(run(start="nan"), "start is nan")


def test_a_device_is_named_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fada_core.system.default_device", lambda: torch.device("cpu"))
    code, _, err = run(device="toaster")
    assert code == 2 and "use 'cpu'." in err


def test_a_large_picture_makes_a_video_that_plays(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.new("RGB", (3024, 4032), (90, 80, 70)).save(tmp_path / "photo.jpg")
    with caplog.at_level("INFO"):
        code, out, _ = run(image=tmp_path / "photo.jpg", square=False, duration=0.04, json=True)
    report = json.loads(out)
    assert code == 0 and (report["width"], report["height"]) == (1284, 1712)
    assert "which play everywhere" in caplog.text
    assert probe(tmp_path / "out.mp4").width == 1284


@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_a_killed_run_leaves_its_first_clip(folder: Path, tmp_path: Path, name: str) -> None:
    write_sound(tmp_path / "long.wav", 120)
    arguments = ["--image", folder / "portrait.png", "--audio", tmp_path / "long.wav", "--out", tmp_path / name]
    command = [sys.executable, "-m", "fada_core.generate", *map(str, arguments), "--device=cpu"]
    process = subprocess.Popen(  # noqa: S603 - our own
        [*command, f"--model={folder / 'model.safetensors'}"], stderr=subprocess.DEVNULL
    )
    while not (tmp_path / name).is_file() or (tmp_path / name).stat().st_size < 3000:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(list(read_video(tmp_path / name))) >= 1
    assert decoded_frames(tmp_path / name) < 120 * 25
