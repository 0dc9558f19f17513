"""The command `python -m fada_core.generate`: files, report, exit status, and the message of each mistake."""

import contextlib
import io
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from fada_core.generate import video
from fada_core.generate.__main__ import main
from fada_core.media.audio import load_audio
from fada_core.media.listen import listen
from fada_core.media.video import probe
from tests.support.generate import RATE, STEPS, Run, decoded_frames, refused, write_sound

# --- what comes out ---------------------------------------------------------------------------------------------------


def test_json_is_one_line_that_describes_the_file(run: Run, tmp_path: Path) -> None:
    code, out, err = run(json=True, seed=3, sheet=tmp_path / "sheet.png")
    assert code == 0
    assert out.count("\n") == 1
    report = json.loads(out)
    assert list(report) == [
        "out", "frames", "fps", "width", "height", "nfe_per_clip", "clips", "seconds", "realtime_factor",
        "peak_memory_mb", "seed",
    ]  # fmt: skip
    assert report["out"] == str(tmp_path / "out.mp4")
    assert (report["frames"], report["fps"]) == (13, 25)  # 0.5 s and the rest of the last frame
    assert (report["width"], report["height"]) == (32, 32)
    assert (report["clips"], report["nfe_per_clip"], report["seed"]) == (4, 3 * STEPS, 3)
    assert report["realtime_factor"] == pytest.approx(report["seconds"] * 25 / 13, rel=0.01)
    assert report["peak_memory_mb"] > 10
    assert decoded_frames(tmp_path / "out.mp4") == 13
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.audio
    assert Image.open(tmp_path / "sheet.png").size == (6 * 32, 3 * 32)  # the portrait and 13 frames
    assert "13/13 frames" in err


def test_without_json_one_sentence(run: Run) -> None:
    code, out, _ = run()
    assert code == 0
    assert out.count("\n") == 1
    for part in ("13 frames", "6 NFE per clip", "4 clips", " s,", "real-time factor", "peak memory"):
        assert part in out


def test_options_reach_the_sampler(run: Run) -> None:
    part = {"start": 0.1, "duration": 0.2}
    _, out, _ = run(json=True, steps=3, ref_cfg=1, audio_cfg=1, solver="unipc", dtype="bfloat16", **part)
    report = json.loads(out)
    assert (report["frames"], report["nfe_per_clip"]) == (5, 3)


def test_same_seed_same_pictures(run: Run, tmp_path: Path) -> None:
    pictures = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(seed=seed, sheet=tmp_path / f"{name}.png")
        pictures.append(np.asarray(Image.open(tmp_path / f"{name}.png")))
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


def test_a_folder_takes_png_frames(run: Run, tmp_path: Path) -> None:
    run(out=tmp_path / "frames")
    assert len(list((tmp_path / "frames").glob("*.png"))) == 13


def test_the_face_moves_in_the_whole_portrait(run: Run, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (900, 700, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "portrait.png")
    given = {"image": tmp_path / "portrait.png", "face_box": "420 100 600 320", "square": False}
    code, out, _ = run(**given, json=True, out=tmp_path / "frames", duration=0.2, sheet=tmp_path / "sheet.png")
    assert code == 0
    assert (json.loads(out)["width"], json.loads(out)["height"]) == (700, 900)
    frames = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "frames").glob("*.png"))]
    assert len(frames) == 5
    changed = np.argwhere(np.any(np.stack(frames) != pixels, axis=(0, 3)))
    # 1.8 times the box's height, about its middle, moved to the left and downwards to stay in the picture
    assert changed.min(0) == pytest.approx([12, 304], abs=4)
    assert changed.max(0) == pytest.approx([407, 699], abs=4)
    assert (changed.min(0) >= [12, 304]).all()
    assert (changed.max(0) <= [407, 699]).all()
    assert Image.open(tmp_path / "sheet.png").size == (6 * 32, 32)  # squares, not whole portraits
    run(**given, duration=0.2)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (700, 900)


