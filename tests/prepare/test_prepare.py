"""Preparation of footage: times, crops, scores, pools, resume, and the report."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from fada_core.atomic import only_worker
from fada_core.checkpoint import CheckpointInfo, save_checkpoint
from fada_core.config import PORTRAIT
from fada_core.data.manifest import ManifestSet
from fada_core.data.samples import encode_clips
from fada_core.data.shards import ShardClips
from fada_core.errors import FadaError
from fada_core.face.detect import Face, face_of_box
from fada_core.face.masks import Box
from fada_core.face.region import FaceRegion
from fada_core.media.video import VideoWriter, probe, read_video
from fada_core.models.networks import Networks
from fada_core.prepare.__main__ import PrepareConfig, main, prepare
from fada_core.prepare.clips import Settings, make_clips
from fada_core.prepare.footage import Analysis, CutFinder, analyse, frames_at, sound_of
from fada_core.prepare.measures import Thresholds, light, yaw
from fada_core.prepare.tracks import cut_up, find_tracks
from tests.support.small import ARCFACE, SMALL_UNET, SMALL_VAE

FPS, SIZE = 25.0, 64
LOOSE = Thresholds(face_pixels=10, face_pixels_least=0, face=0.1, speech=0, sharpness=0, brightness=0)
SETTINGS = Settings(SIZE, FPS, 0.4, 1.0, 0.4, 3, 0.0, LOOSE, None, None)


def tone(seconds: float, start: float = 0.0) -> torch.Tensor:
    t = torch.arange(round(seconds * 16000)) / 16000
    return 0.5 * torch.sin(2 * math.pi * 330 * t) * (t >= start)


def pictures(frames: int, left: int = 20, step: int = 1, width: int = 96, shade: float = 0.2) -> torch.Tensor:
    """Grey frames (n, 3, 64, w) with a white face of 24 x 24 pixels, which starts at `left` and moves by `step`."""
    images = torch.full((frames, 3, 64, width), shade)
    for i in range(frames):
        x = left + i * step
        images[i, :, 20:44, x : x + 24] = 1
    return images * 2 - 1


def film(path: Path, images: torch.Tensor, fps: float = FPS, sound: torch.Tensor | None = None) -> Path:
    height, width = images.shape[-2:]
    with VideoWriter(path, width, height, fps, sound, crf=8) as writer:
        writer.write(images)
    return path


def find_white(pixels: np.ndarray) -> list[Face]:
    """A detector for the faces of `pictures`."""
    rows, columns = np.nonzero(pixels.mean(-1) > 200)
    if not len(rows):
        return []
    return [face_of_box(Box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))]


@pytest.mark.parametrize(("frames", "fps", "expected"), [(12, 25.0, 12), (6, 12.5, 12), (24, 50.0, 12), (12, 30.0, 10)])
def test_any_rate_becomes_one(tmp_path: Path, frames: int, fps: float, expected: int) -> None:
    path = film(tmp_path / "a.mp4", pictures(frames, left=4, step=2), fps)
    found = [find_white(pixels)[0].box.x0 for pixels in frames_at(path, FPS)]
    assert len(found) == expected
    for tick, left in enumerate(found):
        shown = (left - 4) / 2 / fps  # when this frame was seen
        assert abs(shown - tick / FPS) <= 0.5 / min(fps, FPS) + 0.5 / fps + 1e-6


def test_cuts_are_found_and_motion_is_not_one(tmp_path: Path) -> None:
    scenes = torch.cat([pictures(8), pictures(9, left=60, shade=0.6), pictures(7, shade=0.3)])
    path = film(tmp_path / "a.mp4", scenes)
    found = analyse(path, FPS, find_white, 3)
    assert found.cuts == [8, 17]
    assert found.shots() == [(0, 8), (8, 17), (17, 24)]
    assert (found.width, found.height, found.frames) == (96, 64, 24)
    assert found.faces is not None
    assert set(found.faces) == {0, 3, 6, 8, 9, 12, 15, 17, 18, 21}
    pan = torch.rand(1, 3, 64, 400, generator=torch.Generator().manual_seed(0))
    finder = CutFinder()
    moving = [(pan[0, :, :, i * 12 : i * 12 + 64] * 255).byte().permute(1, 2, 0).numpy() for i in range(20)]
    assert not any(finder.is_cut(pixels) for pixels in moving)


def test_sound_begins_with_the_picture(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", pictures(20), sound=tone(0.8, start=0.4))
    sound = sound_of(path)
    loud = int((sound.abs() > 0.1).nonzero()[0])
    assert loud / 16000 == pytest.approx(0.4, abs=0.005)
    with pytest.raises(FadaError, match="no sound"):
        sound_of(film(tmp_path / "mute.mp4", pictures(5)))


def face(x: float, y: float = 10, side: float = 20) -> Face:
    return face_of_box(Box(x, y, x + side, y + side))


def test_tracks() -> None:
    """Two people, one of whom is missed once and one of whom leaves, and a cut."""
    faces = {0: [face(10), face(60)], 5: [face(62), face(12)], 10: [face(64)], 15: [face(66), face(18)], 20: [face(10)]}
    found = find_tracks(Analysis(96, 64, 30, [20], faces))
    spans = [(track.start, track.end) for track in found]
    assert spans == [(0, 16), (0, 16), (20, 21)]
    for track in found:
        assert track.faces is not None
        assert len(track.faces) == track.end - track.start
    left = min(found[:2], key=lambda track: track.faces[0].box.x0)  # type: ignore[index]
    xs = [f.box.x0 for f in left.faces or ()]
    assert xs == pytest.approx([10 + 0.4 * min(i, 5) + 0.6 * max(0, i - 5) for i in range(16)])

    gone = find_tracks(Analysis(96, 64, 30, [], {0: [face(10)], 5: [], 10: [], 15: [face(10)], 20: [face(10)]}))
    assert [(track.start, track.end) for track in gone] == [(0, 1), (15, 21)]
    jump = find_tracks(Analysis(96, 64, 30, [], {0: [face(10)], 5: [face(60)]}))
    assert len(jump) == 2
    shots = find_tracks(Analysis(96, 64, 30, [12], None))
    assert [(track.start, track.end, track.faces) for track in shots] == [(0, 12, None), (12, 30, None)]


def test_clips_have_equal_lengths() -> None:
    track = find_tracks(Analysis(96, 64, 103, [], None))[0]
    parts = cut_up(track, 10, 25)
    assert [part.end - part.start for part in parts] == [21, 20, 21, 20, 21]
    assert [part.start for part in parts[1:]] == [part.end for part in parts[:-1]]
    assert cut_up(track, 104, 200) == []
    # Equal parts would be too short, so they have the full length, and the rest is left out.
    assert [(part.start, part.end) for part in cut_up(track, 70, 80)] == [(0, 80)]


def test_yaw() -> None:
    """The formula on points of a head with yaw and roll."""
    for degrees, roll in ((0, 0), (20, 0), (-35, 10), (60, -20)):
        angle, tilt = math.radians(degrees), math.radians(roll)
        points = [(-math.cos(angle), 0.0), (math.cos(angle), 0.0), (1.27 * math.sin(angle), 0.8)]
        turned = tuple(
            (5 + x * math.cos(tilt) - y * math.sin(tilt), 7 + x * math.sin(tilt) + y * math.cos(tilt))
            for x, y in points
        )
        assert yaw(turned) == pytest.approx(degrees, abs=1e-4)
    assert yaw(((3.0, 3.0), (3.0, 3.0), (5.0, 4.0))) == 90


def test_sharpness_and_brightness() -> None:
    noise = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    soft = torch.nn.functional.avg_pool2d(noise, 5, 1, 2)
    sharp, blurred = (light(image[0].repeat(3, 1, 1) * 2 - 1, None) for image in (noise, soft))
    assert sharp["sharpness"] > 3 * blurred["sharpness"]
    assert sharp["brightness"] == pytest.approx(0.5, abs=0.02)
    half = torch.cat([torch.full((3, 64, 32), -1.0), torch.ones(3, 64, 32)], 2)
    assert light(half, Box(40, 10, 60, 60))["brightness"] == pytest.approx(1.0)
    assert light(half, Box(-20, 10, 20, 60))["brightness"] == pytest.approx(0.0, abs=1e-6)


def test_pools() -> None:
    limits = Thresholds()
    good = {"sync_c": 5.0, "offset": 0.0, "yaw": -10.0, "face": 0.5, "face_pixels": 300.0}
    assert limits.pool(good) == ("high", "")
    assert limits.pool({}) == ("high", "")
    for name, value in {"sync_c": 2.0, "offset": -2.0, "yaw": -50.0, "face": 0.2, "face_pixels": 100.0}.items():
        pool, reason = limits.pool(good | {name: value})
        assert pool == "moderate"
        assert name in reason
    assert limits.pool(good | {"sync_c": 1.0})[0] is None
    assert limits.pool(good | {"face_pixels": 30.0})[0] is None


def test_a_clip_follows_its_face(tmp_path: Path) -> None:
    film(tmp_path / "a b.mp4", torch.cat([pictures(20), pictures(15, left=70, step=0, shade=0.6)]), sound=tone(1.4))
    record = make_clips(tmp_path, "a b.mp4", tmp_path / "out", SETTINGS, find_white)
    assert record.error is None
    assert [(row["start"], row["pool"], row["split"]) for row in record.rows] == [
        (0, "high", "train"),
        (0.8, "high", "train"),
    ]
    assert [row["frames"] for row in record.rows] == [19, 14], "from the first to the last detection in the shot"
    first = record.rows[0]
    facts = probe(tmp_path / "out" / first["video"])
    assert (facts.width, facts.height, facts.frames, facts.fps) == (SIZE, SIZE, 19, FPS)
    boxes = load_file(tmp_path / "out" / first["boxes"])
    assert {name: tuple(value.shape) for name, value in boxes.items()} == {
        "face": (19, 4),
        "mouth": (19, 4),
        "eyes": (19, 4),
        "points": (19, 5, 2),
        "masks": (3, 64, 64),
    }
    for index, pixels in enumerate(read_video(tmp_path / "out" / first["video"])):
        white = find_white(pixels)[0].box
        assert boxes["face"][index].tolist() == pytest.approx(list(white), abs=1.6)
    assert (boxes["mouth"][:, 1] > boxes["eyes"][:, 3]).all()
    assert first["quality"]["face_pixels"] == pytest.approx(24, abs=1)
    assert first["quality"]["yaw"] == pytest.approx(0, abs=2)
    assert first["quality"]["brightness"] == pytest.approx(1, abs=0.1)
    assert first["quality"]["speech"] == pytest.approx(1, abs=0.05)

    (tmp_path / "out" / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in record.rows))
    clip = ManifestSet(tmp_path / "out" / "m.jsonl", SIZE, FPS).fetch(0)
    assert clip.frames.shape == (19, 3, SIZE, SIZE)
    assert clip.mouth_boxes is not None
    assert torch.equal(clip.mouth_boxes, boxes["mouth"])
    assert clip.quality == pytest.approx(0.4, abs=0.05)  # of the few pixels that the face has
    assert not clip.silent


def test_the_identity_of_each_clips_first_frame(tmp_path: Path) -> None:
    """The embedder gets the portrait's picture and the place of the face in it."""
    film(tmp_path / "a.mp4", pictures(30), sound=tone(1.2))
    seen: list[tuple[torch.Tensor, FaceRegion]] = []

    def embed(image: torch.Tensor, region: FaceRegion) -> torch.Tensor:
        seen.append((image, region))
        return torch.full((1, 5), float(len(seen)))

    out = tmp_path / "out"
    record = make_clips(tmp_path, "a.mp4", out, SETTINGS, find_white, embed=embed)
    assert [row["identity"] == row["boxes"] for row in record.rows] == [True, True]
    for number, (image, region) in enumerate(seen):
        white = find_white(((image[0].permute(1, 2, 0).numpy() + 1) * 127.5).astype(np.uint8))[0]
        assert white.box.x0 == pytest.approx(20 + number * 15, abs=1)  # the second clip starts 15 frames later
        assert np.array(region.points) == pytest.approx(np.array(white.points), abs=2)
    (out / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in record.rows))
    clips = ManifestSet(out / "m.jsonl", SIZE, FPS)
    assert [clips.fetch(i).identity.tolist() for i in range(2)] == [[1.0] * 5, [2.0] * 5]  # type: ignore[union-attr]
    blind = make_clips(tmp_path, "a.mp4", out, SETTINGS, embed=embed)
    assert [row["identity"] for row in blind.rows] == [None, None], "nobody knows where the face is"


