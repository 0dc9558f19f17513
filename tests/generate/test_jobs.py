"""Lists of jobs: each has a result, whatever happens to the others, and finished jobs are not repeated."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from fada_core.generate import video
from fada_core.generate.__main__ import main
from fada_core.media.outputs import UNFINISHED
from tests.support.generate import decoded_frames, write_sound

Make = Callable[..., tuple[int, list[dict[str, Any]]]]


@pytest.fixture
def shared(folder: Path) -> dict[str, str]:
    return {"image": str(folder / "portrait.png"), "audio": str(folder / "speech.wav"), "duration": 0.1}


@pytest.fixture
def make(folder: Path, tmp_path: Path) -> Make:
    """Run a list of lines (objects or text); returns its exit status and all results so far."""

    def call(*lines: object, options: tuple[str, ...] = (), encoding: str = "utf-8") -> tuple[int, list[Any]]:
        path = tmp_path / "jobs.jsonl"
        written = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
        path.write_bytes("".join(f"{line}\n" for line in written).encode(encoding))
        model = str(folder / "model.safetensors")
        status = main(["--jobs", str(path), "--model", model, "--device", "cpu", "--json", *options])
        results = (tmp_path / "jobs.results.jsonl").read_text().splitlines()
        return status, [json.loads(line) for line in results if line.strip()]

    return call


def test_jobs_are_done_once_and_failures_written_down(
    make: Make, shared: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = [shared | {"out": "a.mp4", "seed": 1}, shared | {"out": "b.gif", "audio": "gone.wav"}]
    status, (first, second) = make(*listed)
    assert status == 1
    assert [json.loads(line)["seed"] for line in capsys.readouterr().out.splitlines()] == [1]
    assert first["job"] == listed[0] and first["report"]["frames"] == decoded_frames(tmp_path / "a.mp4")
    assert (second["line"], second["job"]) == (2, listed[1]) and "gone.wav" in second["error"]
    assert not (tmp_path / "b.gif").exists()

    made = (tmp_path / "a.mp4").stat().st_mtime_ns
    assert make(listed[0], "", shared | {"out": "b.gif"})[0] == 0
    assert (tmp_path / "a.mp4").stat().st_mtime_ns == made
    assert len(capsys.readouterr().out.splitlines()) == 1 and (tmp_path / "b.gif").is_file()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "Line 1 .* is no JSON"),
        ("[1]", "not an object"),
        ('{"image": "a.png", "audio": "b.wav"}', "no 'out'"),
        ('{"image": "a", "audio": "b", "out": "c", "model": "d"}', "unknown entry 'model'"),
        ('{"image": "a", "audio": "b", "out": "c", "steps": "many"}', 'steps is "many"'),
        ('{"image": "a", "audio": "b", "out": "c", "seed": true}', "seed is true"),
        ('{"image": "a", "audio": "b", "out": "c", "duration": Infinity}', "duration is Infinity"),
        ('{"image": "a", "audio": "b", "out": "c", "face_box": ["10", 1, 2, 3]}', "face_box is"),
        ('{"image": "a", "audio": "b", "out": "c", "mode": "xyz"}', "mode is"),
        ('{"image": "a", "audio": "b", "out": ""}', "out is"),
        ('{"image": "a", "audio": "b", "out": "c.mp4", "sheet": "x.psd"}', "'.psd' is not a format"),
        ('{"image": "a.png", "audio": "a\\u0000b", "out": "c.mp4"}', "character"),
        ('{"image": "%s", "audio": "b", "out": "c.mp4"}' % ("a" * 300), "There is no file"),
    ],
)
def test_a_line_that_cannot_be_made_does_not_end_the_others(
    make: Make, shared: dict[str, str], line: str, message: str, tmp_path: Path
) -> None:
    status, results = make(line, shared | {"out": "good.mp4"})
    assert status == 1
    assert re.search(message, results[0]["error"]) and results[0]["line"] == 1
    assert results[1]["report"]["frames"] == decoded_frames(tmp_path / "good.mp4")


def test_a_picture_with_megabytes_of_text_is_a_picture(make: Make, shared: dict[str, str], tmp_path: Path) -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("workflow", "x" * 40_000_000, zip=True)
    Image.new("RGB", (40, 40)).save(tmp_path / "long.png", pnginfo=texts)
    status, results = make(shared | {"image": "long.png", "out": "a.mp4"}, shared | {"out": "b.mp4"})
    assert status == 0 and len(results) == 2


def test_an_error_of_any_other_kind_is_a_result_too(
    make: Make, shared: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = video.load_image

    def fails(path: Path) -> object:
        if path.name == "bad.png":
            raise ZeroDivisionError("somewhere inside")
        return real(path)

    monkeypatch.setattr(video, "load_image", fails)
    status, (bad, good) = make(shared | {"image": "bad.png", "out": "a.mp4"}, shared | {"out": "b.mp4"})
    assert status == 1
    assert "ZeroDivisionError: somewhere inside" in bad["error"] and "report" in good


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-16-le"])
def test_lists_as_other_programs_write_them(make: Make, shared: dict[str, str], tmp_path: Path, encoding: str) -> None:
    status, results = make(shared | {"out": "\u00fc.mp4"}, encoding=encoding)
    assert status == 0 and results[0]["job"]["out"] == "\u00fc.mp4" and (tmp_path / "\u00fc.mp4").is_file()


def test_latin_letters_are_told(make: Make, shared: dict[str, str]) -> None:
    status, (bad, good) = make(shared | {"out": "\u00fc.mp4"}, shared | {"out": "b.mp4"}, encoding="latin-1")
    assert status == 1 and "UTF-8" in bad["error"] and "report" in good


def test_an_empty_list_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "jobs.jsonl").write_text("\n\n")
    for path in (tmp_path / "jobs.jsonl", tmp_path / "none.jsonl", tmp_path):
        assert main(["--jobs", str(path)]) == 2
    assert capsys.readouterr().err.count("error: ") == 3


def test_a_torn_line_swallows_no_other(make: Make, shared: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "jobs.results.jsonl").write_text('{"job": {"out": "c')  # a crash
    job = shared | {"out": "a.mp4"}
    assert main(["--jobs", str(tmp_path / "none.jsonl")]) == 2
    with pytest.raises(json.JSONDecodeError):
        make(job)  # the torn line is still there
    made = (tmp_path / "a.mp4").stat().st_mtime_ns
    with pytest.raises(json.JSONDecodeError):
        make(job)
    assert (tmp_path / "a.mp4").stat().st_mtime_ns == made
    assert len((tmp_path / "jobs.results.jsonl").read_text().splitlines()) == 2


def test_other_settings_make_other_videos(make: Make, shared: dict[str, str]) -> None:
    job = shared | {"out": "a.mp4"}
    assert make(job)[1][-1]["report"]["seed"] == 0
    assert len(make(job, options=("--seed", "5"))[1]) == 2
    assert make(job, options=("--seed", "5", "--steps", "3"))[1][-1]["report"]["nfe_per_clip"] == 9
    assert len(make(job, options=("--seed", "5", "--steps", "3", "--no-batch-branches"))[1]) == 3


def test_results_never_replace_each_other_or_what_is_read(make: Make, shared: dict[str, str], tmp_path: Path) -> None:
    write_sound(tmp_path / "speech.wav", 0.1)
    status, results = make(
        shared | {"out": "a.mp4"},
        shared | {"out": "./a.mp4", "seed": 1},
        shared | {"out": "b.mp4", "sheet": "a.mp4"},
        shared | {"audio": "speech.wav", "out": "c.mp4"},
        shared | {"out": "speech.wav"},
        shared | {"out": "jobs.jsonl"},
        shared | {"out": "jobs.results.jsonl"},
    )
    assert status == 1
    assert ["report" in result for result in results] == [True, False, False, True, False, False, False]
    assert "Line 1 has the same out" in results[1]["error"]
    assert "'speech.wav' is an input of a job" in results[4]["error"]


def test_folders_of_a_killed_list_are_made_again(
    folder: Path, tmp_path: Path, make: Make, shared: dict[str, str]
) -> None:
    write_sound(tmp_path / "long.wav", 60)
    job = shared | {"audio": "long.wav", "out": "frames"}
    del job["duration"]
    (tmp_path / "jobs.jsonl").write_text(json.dumps(job))
    model = folder / "model.safetensors"
    command = [sys.executable, "-m", "fada_core.generate", "--jobs", str(tmp_path / "jobs.jsonl"), f"--model={model}"]
    process = subprocess.Popen([*command, "--device=cpu"], stderr=subprocess.DEVNULL)  # noqa: S603 - our own
    try:
        while len(list((tmp_path / "frames").glob("frame_*.png"))) < 5 and process.poll() is None:
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (tmp_path / "frames" / UNFINISHED).is_file()
    write_sound(tmp_path / "long.wav", 0.2)
    status, results = make(job)
    assert status == 0 and results[-1]["report"]["frames"] == 5
    names = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert names == ["audio.wav", *(f"frame_{i:05d}.png" for i in range(5))]
    assert make(job)[0] == 0  # done


def test_names_that_the_terminal_lacks_letters_for(folder: Path, shared: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "jobs.jsonl").write_text(json.dumps(shared | {"out": "\u4e2d.mp4"}))
    command = [sys.executable, "-m", "fada_core.generate", "--jobs", str(tmp_path / "jobs.jsonl"), "--device=cpu"]
    ended = subprocess.run(  # noqa: S603 - our own
        [*command, f"--model={folder / 'model.safetensors'}"],
        env={"PATH": "", "PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1"},
        capture_output=True,
    )
    assert ended.returncode == 0 and b"Traceback" not in ended.stderr and (tmp_path / "\u4e2d.mp4").is_file()
