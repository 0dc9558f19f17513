"""Kinds of files from outside, one class each: how to make intact files, damaged copies, and how they are used."""

from __future__ import annotations

import io
import json
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import av
import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image, PngImagePlugin
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import fada_core
from fada_core.checkpoint import CheckpointInfo, save_checkpoint
from fada_core.convert.__main__ import ConvertConfig, convert
from fada_core.data.manifest import ManifestSet
from fada_core.data.samples import BadClipError
from fada_core.errors import FadaError
from fada_core.generate.__main__ import main as generate
from fada_core.media.audio import load_audio
from fada_core.media.image import load_image
from fada_core.media.video import VideoWriter, read_video
from fada_core.models.networks import Networks
from fada_core.training import LoopConfig, train
from fada_core.training.state import newest_whole
from tests.fuzz.guard import OUTSIDE
from tests.fuzz.mutations import VALUES, spoil_bytes, spoil_json, spoil_text
from tests.support.public_models import Download, write_hallo
from tests.support.small import SMALL
from tests.support.training import NEVER, SETTINGS, Regression

FPS, SIDE = 25, 32


def write_film(path: Path, frames: int = 12) -> None:
    """Grey pictures of 32 pixels with a tone."""
    tone = 0.3 * torch.sin(torch.arange(int(frames / FPS * 16000)) * 0.3)
    pictures = np.linspace(0, 255, frames, dtype=np.uint8)[:, None, None, None].repeat(SIDE, 1).repeat(SIDE, 2)
    with VideoWriter(path, SIDE, SIDE, FPS, tone) as writer:
        writer.write(pictures.repeat(3, 3))


def write_sound(path: Path, codec: str, rate: int = 16000, seconds: float = 0.5) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        tone = (9000 * np.sin(np.arange(int(rate * seconds)) * 0.2)).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
        frame.sample_rate = rate
        resampler = av.AudioResampler(
            format=stream.format.name, layout="mono", rate=rate, frame_size=stream.frame_size or None
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode())


class Checkpoints:
    """Checkpoints, loaded and used for a clip."""

    def __init__(self, whole: Path) -> None:
        whole.mkdir()
        torch.manual_seed(0)
        self.path = whole / "model.safetensors"
        save_checkpoint(self.path, Networks(SMALL), CheckpointInfo("teacher", steps=1), torch.float16)
        self.tensors = load_file(self.path)
        with safe_open(self.path, "pt") as file:
            self.metadata = dict(file.metadata())

    def spoil(self, folder: Path, random: Random) -> list[str]:
        path, tensors, metadata = folder / "model.safetensors", dict(self.tensors), dict(self.metadata)
        change, name = random.randrange(10), random.choice(sorted(tensors))
        if change < 3:
            path.write_bytes(spoil_bytes(self.path.read_bytes(), random))
            return [path.name]
        if change < 6:
            metadata["fada.config"] = json.dumps(spoil_json(json.loads(metadata["fada.config"]), random))
        elif change == 6:
            entry = random.choice(sorted(metadata))
            metadata[entry] = random.choice(("", "x", "[" * 3000, "1e999", "-1", *map(str, VALUES)))
            metadata |= random.choice(({}, {"fada.vae": f"../{OUTSIDE}.safetensors"}, {"fada.audio_encoder": "\0"}))
        elif change == 7:
            value = tensors[name].clone()
            value.view(-1)[: random.choice((1, 10**9))] = random.choice((math.nan, math.inf, -math.inf, 60000.0))
            tensors[name] = value
        elif change == 8:
            kinds = (torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.float8_e4m3fn)
            tensors[name] = tensors[name].to(random.choice(kinds))
        else:
            value = tensors.pop(name)
            changed = {"x" * 300: value, name.upper(): value, name: value[:0].contiguous(), f"{name}\n": value}
            tensors[random.choice(sorted(changed))] = changed[random.choice(sorted(changed))]
        save_file(tensors, path, metadata)
        return [path.name, "are not finite"]  # what leaves the networks is not a file's

    def use(self, folder: Path) -> object:
        pipe = fada_core.load(folder / "model.safetensors", "cpu", torch.float32)
        if pipe.config.size > 128 or pipe.config.clip_frames > 32 or pipe.config.unet.layers_per_block > 2:
            return "another size, which takes its time"
        job = pipe.encode(torch.zeros(1, 3, SIDE, SIDE), torch.zeros(1600))
        frames = [pipe.decode(latents) for latents in pipe.sample(job, steps=1, compute="eager")]
        assert all(part.isfinite().all() for part in frames)
        return len(frames)


