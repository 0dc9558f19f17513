"""Clips of avatars, manifests and tars: all sources give the same samples, and only bad clips are left out."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from fada_core.config import PORTRAIT
from fada_core.data.augment import Augmented, changed
from fada_core.data.avatars import AvatarSet
from fada_core.data.manifest import ManifestSet
from fada_core.data.quality import overall, speech_activity
from fada_core.data.samples import BadClipError, ClipSample, EncodedClips, encode_clips
from fada_core.data.shards import ShardClips, write_shards
from fada_core.errors import FadaError
from fada_core.models.networks import Networks
from tests.support.footage import FPS, FRAMES, SIZE, film, manifest, row, speech
from tests.support.small import SMALL_UNET, SMALL_VAE


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


@pytest.fixture(scope="module")
def networks() -> Networks:
    return small_networks(0)


def small_networks(seed: int) -> Networks:
    torch.manual_seed(seed)
    return Networks(replace(PORTRAIT, size=SIZE, clip_frames=4, unet=SMALL_UNET, vae=SMALL_VAE))


def assert_same(one: ClipSample, two: ClipSample) -> None:
    for name, value in vars(one).items():
        other = getattr(two, name)
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other


Encode = Callable[[Path], EncodedClips]


@pytest.fixture
def encode(networks: Networks, accelerator: Accelerator, tmp_path: Path) -> Encode:
    return lambda path: encode_clips(ManifestSet(path, SIZE, FPS), networks, accelerator, tmp_path / "cache")


def test_a_sample_of_real_footage(encode: Encode, tmp_path: Path) -> None:
    film(tmp_path / "a.mp4")
    box = torch.tensor([[8.0, 40.0, 24.0, 56.0]]).repeat(FRAMES, 1)
    save_file({"mouth": box}, tmp_path / "a.safetensors")
    clips = encode(manifest(tmp_path, row("a", boxes="a.safetensors"), row("b", pool="moderate", quality={"yaw": 75})))
    assert len(clips) == 2
    assert clips.counts() == {"high": 1, "moderate": 1}
    a, b = clips[0], clips[1]
    assert (a.id, a.pool, a.quality, a.silent, a.target_latents) == ("a", "high", 1.0, False, None)
    assert (b.pool, b.quality) == ("moderate", pytest.approx(0.4))
    assert (a.latents.shape, a.latents.dtype) == ((FRAMES, 16, 8, 8), torch.float16)
    # Encoded alone and among others, which may differ in the last bit.
    torch.testing.assert_close(a.portrait, a.latents[0], atol=1e-3, rtol=2e-3)
    assert (a.audio.shape, a.audio.dtype) == ((FRAMES, 1, 160), torch.float32)
    assert (a.weights.shape, a.weights.dtype) == ((FRAMES, 1, 8, 8), torch.float16)
    assert (b.weights == 1).all()
    heavy = a.weights[0, 0] > 1.9  # the margin of two pixels reaches a quarter into the neighbours
    assert heavy.nonzero().tolist() == [[y, x] for y in range(4, 8) for x in range(4) if a.weights[0, 0, y, x] > 1.9]
    assert a.weights[0, 0, 5, 1] == 13


def test_the_box_is_cut_out_and_boxes_move_along(tmp_path: Path) -> None:
    film(tmp_path / "a.mp4", size=128)
    save_file({"mouth": torch.tensor([[64.0, 48.0, 96.0, 64.0]]).repeat(FRAMES, 1)}, tmp_path / "a.safetensors")
    path = manifest(tmp_path, row("a", bbox=[0, 32, 128, 64], boxes="a.safetensors"))
    clip = ManifestSet(path, SIZE, FPS).fetch(0)
    assert clip.frames.shape == (FRAMES, 3, SIZE, SIZE)
    # The centre square of the box is x 48..80, y 32..64, at twice the size; the video's bright square is left of it.
    assert clip.frames[0].float().mean() < 10
    assert clip.mouth_boxes is not None
    assert clip.mouth_boxes[0].tolist() == [32, 32, 96, 64]


def test_face_and_identity_come_along(
    encode: Encode, networks: Networks, accelerator: Accelerator, tmp_path: Path
) -> None:
    film(tmp_path / "a.mp4")
    face = torch.tensor([[8.0, 16.0, 40.0, 48.0], [16.0, 8.0, 48.0, 72.0]]).repeat(FRAMES // 2, 1)
    save_file({"face": face, "mouth": face / 2}, tmp_path / "a.safetensors")
    save_file({"identity": torch.arange(10.0)}, tmp_path / "who.safetensors")
    clips = encode(manifest(tmp_path, row("a", boxes="a.safetensors", identity="who.safetensors"), row("b")))
    a, b = clips[0], clips[1]
    assert a.face.tolist() == [0.125, 0.125, 0.75, 1.0], "around all frames, cut at the picture's edge"
    assert a.lips.tolist() == [0.0625, 0.0625, 0.375, 0.5625]
    assert torch.equal(a.identity, torch.arange(10.0))
    assert b.face is b.lips is b.identity is None

    # Latents fit any model with these encoders; the identity only those that take ten numbers, or none at all.
    unet, condition = replace(networks.config.unet, image_token_dim=8), networks.config.condition
    other = Networks(replace(networks.config, unet=unet, condition=replace(condition, identity_dim=12, image_tokens=2)))
    other.vae.load_state_dict(networks.vae.state_dict())
    source = ManifestSet(tmp_path / "clips.jsonl", SIZE, FPS)
    assert encode_clips(source, other, accelerator, tmp_path / "cache").bad == [
        ("a", "its identity has 10 numbers where 12 are needed")
    ]


def test_bad_rows_are_left_out_and_named(encode: Encode, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    film(tmp_path / "a.mp4")
    film(tmp_path / "short.mp4", frames=5)
    film(tmp_path / "silent.mp4", sound=False)
    film(tmp_path / "slow.mp4", fps=12.5)
    (tmp_path / "text.mp4").write_text("not a video")
    whole = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 8])
    (tmp_path.parent / "outside.mp4").write_bytes(whole)
    (tmp_path / "link.mp4").symlink_to(tmp_path.parent / "outside.mp4")
    save_file({"mouth": torch.full((FRAMES, 4), torch.nan)}, tmp_path / "nan.safetensors")
    save_file({"mouth": torch.ones(3, 4)}, tmp_path / "few.safetensors")
    cases: dict[str, dict[str, Any]] = {
        "missing": {"video": "none.mp4"},
        "mute": {"audio": "silent.mp4"},
        "no-audio": {"audio": None},
        "short": {"video": "short.mp4"},
        "slow": {"video": "slow.mp4"},
        "fps": {"fps": 30},
        "text": {"video": "text.mp4"},
        "half": {"video": "half.mp4"},
        "up": {"video": "../outside.mp4"},
        "absolute": {"video": str(tmp_path.parent / "outside.mp4")},
        "link": {"video": "link.mp4"},
        "nan-boxes": {"boxes": "nan.safetensors"},
        "few-boxes": {"boxes": "few.safetensors"},
        "box-file": {"boxes": "text.mp4"},
        "identity": {"identity": "few.safetensors"},
        "bbox": {"bbox": [0, 0, 500, 500]},
        "bbox-form": {"bbox": [0, 0, 5]},
        "pool": {"pool": "best"},
        "nan-score": {"quality": {"yaw": math.nan}},
    }
    cases |= {
        "long-name": {"video": "x" * 300},
        "deep-name": {"video": "a/" * 450},
        "nul-boxes": {"boxes": ""},
        "number": {"video": 5},
        "fps-huge": {"fps": 10**400},
        "score-text": {"quality": {"yaw": "left"}},
        "scores": {"quality": [1]},
        "split": {"split": {"train": 1}},
        "playlist": {"video": "list.mp4"},
        "playlist-sound": {"audio": "list.wav"},
    }
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\n{tmp_path.parent / 'outside.mp4'}\n#EXT-X-ENDLIST\n")
    (tmp_path / "list.wav").write_text(f"ffconcat version 1.0\nfile '{tmp_path.parent / 'outside.mp4'}'\n")
    lines = ["{broken", row("../up"), row("a"), row("a"), *(row(name, **change) for name, change in cases.items())]
    with caplog.at_level(logging.WARNING):
        clips = encode(manifest(tmp_path, *lines))
    assert [sample.id for sample in (clips[i] for i in range(len(clips)))] == ["a"]
    reasons = dict(clips.bad)
    where = {name: name for name in cases} | {"fps-huge": f"line {[*cases].index('fps-huge') + 5}"}
    assert reasons.keys() == {"line 1", "line 2", "a", *where.values()}
    for name, words in {
        "line 1": "no JSON",
        "line 2": "letters",
        "a": "used before",
        "missing": "missing",
        "mute": "'silent.mp4' has no sound; give",
        "no-audio": "its audio is null",
        "short": "5 frames where 6",
        "slow": "12.5 fps",
        "fps": "30 fps",
        "up": "outside",
        "absolute": "outside",
        "link": "outside",
        "nan-boxes": "NaN",
        "few-boxes": "(3, 4)",
        "identity": "no embedding",
        "bbox": "64x64",
        "pool": "best",
        "nan-score": "yaw",
        "long-name": "is missing",
        "deep-name": "is missing",
        "number": "its video is 5, not a path",
        "fps-huge": "401 digits",
        "score-text": "'yaw' is \"left\"",
        "scores": "its quality is [1], not an object",
        "split": "not text",
        "playlist": "cannot be read as a video",
        "playlist-sound": "cannot be read as sound",
    }.items():
        assert words in reasons[where.get(name, name)], name
    assert f"{len(reasons)} of {len(lines)} clips are left out" in caplog.text


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_manifests_of_other_editors(encode: Encode, tmp_path: Path, encoding: str) -> None:
    film(tmp_path / "a.mp4")
    path = manifest(tmp_path, row("a"), row("b", note="Zoë\u2028"))
    path.write_bytes(path.read_text(encoding="utf-8").replace("\n", "\r\n").encode(encoding))
    assert [len(encode(path)), encode(path).bad] == [2, []]


def test_clips_that_do_not_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film(tmp_path / "a.mp4")
    monkeypatch.setattr("fada_core.data.manifest.MAX_BYTES", 3 * SIZE**2 * (FRAMES - 1))
    with pytest.raises(BadClipError, match="it is longer than .* s; cut it into pieces"):
        ManifestSet(manifest(tmp_path, row("a")), SIZE, FPS).fetch(0)


def test_nan_that_the_encoder_makes_is_found(networks: Networks, accelerator: Accelerator, tmp_path: Path) -> None:
    film(tmp_path / "a.mp4")
    poisoned = small_networks(0)
    poisoned.vae.latent_mean.fill_(math.nan)
    with pytest.raises(FadaError, match=r"None of the 1 clips can be used \(a: its portrait came out as NaN"):
        encode_clips(ManifestSet(manifest(tmp_path, row("a")), SIZE, FPS), poisoned, accelerator, tmp_path / "cache")


def test_only_the_asked_pools_and_split(tmp_path: Path) -> None:
    path = manifest(tmp_path, row("a"), row("b", pool="moderate"), row("c", split="test"))
    names = [ManifestSet(path, SIZE, FPS, ("high",)), ManifestSet(path, SIZE, FPS, split=None)]
    film(tmp_path / "a.mp4")
    assert [[data.key(i)[0] for i in range(len(data))] for data in names] == [["a"], ["a", "b", "c"]]
    with pytest.raises(FadaError, match="no clip for split 'valid'"):
        ManifestSet(path, SIZE, FPS, split="valid")
    with pytest.raises(FadaError, match="no manifest"):
        ManifestSet(tmp_path / "none.jsonl", SIZE, FPS)


def test_encoding_goes_on_and_notices_changes(encode: Encode, accelerator: Accelerator, tmp_path: Path) -> None:
    film(tmp_path / "a.mp4")
    film(tmp_path / "b.mp4")
    path = manifest(tmp_path, row("a"), row("b", video="b.mp4"))
    first = encode(path)
    times = [p.stat().st_mtime_ns for p in first.paths]
    first.paths[1].unlink()
    second = encode(path)
    assert second.paths[0].stat().st_mtime_ns == times[0], "not encoded again"
    assert_same(second[0], first[0])

    manifest(tmp_path, row("a", quality={"overall": 0.5}), row("b", video="b.mp4"))
    assert encode(path)[0].quality == 0.5
    whole = first.paths[0].read_bytes()
    first.paths[0].write_bytes(whole[:1000])
    assert encode(path)[0].quality == 0.5, "a file that is cut off is written again"
    for content in ("{", '{"id": "a"}', "[" * 9999):
        save_file(load_file(first.paths[0]), first.paths[0], {"clip": content})
        assert encode(path)[0].quality == 0.5, "as is one whose facts are damaged"
    other = encode_clips(ManifestSet(path, SIZE, FPS), small_networks(1), accelerator, tmp_path / "cache")
    assert other.paths[0].parent != first.paths[0].parent, "other weights have a place of their own"


def test_tars_give_the_samples_of_the_manifest(encode: Encode, networks: Networks, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    film(tmp_path / "a.mp4")
    rows = [row(f"clip-{i}", pool=("high", "moderate")[i % 2], quality={"overall": i / 8}) for i in range(5)]
    clips = encode(manifest(tmp_path, *rows))
    for _ in range(2):  # written again, nothing of before is left
        files = write_shards(clips, tmp_path / "shards", max_megabytes=0.1)
    assert len(files) > 1
    assert {path.name for path in (tmp_path / "shards").iterdir()} == {path.name for path in files}
    packed = ShardClips(tmp_path / "shards", networks)
    assert len(packed) == 5
    assert packed.counts() == clips.counts()
    for index in (3, 0, 4, 1, 2):
        assert_same(packed[index], clips[index])
    assert len(ShardClips(tmp_path / "shards", networks, ("moderate",))) == 2

    streamed = list(webdataset.WebDataset([str(path) for path in files], shardshuffle=False))
    assert [item["__key__"] for item in streamed] == [f"clip-{i}" for i in range(5)]

    long = replace(networks.config, clip_frames=FRAMES)
    longer = Networks(long)
    longer.load_state_dict(networks.state_dict())
    with pytest.raises(FadaError, match="too short, 12 frames where 14"):
        encode_clips(
            ManifestSet(tmp_path / "clips.jsonl", SIZE, FPS), longer, Accelerator(cpu=True), tmp_path / "cache"
        )
    with pytest.raises(FadaError, match="no usable clip"):
        ShardClips(tmp_path / "shards", longer)

    with pytest.raises(FadaError, match="other encoders"):
        ShardClips(tmp_path / "shards", small_networks(1))
    whole = files[0].read_bytes()
    for share in (0.3, 0.6, 0.9):
        files[0].write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(FadaError, match="whole tar|cut off"):
            ShardClips(files[0], networks)
    with pytest.raises(FadaError, match="no shards"):
        ShardClips(tmp_path / "nowhere", networks)
    files[0].write_bytes(whole.replace(b'"frames": 12', b'"frames": -1'))
    with pytest.raises(FadaError, match=r"cannot be used: of clip-\d.json, its frames is -1"):
        ShardClips(files[0], networks)
    files[0].write_bytes(whole.replace(b'"latents"', b'"patents"'))
    with pytest.raises(FadaError, match=r"The clip 'clip-\d' in '.*.tar' is damaged \(it has no latents\)"):
        ShardClips(files[0], networks)[0]


def test_quality() -> None:
    assert overall({}) == overall({"sync_c": 7.0, "yaw": -10, "offset": 0, "unheard": 1.0, "iqa": None}) == 1.0
    assert overall({"sync_c": 1.0}) < overall({"sync_c": 3.0}) < overall({"sync_c": 4.0})
    assert overall({"offset": -2}) == overall({"offset": 2}) < overall({"offset": 1})
    assert overall({"offset": 1, "blur": 0.5}) == pytest.approx(overall({"offset": 1}) * overall({"blur": 0.5}))
    assert overall({"overall": 0.3, "sync_c": 0.0}) == 0.3
    with pytest.raises(FadaError, match="sync_c"):
        overall({"sync_c": math.nan})


def test_speech_activity() -> None:
    assert speech_activity(torch.zeros(16000)) == 0
    assert speech_activity(1e-4 * torch.randn(16000)) == 0
    assert speech_activity(speech(1.0)) == pytest.approx(0.5, abs=0.08)
    assert speech_activity(torch.ones(10)) == 0


@pytest.fixture(scope="module")
def moderate(tmp_path_factory: pytest.TempPathFactory) -> AvatarSet:
    pytest.importorskip("espeakng_loader")
    data = AvatarSet(tmp_path_factory.mktemp("avatars"), "moderate", 4, 0.4, SIZE, FPS, clean=True)
    data.render(1)
    return data


def test_moderate_avatars(moderate: AvatarSet, networks: Networks, accelerator: Accelerator, tmp_path: Path) -> None:
    clips = encode_clips(moderate, networks, accelerator, tmp_path)
    assert clips.counts() == {"moderate": 4}
    samples = [clips[i] for i in range(4)]
    assert all(0 < sample.quality < 1 for sample in samples)
    assert len({sample.quality for sample in samples}) > 2
    for sample in samples:
        assert sample.target_latents is not None
        assert sample.target_latents.shape == sample.latents.shape
        assert not torch.equal(sample.target_latents, sample.latents)
    plain = replace(moderate, clean=False)
    assert plain.folder != moderate.folder


def test_a_moderate_portrait_looks_like_its_frames(moderate: AvatarSet) -> None:
    """The portrait is nearer to the defective frames than to the clean ones, as if taken from the same footage."""
    for index in range(4):
        clip = {
            name: value.float() for name, value in moderate.read(index, "portrait", "frames", "clean_frames").items()
        }
        seen, clean = clip["frames"][0], clip["clean_frames"][0]
        assert (clip["portrait"].mean() - seen.mean()).abs() < (clip["portrait"].mean() - clean.mean()).abs() + 4


def test_files_without_scores_are_read(moderate: AvatarSet, tmp_path: Path) -> None:
    """Files of the high pool that were rendered by versions without scores."""
    old = AvatarSet(tmp_path, "high", 1, 0.4, SIZE, FPS)
    old.folder.mkdir(parents=True)
    save_file(load_file(moderate.path(0)), old.path(0))
    clip = old.fetch(0)
    assert (clip.quality, clip.pool, len(clip.frames)) == (1.0, "high", 10)
    assert clip.clean_frames is None


def test_changed_clips_keep_their_boxes(moderate: AvatarSet) -> None:
    """Boxes surround the same parts after a change; the first version is the original; changes are reproducible."""
    data = Augmented(moderate, 3)
    assert len(data) == 12
    assert data.key(1) == moderate.key(1)
    assert len({data.key(index) for index in (1, 5, 9)}) == 3
    assert torch.equal(data.fetch(1).frames, moderate.fetch(1).frames)
    assert torch.equal(data.fetch(5).frames, data.fetch(5).frames)
    assert not torch.equal(data.fetch(5).frames, data.fetch(9).frames)
    clip = moderate.fetch(0)
    marked = torch.zeros_like(clip.frames)
    boxes = torch.tensor([40.0, 36.0, 52.0, 44.0]).repeat(len(marked), 1) * SIZE / 96
    for frame, (x0, y0, x1, y1) in zip(marked, boxes.int().tolist(), strict=True):
        frame[:, y0:y1, x0:x1] = 255
    for seed in range(4):
        new = changed(replace(clip, frames=marked, mouth_boxes=boxes), torch.Generator().manual_seed(seed))
        frame = new.frames[0].float().mean(0)
        rows, columns = (frame > (frame.min() + frame.max()) / 2).nonzero().unbind(1)
        seen = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        torch.testing.assert_close(seen.float(), new.mouth_boxes[0], atol=3.0, rtol=0)


def test_avatars_that_are_not_rendered(networks: Networks, accelerator: Accelerator, tmp_path: Path) -> None:
    with pytest.raises(FadaError, match="not rendered yet"):
        encode_clips(AvatarSet(tmp_path, "high", 2, 0.4, SIZE, FPS), networks, accelerator, tmp_path)