def test_identity_through_the_whole_command(footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "arcface.onnx").write_bytes(ARCFACE)
    (tmp_path / "face.task").touch()
    monkeypatch.setattr("fada_core.prepare.__main__.load_detector", lambda path: find_white)
    models = {"face_model": tmp_path / "face.task", "identity_model": tmp_path / "arcface.onnx"}
    prepare(settings_for(footage, **models))
    clip = ManifestSet(footage / "out" / "manifest.jsonl", SIZE, FPS).fetch(0)
    assert clip.identity is not None
    assert clip.identity.shape == (3,)
    assert clip.identity.mean() > clip.portrait.float().mean() / 127.5 - 1, "of the white face, not of all the picture"


def test_a_syncnet_decides_about_pools(tmp_path: Path) -> None:
    film(tmp_path / "a.mp4", pictures(20), sound=tone(0.8))
    out = tmp_path / "out"
    asked: list[Path] = []

    def sync(confidence: float) -> dict[str, float]:
        asked[:] = list(out.glob("clips/*.mp4"))
        return {"sync_c": confidence, "sync_d": 9.0, "offset": 0.0}

    row = make_clips(tmp_path, "a.mp4", out, SETTINGS, sync=lambda _: sync(2.0)).rows[0]
    assert (row["pool"], row["quality"]["sync_c"], row["boxes"]) == ("moderate", 2.0, None)
    assert asked
    dropped = make_clips(tmp_path, "a.mp4", out, SETTINGS, sync=lambda _: sync(0.5))
    assert dropped.rows == []
    assert "sync_c 0.5 is below 1.5" in dropped.dropped[0]["reason"]
    assert not list((out / "clips").iterdir()), "nothing is left of it"


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    (folder / "sub").mkdir(parents=True)
    film(folder / "a.mp4", pictures(30), sound=tone(1.2))
    film(folder / "sub" / "a.mp4", pictures(14, left=30), sound=tone(0.6))
    film(folder / "mute.mp4", pictures(14))
    film(folder / "short.mp4", pictures(5), sound=tone(0.2))
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "notes.txt").write_text("no video either")
    return folder


