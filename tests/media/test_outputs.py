"""Output files: inputs are never overwritten, only one process writes to a place, files can be played at any time."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import struct
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from fada_core.errors import FadaError
from fada_core.media import outputs
from fada_core.media.outputs import UNFINISHED, check_apart, check_place, check_room, format_of
from fada_core.media.video import MACROBLOCKS, VideoWriter, playable_size, probe, read_video

FPS = 25


def noise(count: int, side: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def made(path: Path, **options: object) -> VideoWriter:
    return VideoWriter(path, 64, 64, FPS, torch.zeros(80000), **options)  # type: ignore[arg-type]


def boxes(path: Path) -> list[str]:
    """Names of the boxes of an MP4."""
    content, names, at = path.read_bytes(), [], 0
    while at < len(content):
        size, name = struct.unpack(">I4s", content[at : at + 8])
        names.append(name.decode())
        at += size
    return names


# Names and places


@pytest.mark.parametrize(
    ("name", "format"),
    [("a.mp4", "mp4"), ("a.WEBM", "webm"), ("a.gif", "gif"), ("frames", "png"), ("v1.0/", "png"), ("-", "mp4")],
)
def test_the_name_says_the_format(name: str, format: str) -> None:
    assert format_of(name) == format
    assert format_of("talking_v1.0", "png") == "png"


@pytest.mark.parametrize("name", ["a.xyz", "talking_v1.0", "", "."])
def test_names_without_a_format_are_refused(name: str) -> None:
    with pytest.raises(FadaError, match="not a supported video format|has no name"):
        format_of(name)


def test_places_that_cannot_be_written_are_known_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_place(tmp_path / "new" / "folders" / "a.mp4")
    (tmp_path / "file").touch()
    for path, reason in (
        (tmp_path / ("a" * 300 + ".mp4"), "name too long"),
        (tmp_path / "a\0.mp4", "null byte"),
        (tmp_path / "file" / "a.mp4", "Not a directory|not a folder"),
        (tmp_path, "is a folder"),
    ):
        with pytest.raises(FadaError, match=reason):
            check_place(path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # to root, everything is open
    with pytest.raises(FadaError, match="no permission"):
        check_place(tmp_path / "a.mp4")


def test_room_is_known_before(tmp_path: Path) -> None:
    check_room(tmp_path / "new" / "a.mp4", "mp4", 100, 64, 64)
    with pytest.raises(FadaError, match="will need .* MB or more"):
        check_room(tmp_path / "new" / "a.mp4", "mp4", 10**12, 4000, 4000)


def test_no_result_takes_the_place_of_an_input(tmp_path: Path) -> None:
    source = tmp_path / "audio.wav"
    source.touch()
    (tmp_path / "link.mp4").symlink_to(source)
    os.link(source, tmp_path / "hard.mp4")
    check_apart([tmp_path / "a.mp4", tmp_path / "a.png"], [source])
    for target in (source, tmp_path / "." / "audio.wav", tmp_path / "link.mp4", tmp_path / "hard.mp4", tmp_path):
        with pytest.raises(FadaError, match="would be overwritten"):
            check_apart([target], [source])
    for first, second in (("a.gif", "a.gif"), ("a.gif", "./a.gif"), ("frames", "frames/frame_00000.png")):
        with pytest.raises(FadaError, match="same place"):
            check_apart([tmp_path / first, tmp_path / second], [source])


def test_a_folder_with_anything_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "audio.wav").write_bytes(b"recording")
    with pytest.raises(FadaError, match="is not empty"), made(tmp_path) as writer:
        writer.write(noise(1))
    assert (tmp_path / "audio.wav").read_bytes() == b"recording"


def test_a_stopped_folder_is_made_anew_for_the_same_job_only(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    with pytest.raises(KeyboardInterrupt), made(folder, job="one") as writer:
        writer.write(noise(9))
        raise KeyboardInterrupt
    assert (folder / UNFINISHED).read_text() == "one"
    with pytest.raises(FadaError, match="another, interrupted job"), made(folder, job="two"):
        pass
    with made(folder, job="one") as writer:
        writer.write(noise(3))
    assert sorted(path.name for path in folder.iterdir()) == ["audio.wav", *(f"frame_{i:05d}.png" for i in range(3))]
    with pytest.raises(FadaError, match="is not empty"), made(folder, job="one"):
        pass


@pytest.mark.parametrize("name", ["talk:1.mp4", "talk:1.webm", "talk:1.gif"])
def test_a_colon_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with made(Path(name)) as writer:
        writer.write(noise(5))
    assert len(list(read_video(name))) == 5


def test_a_point_in_a_folders_name_is_no_suffix(tmp_path: Path) -> None:
    with made(tmp_path / "talking_v1.0_00001_", format="png") as writer:
        writer.write(noise(2))
    assert (tmp_path / "talking_v1.0_00001_" / "frame_00001.png").is_file()


# One writer at a time


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "frames"])
def test_the_second_writer_is_refused(tmp_path: Path, name: str) -> None:
    with made(tmp_path / name) as first:
        first.write(noise(5))
        with pytest.raises(FadaError, match="being written by another process"), made(tmp_path / name) as second:
            second.write(noise(1))
        first.write(noise(5))
    shown = list(read_video(tmp_path / name)) if "." in name else list((tmp_path / name).glob("*.png"))
    assert len(shown) == 10
    if "." in name:
        with made(tmp_path / name) as third:
            third.write(noise(2))
        assert len(list(read_video(tmp_path / name))) == 2


def test_what_was_there_stays_until_there_is_something_better(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with made(path) as writer:
        writer.write(noise(5))
    with pytest.raises(RuntimeError), made(path):
        raise RuntimeError("no frame was ever made")
    assert len(list(read_video(path))) == 5
    with pytest.raises(RuntimeError), made(tmp_path / "new.mp4"):
        raise RuntimeError("no frame was ever made")
    assert [found.name for found in tmp_path.iterdir()] == ["a.mp4"]


# Playable at any moment


def test_the_index_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with made(path, metadata={"comment": "made here"}) as writer:
        writer.write(noise(30))
        assert "moof" in boxes(path)
    names = boxes(path)
    assert "moof" not in names and names.index("moov") < names.index("mdat")
    with av.open(str(path)) as container:
        assert container.metadata["comment"] == "made here"
        assert container.metadata["major_brand"] == "isom"  # a plain file's
    assert probe(path).duration == pytest.approx(1.2) and [found.name for found in tmp_path.iterdir()] == ["a.mp4"]


def test_without_room_for_a_copy_the_fragments_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.mp4"
    with made(path) as writer:
        writer.write(noise(30))
        monkeypatch.setattr(outputs.shutil, "disk_usage", lambda place: type("Usage", (), {"free": 0}))
    assert len(list(read_video(path))) == 30
    assert "stays in fragments" in caplog.text


def _first_clip_then_killed(folder: Path) -> None:
    logging.disable()
    for name in ("a.mp4", "a.webm", "a.gif"):
        writer = made(folder / name).__enter__()
        writer.write(noise(12))
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_the_first_clip_plays_before_the_second_comes(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_first_clip_then_killed, args=(tmp_path,))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    for name in ("a.mp4", "a.webm", "a.gif"):
        assert len(list(read_video(tmp_path / name))) >= 9, name
    with made(tmp_path / "a.mp4") as writer:  # nothing stays locked
        writer.write(noise(1))


# Size


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((512, 512), (512, 512)), ((1920, 1088), (1920, 1088)), ((1080, 1920), (1080, 1920)), ((47, 33), (47, 33))],
)
def test_usual_sizes_stay(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert playable_size(*size, "mp4") == wanted


@pytest.mark.parametrize("size", [(3024, 4032), (4032, 3024), (16000, 900), (10000, 10000), (3001, 2001), (40000, 20)])
def test_large_pictures_make_a_video_that_plays(size: tuple[int, int]) -> None:
    width, height = playable_size(*size, "mp4")
    blocks = -(-width // 16) * -(-height // 16)
    assert blocks <= MACROBLOCKS and width % 2 == height % 2 == 0
    assert width / height == pytest.approx(size[0] / size[1], rel=0.02) or min(size) < 100
    assert playable_size(*size, "png") == size


def test_the_level_of_a_whole_photograph(tmp_path: Path) -> None:
    width, height = playable_size(3024, 4032, "mp4")
    with VideoWriter(tmp_path / "a.mp4", width, height, FPS) as writer:
        writer.write(np.zeros((2, height, width, 3), np.uint8))
    with av.open(str(tmp_path / "a.mp4")) as container:
        record = bytes(container.streams.video[0].codec_context.extradata)
    assert record[3] <= 42  # level, times ten: ISO 14496-15, 5.3.3.1