# --- ending early -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_run_leaves_a_playable_file(run: Run, tmp_path: Path, number: int, code: int) -> None:
    write_sound(tmp_path / "long.wav", 60)
    out = tmp_path / "out.mp4"

    def stop_when_written() -> None:
        while not out.exists() or out.stat().st_size < 4096:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    threading.Thread(target=stop_when_written, daemon=True).start()
    handler = signal.getsignal(number)
    result, stdout, err = run(audio=tmp_path / "long.wav")
    assert (result, stdout) == (code, "")
    assert "Traceback" not in err
    assert 0 < decoded_frames(out) < 60 * 25
    assert signal.getsignal(number) is handler


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_no_picture_file(run: Run) -> None:
    refused(run(image="nowhere.png"), "nowhere.png")


def test_not_a_picture(run: Run, folder: Path) -> None:
    refused(run(image=folder / "speech.wav"), "speech.wav", "picture")


def test_a_box_that_is_none(run: Run) -> None:
    refused(run(face_box="30 10 20 40"), "30 10 20 40", "not a box")
    refused(run(face_box="100 100 130 130"), "outside", "40x50")
    refused(run(face_box="0 0 30 30", face_model="face.task"), "--face-box", "--face-model")


def test_no_detector_and_no_identity(run: Run, folder: Path, tmp_path: Path) -> None:
    refused(run(face_model="nowhere.task"), "nowhere.task")
    refused(run(face_model=folder / "speech.wav"), "speech.wav", "detector")
    refused(run(identity_model="nowhere.onnx"), "nowhere.onnx")


def test_no_audio_file(run: Run) -> None:
    refused(run(audio="nowhere.wav"), "nowhere.wav")


def test_no_audio_stream(run: Run, folder: Path) -> None:
    refused(run(audio=folder / "portrait.png"), "portrait.png", "sound")


def test_empty_audio(run: Run, tmp_path: Path) -> None:
    write_sound(tmp_path / "empty.wav", 0)
    refused(run(audio=tmp_path / "empty.wav"), "empty.wav", "is empty")


def test_audio_not_finite(run: Run, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "nan.wav", np.full(RATE, np.nan, np.float32), RATE, subtype="FLOAT")
    refused(run(audio=tmp_path / "nan.wav"), "NaN")


def test_start_after_the_end(run: Run) -> None:
    refused(run(start=9), "9")


@pytest.mark.parametrize("mode", ["balanced", "fast"])
def test_teacher_in_a_students_mode(run: Run, mode: str) -> None:
    refused(run(mode=mode), mode, "student", "teacher")


@pytest.mark.parametrize("value", [-1, 50, math.nan, math.inf])
@pytest.mark.parametrize("scale", ["ref_cfg", "audio_cfg"])
def test_scale_out_of_range(run: Run, scale: str, value: float) -> None:
    refused(run(**{scale: value}), scale, "0 to 20")


@pytest.mark.parametrize("steps", [0, 1001])
def test_impossible_number_of_steps(run: Run, steps: int) -> None:
    refused(run(steps=steps), str(steps))


def test_unknown_suffix(run: Run, tmp_path: Path) -> None:
    refused(run(out=tmp_path / "out.xyz"), ".xyz", ".mp4")


def test_sheet_of_unknown_suffix(run: Run, tmp_path: Path) -> None:
    refused(run(sheet=tmp_path / "sheet.xyz"), ".xyz", ".png")


@pytest.mark.parametrize("option", ["out", "sheet"])
def test_result_in_place_of_a_source(run: Run, tmp_path: Path, option: str) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "face.png")
    refused(run(image=tmp_path / "face.png", **{option: tmp_path / "face.png"}), "face.png", "overwritten")
    assert Image.open(tmp_path / "face.png").size == (40, 40)


def test_no_such_device(run: Run) -> None:
    refused(run(device="toaster"), "toaster", "cpu")