class Pictures:
    """Portraits in the usual formats, and files that only look like pictures."""

    def __init__(self, whole: Path) -> None:
        whole.mkdir()
        random = np.random.default_rng(0)
        image = Image.fromarray(random.integers(0, 255, (40, 30, 3), dtype=np.uint8))
        text = PngImagePlugin.PngInfo()
        text.add_text("comment", "x" * 2000, zip=True)
        self.files = {}
        for suffix, options in (
            ("png", {"pnginfo": text}),
            ("jpg", {}),
            ("webp", {}),
            ("gif", {}),
            ("bmp", {}),
            ("tiff", {}),
        ):
            image.save(buffer := io.BytesIO(), {"jpg": "JPEG"}.get(suffix, suffix.upper()), **options)
            self.files[suffix] = buffer.getvalue()
        image.save(buffer := io.BytesIO(), "EPS")
        self.foreign = (
            buffer.getvalue(),
            b"%!PS\n{} loop\n",
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            b"%PDF-1.4\n",
        )

    def spoil(self, folder: Path, random: Random) -> list[str]:
        suffix = random.choice(sorted(self.files))
        content = random.choice(self.foreign) if random.random() < 0.2 else self.files[suffix]
        (folder / f"portrait.{suffix}").write_bytes(spoil_bytes(content, random))
        return [f"portrait.{suffix}"]

    def use(self, folder: Path) -> object:
        (path,) = folder.iterdir()
        picture = load_image(path)
        assert picture.isfinite().all() and not path.read_bytes().startswith((b"%!PS", b"%PDF", b"<svg"))
        return tuple(picture.shape)


class Recordings:
    """Sound and video in the usual formats, and playlists that name another file."""

    def __init__(self, whole: Path) -> None:
        whole.mkdir()
        write_film(whole / "film.mp4")
        write_film(whole / "film.webm")
        for name, codec in (("a.wav", "pcm_s16le"), ("a.flac", "flac"), ("a.mp3", "libmp3lame"), ("a.ogg", "libopus")):
            write_sound(whole / name, codec, rate=48000)
        self.files = {path.name: path.read_bytes() for path in whole.iterdir()}
        shutil.copy(whole / "a.wav", whole.parent.parent / f"{OUTSIDE}.wav")
        target = whole.parent.parent / f"{OUTSIDE}.wav"
        self.playlists = [
            f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n",
            f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n../{target.name}\n",
            f"ffconcat version 1.0\nfile '{target}'\n",
            f"v=0\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\na={target}\n",
        ]

    def spoil(self, folder: Path, random: Random) -> list[str]:
        name = random.choice(sorted(self.files))
        if random.random() < 0.15:
            (folder / name).write_text(random.choice(self.playlists))
        else:
            (folder / name).write_bytes(spoil_bytes(self.files[name], random))
        return [name]

    def use(self, folder: Path) -> object:
        (path,) = folder.iterdir()
        content = path.read_bytes()
        said, failure = [], None
        for read in (load_audio, lambda film: next(read_video(film), "no picture")):
            try:
                said.append(read(path))
            except FadaError as error:
                failure = failure or error
        assert not (said and content.startswith((b"#EXTM3U", b"ffconcat", b"v=0"))), "a playlist was played"
        if not said and failure:
            raise failure
        return len(said)