def settings_for(footage: Path, **changes: object) -> PrepareConfig:
    config = PrepareConfig(footage, footage / "out", SIZE, FPS, 0.4, 1.0, test_share=0, thresholds=LOOSE, workers=1)
    return replace(config, **changes)  # type: ignore[arg-type]


def test_the_whole_command_and_resume(footage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--videos", str(footage), "--out", str(footage / "out"), "--size", "64", "--min-seconds", "0.4"]
    arguments += ["--max-seconds", "1", "--workers", "1", "--test-share", "0", "--thresholds.speech", "0.9"]
    arguments += ["--thresholds.sharpness", "0", "--thresholds.brightness", "0"]
    assert main(arguments) == 0
    assert (
        "3 clips of the high and 0 of the moderate pool from 5 videos; 0 clips and 3 videos" in capsys.readouterr().out
    )
    out = footage / "out"
    rows = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert [(row["source"], row["frames"]) for row in rows] == [("a.mp4", 15), ("a.mp4", 15), ("sub/a.mp4", 14)]
    assert len({row["id"] for row in rows}) == 3
    report = (out / "report.html").read_text()
    assert "5 videos" in report
    assert "<td>high<td>train<td class=n>3" in report
    assert report.count("data:image/jpeg") == 3
    assert "<svg" in report
    assert "broken.mp4" in report
    assert "http" not in report.replace("http://www.w3.org", ""), "nothing is loaded from elsewhere"

    before = {path: path.stat().st_mtime_ns for path in (out / "clips").iterdir()}
    manifest = (out / "manifest.jsonl").read_bytes()
    film(footage / "sub" / "a.mp4", pictures(16), sound=tone(0.7))
    assert main(arguments) == 0
    after = {path: path.stat().st_mtime_ns for path in (out / "clips").iterdir()}
    assert after.keys() == before.keys()
    changed = {path.stem for path in after if after[path] != before[path]}
    assert changed == {rows[2]["id"]}, "only the changed video is made again"
    assert (out / "manifest.jsonl").read_bytes() != manifest

    assert main([*arguments, "--max-seconds", "2"]) == 0
    rows = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert [row["frames"] for row in rows] == [30, 16], "other settings: all are made again"
    assert len(list((out / "clips").glob("*.mp4"))) == 2


def test_processes_give_the_same(footage: Path, tmp_path: Path) -> None:
    one = prepare(settings_for(footage, out=tmp_path / "one"))
    two = prepare(settings_for(footage, out=tmp_path / "two", workers=2))
    assert one == two


def test_shards(footage: Path, tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    networks = Networks(replace(PORTRAIT, size=SIZE, clip_frames=4, unet=SMALL_UNET, vae=SMALL_VAE))
    save_checkpoint(tmp_path / "model.safetensors", networks, CheckpointInfo("teacher"))
    prepare(settings_for(footage, shards=True, model=str(tmp_path / "model.safetensors")))
    out = footage / "out"
    packed = ShardClips(out / "shards", networks)
    source = ManifestSet(out / "manifest.jsonl", SIZE, FPS)
    clips = encode_clips(source, networks, Accelerator(cpu=True), tmp_path / "cache")
    assert [packed[i].id for i in range(3)] == [clips[i].id for i in range(3)]
    torch.testing.assert_close(packed[1].latents, clips[1].latents)


def test_damaged_records_and_other_folders(footage: Path, tmp_path: Path) -> None:
    """A video with a damaged record is processed again; a foreign folder, or one in use, is refused."""
    first = prepare(settings_for(footage))
    record = next(path for path in (footage / "out" / "videos").iterdir() if json.loads(path.read_text())["rows"])
    whole = record.read_text()
    for content in ("", "[" * 9999, '{"video": 1}', '{"telepathy": 1}', whole[:99], "\0" * 99):
        record.write_text(content)
        assert [r.rows for r in prepare(settings_for(footage))] == [r.rows for r in first]
        assert record.read_text() == whole
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(FadaError, match="mine' is not empty, and not from an earlier run"):
        prepare(settings_for(footage, out=tmp_path / "mine"))
    with only_worker(footage / "out"), pytest.raises(FadaError, match="Another process works in '.*out'"):
        prepare(settings_for(footage))


def test_times_that_jump(tmp_path: Path) -> None:
    """They give an error: a damaged timestamp would otherwise mean days of the same frame."""
    with av.open(tmp_path / "jump.mkv", "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuvj420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 25)
        for pts in (0, 1, 10**7):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            frame.pts = pts
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(FadaError, match="'jump.mkv' has no frame for 4.* s; convert it to MP4"):
        list(frames_at(tmp_path / "jump.mkv", 25.0))


def test_mistakes_are_named(footage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--videos", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    assert "There is no folder" in capsys.readouterr().err
    assert main(["--videos", str(footage), "--out", str(tmp_path / "out"), "--size", "63"]) == 2
    assert "size must be even" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    with pytest.raises(FadaError, match="no video in"):
        prepare(PrepareConfig(tmp_path / "empty", tmp_path / "out"))
    with pytest.raises(FadaError, match="None of the 5 videos gave a clip"):
        prepare(settings_for(footage, min_seconds=5, max_seconds=5))
    assert "No shot with sound lasts for 5 s" in (footage / "out" / "report.html").read_text()
    with pytest.raises(FadaError, match="none.task"):
        prepare(settings_for(footage, face_model=tmp_path / "none.task"))
    with pytest.raises(FadaError, match=r"pip install syncnet-python|install it, or leave|no file .*syncnet_v2.model"):
        prepare(settings_for(footage, syncnet=tmp_path / "syncnet_v2.model"))
    for shortest, longest in ((3, 2), (0.001, 0.001)):
        with pytest.raises(FadaError, match="min_seconds"):
            prepare(PrepareConfig(footage, tmp_path / "out", min_seconds=shortest, max_seconds=longest))
    with pytest.raises(FadaError, match="give face_model, too"):
        prepare(settings_for(footage, identity_model=tmp_path / "arcface.onnx"))