def test_no_such_model(run: Run) -> None:
    refused(run(model="nothing"), "nothing", ".safetensors")


def test_pickle_with_another_name(run: Run, tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "pickle.safetensors")
    refused(run(model=tmp_path / "pickle.safetensors"), "pickle.safetensors", "convert")


@pytest.mark.parametrize("size", [4, 1000, -1000])
def test_truncated_checkpoint(run: Run, folder: Path, tmp_path: Path, size: int) -> None:
    (tmp_path / "cut.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:size])
    refused(run(model=tmp_path / "cut.safetensors"), "cut.safetensors", "again")


def test_no_room_for_the_video(run: Run, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")  # Unix only
    write_sound(tmp_path / "long.wav", 20)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, hard))
    try:
        result = run(audio=tmp_path / "long.wav")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    refused(result, "out.mp4")
    shown = 0
    with av.open(str(tmp_path / "out.mp4")) as container, contextlib.suppress(av.error.InvalidDataError):
        for _ in container.decode(video=0):  # the last frame may be cut
            shown += 1
    assert shown > 25


# --- speech that arrives ----------------------------------------------------------------------------------------------


def raw_speech(seconds: float) -> bytes:
    t = np.arange(round(seconds * 16000)) / 16000
    return (8000 * np.sin(2 * math.pi * 180 * t)).astype("<i2").tobytes()


class Arriving(io.BytesIO):
    """Gives its content piece by piece, including odd numbers of bytes."""

    def read1(self, size: int = -1) -> bytes:
        return super().read1(3333)


def test_speech_from_standard_input(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=Arriving(raw_speech(0.5))))
    code, out, _ = run(audio="-", json=True)
    assert code == 0 and json.loads(out)["frames"] == 13
    facts = probe(tmp_path / "out.mp4")
    assert facts.frames == 13 and abs(facts.audio_duration - facts.duration) < 0.05
    assert load_audio(tmp_path / "out.mp4")[1000:7000].std() == pytest.approx(8000 / 2**15 / 2**0.5, rel=0.1)


def test_video_to_standard_output(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(raw_speech(0.3))))
    names = {"image": "portrait.png", "model": "model.safetensors"}
    options = [f"--{name}={folder / file}" for name, file in names.items()]
    assert main([*options, "--audio=-", "--out=-", "--device=cpu"]) == 0
    made, told = capsysbinary.readouterr()
    with av.open(io.BytesIO(made)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 8
    assert b"8 frames" in told


def test_standard_input_has_no_end_to_count_from(run: Run, tmp_path: Path) -> None:
    code, _, err = run(audio="-", sheet=tmp_path / "sheet.png")
    assert code == 2 and "leave out --sheet" in err


def test_listening_gives_up_waiting_but_not_the_speech() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source:
        pieces = listen(source, patience=0.05)
        assert not len(next(pieces))
        os.write(writing, raw_speech(0.01))
        assert next(piece for piece in pieces if len(piece)).shape == (160,)
        os.close(writing)
        assert not any(map(len, pieces))


@pytest.mark.parametrize("paste", [{}, {"square": False, "face_box": "5 5 30 30"}], ids=["square", "pasted"])
def test_no_other_thread_computes_on_a_cpu(run: Run, monkeypatch: pytest.MonkeyPatch, paste: dict[str, object]) -> None:
    """It would slow the networks' threads; see `BackgroundCalls`."""
    computed: list[str] = []

    class Recorded(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
            if not function.is_view:
                computed.append(str(function))
            return function(*args, **(kwargs or {}))

    class Watched(video.BackgroundCalls):
        def __call__(self, function: Callable[..., object], *arguments: object) -> None:
            def watched() -> None:
                with Recorded():
                    function(*arguments)

            super().__call__(watched)

    monkeypatch.setattr(video, "BackgroundCalls", Watched)
    assert run(**paste)[0] == 0
    assert computed == []