class Manifests:
    """Manifests of training clips, all of which are read."""

    def __init__(self, whole: Path) -> None:
        self.whole = whole
        whole.mkdir()
        write_film(whole / "a.mp4")
        boxes = torch.tensor([[8.0, 8.0, 24.0, 24.0]]).repeat(12, 1)
        save_file({"mouth": boxes, "face": boxes - 4}, whole / "a.safetensors")
        save_file({"identity": torch.ones(8)}, whole / "who.safetensors")
        shutil.copy(whole / "a.mp4", whole.parent.parent / f"{OUTSIDE}.mp4")
        film = {
            "video": "a.mp4",
            "audio": "a.mp4",
            "fps": FPS,
            "pool": "high",
            "split": "train",
            "bbox": [0, 0, SIDE, SIDE],
        }
        extra = {"boxes": "a.safetensors", "identity": "who.safetensors", "quality": {"sync_c": 5.0, "yaw": 3.0}}
        self.rows = [{"id": "a"} | film, {"id": "b"} | film | extra]

    def spoil(self, folder: Path, random: Random) -> list[str]:
        for path in self.whole.iterdir():
            content = path.read_bytes()
            (folder / path.name).write_bytes(spoil_bytes(content, random) if random.random() < 0.15 else content)
        rows = [spoil_json(row, random) if random.random() < 0.7 else row for row in self.rows]
        if random.random() < 0.3:
            away = random.choice((f"../{OUTSIDE}.mp4", str(folder.parent / f"{OUTSIDE}.mp4"), "link.mp4", "list.mp4"))
            (folder / "link.mp4").symlink_to(folder.parent / f"{OUTSIDE}.mp4")
            (folder / "list.mp4").write_text(f"ffconcat version 1.0\nfile '{folder.parent}/{OUTSIDE}.mp4'\n")
            rows.append(self.rows[0] | {"id": "away", "video": away})
        (folder / "clips.jsonl").write_bytes(spoil_text("".join(f"{json.dumps(row)}\n" for row in rows), random))
        return ["clips.jsonl"]

    def use(self, folder: Path) -> object:
        clips = ManifestSet(folder / "clips.jsonl", SIDE, FPS)
        said = []
        for index in range(len(clips)):
            try:
                name, _ = clips.key(index)
                clip = clips.fetch(index)
                assert name != "away", "a clip came from outside of the folder"
                said.append(tuple(clip.frames.shape))
            except BadClipError as error:
                assert error.id and str(error)
                said.append(str(error))
        return said


class Jobs:
    """Lists of jobs for the command."""

    def __init__(self, whole: Path) -> None:
        self.whole = whole
        whole.mkdir()
        torch.manual_seed(0)
        save_checkpoint(whole / "model.safetensors", Networks(SMALL), CheckpointInfo("teacher", steps=1), torch.float16)
        Image.new("RGB", (SIDE, SIDE), "white").save(whole / "portrait.png")
        write_sound(whole / "speech.wav", "pcm_s16le", seconds=0.2)
        job = {"image": "portrait.png", "audio": "speech.wav", "out": "a.mp4", "duration": 0.1, "steps": 1}
        more = {"out": "b.gif", "seed": 7, "start": 0.05, "face_box": [2, 2, 30, 30], "sheet": "b.png"}
        self.rows = [job, job | more]

    def spoil(self, folder: Path, random: Random) -> list[str]:
        for path in self.whole.iterdir():
            shutil.copy(path, folder)
        rows = [spoil_json(row, random) if random.random() < 0.7 else row for row in self.rows]
        written = "".join(f"{json.dumps(row)}\n" for row in rows)
        # A list may name any place; here none that is not the case's own.
        written = written.replace(f"../{OUTSIDE}", "elsewhere")
        (folder / "jobs.jsonl").write_bytes(spoil_text(written, random))
        if random.random() < 0.3:
            torn = random.choice((b"{", b"[]\n", b'{"job": 1, "report": {}}\n', b"\xff"))
            (folder / "jobs.results.jsonl").write_bytes(torn)
        return ["jobs.jsonl"]

    def use(self, folder: Path) -> object:
        messages, sys.stderr = sys.stderr, io.StringIO()
        try:
            status = generate(
                ["--jobs", str(folder / "jobs.jsonl"), "--model", str(folder / "model.safetensors"), "--device", "cpu"]
            )
            said = sys.stderr.getvalue()
        finally:
            sys.stderr = messages
        if status == 2:
            raise FadaError(said.rsplit("error: ", 1)[-1].strip())
        assert status in (0, 1) and "Traceback" not in said, said[-2000:]
        results = [
            json.loads(line) for line in (folder / "jobs.results.jsonl").read_bytes().split(b"\n") if _is_result(line)
        ]
        assert results and not any("unexpected error" in str(result.get("error")) for result in results)
        return [result.get("error", "made") for result in results]


def _is_result(line: bytes) -> bool:
    try:
        return "line" in json.loads(line)
    except (ValueError, TypeError):
        return False


class Conversions:
    """Public weights to convert."""

    def __init__(self, whole: Path) -> None:
        whole.mkdir()
        self.download: Download = write_hallo(whole)
        self.net, tensors = whole / "hallo" / "net.pth", self.download.tensors
        torch.save(tensors, buffer := io.BytesIO(), _use_new_zipfile_serialization=False)
        save_file(tensors, whole.parent / "net.safetensors")
        self.files = {
            "net.pth": self.net.read_bytes(),
            "net.ckpt": buffer.getvalue(),
            "net.safetensors": (whole.parent / "net.safetensors").read_bytes(),
        }
        self.sides = {
            "vae": whole / "sd-vae-ft-mse" / "diffusion_pytorch_model.safetensors",
            "audio_encoder": whole / "wav2vec" / "wav2vec2-base-960h" / "model.safetensors",
        }

    def spoil(self, folder: Path, random: Random) -> list[str]:
        name = random.choice(sorted(self.files))
        side = random.choice((None, None, *sorted(self.sides)))
        content = self.files[name]
        if random.random() < 0.4:
            tensors = dict(self.download.tensors)
            chosen = random.choice(sorted(tensors))
            value = tensors.pop(chosen)
            odd = (value.flatten(), value.double(), value.bool(), value.to(torch.complex64), [value], None)
            entry: Any = random.choice((math.nan * value, *odd))
            tensors[random.choice((chosen, chosen, "x" * 300, f"{chosen}.x"))] = entry
            torch.save(tensors, buffer := io.BytesIO())
            name, content = "net.pth", buffer.getvalue()
        elif side is None:
            content = spoil_bytes(content, random)
        (folder / name).write_bytes(content)
        if side is not None:
            (folder / f"{side}.safetensors").write_bytes(spoil_bytes(self.sides[side].read_bytes(), random))
        return [name, f"{side}.safetensors", str(folder)]

    def use(self, folder: Path) -> object:
        sides = {
            name: folder / f"{name}.safetensors" if (folder / f"{name}.safetensors").exists() else path
            for name, path in self.sides.items()
        }
        source = next(path for path in folder.iterdir() if path.stem == "net")
        config = ConvertConfig(source, folder / "out" / "made.safetensors", "hallo", "fp16", **sides)
        return convert(config, self.download.model).stat().st_size


class States:
    """The newest state of a training, from which it resumes, or else from the one before."""

    def __init__(self, whole: Path) -> None:
        self.whole = whole
        train(Regression(), LoopConfig(**vars(SETTINGS)), whole, Accelerator(cpu=True), NEVER)

    def spoil(self, folder: Path, random: Random) -> list[str]:
        older, newest = sorted(self.whole.glob("state-*.safetensors"))
        shutil.copy(older, folder)
        (folder / newest.name).write_bytes(spoil_bytes(newest.read_bytes(), random))
        return [newest.name]

    def use(self, folder: Path) -> object:
        path, _ = newest_whole(folder)
        assert path.read_bytes() == (self.whole / path.name).read_bytes(), "a damaged state is taken for whole"
        return path.name


KINDS: dict[str, Callable[[Path], Any]] = {
    "checkpoints": Checkpoints,
    "pictures": Pictures,
    "recordings": Recordings,
    "manifests": Manifests,
    "jobs": Jobs,
    "conversions": Conversions,
    "states": States,
}
