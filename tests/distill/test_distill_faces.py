"""Teachers that are told where the face is and whose it is, from a converted folder to a student's video.

Networks of the published layouts at a small width and with random content; clips that the teacher generates.
"""

from __future__ import annotations

import json
import math
import wave
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fada_core.checkpoint import load_checkpoint
from fada_core.data.batches import ClipBatch, draw_batch
from fada_core.data.faces import clip_box, face_inputs
from fada_core.data.samples import ClipSample
from fada_core.distill.__main__ import parse, run
from fada_core.distill.teacher import GuidedTeacher
from fada_core.face.region import find_face
from fada_core.generate.options import GenerateConfig
from fada_core.generate.video import generate
from fada_core.media.video import probe
from fada_core.models.networks import Networks
from fada_core.prepare.__main__ import PrepareConfig, prepare
from fada_core.sampling.guidance import branches, combine
from fada_core.sampling.schedule import NoiseSchedule
from fada_core.settings import SamplingSettings
from fada_core.training import preview
from tests.support.networks import IDENTITY, make_networks
from tests.support.public_models import Download, echomimic_download, hallo_download  # noqa: F401 - fixtures

SECONDS, SIZE = 0.4, 64
FACE, LIPS = torch.tensor([0.25, 0.2, 0.7, 0.8]), torch.tensor([0.4, 0.6, 0.55, 0.7])


class Clips:
    """Two clips of random latents, one with and one without face and identity."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> ClipSample:
        generator = torch.Generator().manual_seed(index)
        side, frames = IDENTITY.size // IDENTITY.vae.downscale, 8

        def randn(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator)

        sample = ClipSample(
            id=f"clip-{index}",
            pool="high",
            quality=1.0,
            portrait=randn(IDENTITY.vae.latent_channels, side, side).half(),
            latents=randn(frames, IDENTITY.vae.latent_channels, side, side).half(),
            target_latents=None,
            audio=randn(frames, IDENTITY.audio.layers, IDENTITY.audio.dim),
            weights=torch.ones(frames, 1, side, side).half(),
            silent=False,
        )
        known = {"face": FACE, "lips": LIPS, "identity": randn(IDENTITY.condition.identity_dim)}
        return replace(sample, **known) if index == 0 else sample


@pytest.fixture(scope="module")
def teacher() -> Networks:
    return make_networks(IDENTITY)


@pytest.fixture(scope="module")
def batch() -> ClipBatch:
    for seed in range(100):
        drawn = draw_batch(Clips(), IDENTITY, [torch.Generator().manual_seed(seed + i) for i in range(2)])
        if drawn.ids == ["clip-0", "clip-1"]:
            return drawn
    raise AssertionError("no draw has both clips in order")


def test_a_clip_has_the_inputs_of_the_same_face_in_a_portrait() -> None:
    box = FACE * SIZE
    boxes = torch.stack([box, box + torch.tensor([2.0, 3.0, -4.0, -5.0])])  # the first holds the second
    shares = clip_box(boxes, SIZE)
    torch.testing.assert_close(shares, FACE)
    region = replace(find_face(torch.zeros(1, 3, SIZE, SIZE), box=box.tolist()), left=0, top=0, side=SIZE)
    lips = torch.tensor(region.lips) / SIZE
    face_box, masks = face_inputs(IDENTITY, shares, lips)
    assert torch.equal(face_box, region.face_picture(SIZE))
    for ours, theirs in zip(masks, region.attention_masks([8, 4, 2]), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_an_unknown_face_is_the_whole_picture() -> None:
    outside = torch.tensor([[70.0, 5.0, 90.0, 20.0]])
    assert clip_box(None, SIZE) is clip_box(outside, SIZE) is None
    face_box, masks = face_inputs(IDENTITY, None, LIPS)
    assert (face_box == 1).all() and all((mask == 1).all() for level in masks for mask in level)
    plain = replace(IDENTITY.unet, audio_regions=1), replace(IDENTITY.condition, face_locator=False)
    assert face_inputs(replace(IDENTITY, unet=plain[0], condition=plain[1]), FACE, LIPS) == (None, None)


def test_a_batch_has_a_row_of_everything_for_each_clip(batch: ClipBatch) -> None:
    assert batch.identity.shape == (2, 10) and batch.face_box.shape == (2, 1, SIZE, SIZE)
    assert [mask.shape for mask in batch.masks[1]] == [(2, 16, 1)] * 3
    assert batch.identity[0].any() and not batch.identity[1].any()
    assert (batch.face_box[0] == 0).any() and (batch.face_box[1] == 1).all()
    turned = batch.inputs().select(torch.tensor([1, 0]))
    assert torch.equal(turned.masks[0][2][0], batch.masks[0][2][1])
    assert torch.equal(turned.face_box[1], batch.face_box[0]) and torch.equal(turned.identity[1], batch.identity[0])


def test_the_guided_teacher_shows_each_branch_what_the_sampler_shows_it(teacher: Networks, batch: ClipBatch) -> None:
    """Each branch of each row, computed alone: it sees its own clip's face and identity, except in base."""
    schedule = NoiseSchedule(IDENTITY.schedule)
    guided_teacher = GuidedTeacher(teacher, schedule)
    x_t = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(3))
    t, scales = torch.tensor([500, 900]), torch.tensor([[2.0, 6.5], [1.5, 3.0]])
    guided, _ = guided_teacher.predict(x_t, t, scales, guided_teacher.condition(batch))

    def one(row: int, drop_reference: bool, drop_audio: bool) -> torch.Tensor:
        now = t[row : row + 1]
        drops = {"drop_reference": torch.tensor([drop_reference]), "drop_audio": torch.tensor([drop_audio])}
        alone = teacher.condition(replace(batch.inputs().select(torch.tensor([row])), **drops))
        return teacher.predict(x_t[row : row + 1], now, *schedule.alpha_sigma(now), alone)[0]

    for row, (ref_cfg, audio_cfg) in enumerate(scales.tolist()):
        used = branches(ref_cfg, audio_cfg)
        predictions = torch.stack([one(row, branch.drop_reference, branch.drop_audio) for branch in used])
        expected = combine(predictions, torch.tensor(list(used.values())))
        torch.testing.assert_close(guided[row], expected, atol=2e-4, rtol=1e-4)


def test_previews_show_models_that_need_a_face(
    teacher: Networks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("espeakng_loader")
    monkeypatch.setattr(preview, "AVATARS", 1)
    monkeypatch.setattr(preview, "CLIPS", 1)
    preview.preview_avatars(teacher, tmp_path, 7, [SamplingSettings(steps=1, ref_cfg=1.0, audio_cfg=1.0)])
    assert {path.name for path in tmp_path.iterdir()} == {"preview-000007.png", "preview-000007.mp4"}


def write_manifest(folder: Path, teacher: Path, fps: float, identity_dim: int) -> Path:
    """Two clips that the teacher made, prepared as footage is; one with boxes and, where the model takes one, an
    identity, the other without either."""
    (folder / "made").mkdir()
    Image.new("RGB", (SIZE, SIZE), (180, 140, 120)).save(folder / "portrait.png")
    with wave.open(str(folder / "speech.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        tone = torch.sin(2 * math.pi * 220 * torch.arange(round(SECONDS * 16000)) / 16000)
        file.writeframes((0.3 * 32767 * tone).to(torch.int16).numpy().tobytes())
    for seed in (0, 1):
        generate(
            GenerateConfig(
                image=folder / "portrait.png",
                audio=folder / "speech.wav",
                out=folder / "made" / f"{seed}.mp4",
                model=str(teacher),
                steps=1,
                seed=seed,
                device="cpu",
            )
        )
    settings = {"size": SIZE, "fps": fps, "min_seconds": 0.3, "test_share": 0.0, "workers": 1}
    prepare(PrepareConfig(folder / "made", folder / "data", **settings))
    path = folder / "data" / "manifest.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [row["frames"] for row in rows] == [math.ceil(SECONDS * fps)] * 2
    known = {name: (box * SIZE).repeat(rows[0]["frames"], 1) for name, box in (("face", FACE), ("mouth", LIPS))}
    if identity_dim:
        known["identity"] = torch.randn(identity_dim, generator=torch.Generator().manual_seed(0))
        rows[0]["identity"] = "known.safetensors"
    save_file(known, folder / "data" / "known.safetensors")
    rows[0]["boxes"] = "known.safetensors"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("family", ["hallo", "echomimic"])
def test_from_a_converted_teacher_to_a_students_video(
    family: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The previews are tested above; here they would take most of the time.
    monkeypatch.setattr("fada_core.distill.__main__.preview_avatars", lambda *_: None)
    download: Download = request.getfixturevalue(family)
    model = replace(download.model, size=SIZE)
    teacher = replace(download, model=model).convert(tmp_path / "teacher.safetensors", family=family)
    manifest = write_manifest(tmp_path, teacher, model.fps, model.condition.identity_dim)
    sizes = ["--batch", "2", "--control.tokens", "2", "--control.dim", "16", "--loop.steps", "2"]
    sizes += ["--objective.ref-cfg", "1", "4"]  # with the 3.5 that Hallo is sampled with by default
    data = ["--data", str(manifest), "--out", str(tmp_path / "out")]
    path = run(parse(["--teacher", str(teacher), *data, *sizes, "--mixed-precision", "no", "--cpu"]))

    student, info = load_checkpoint(path)
    assert (info.role, info.training["clips"]) == ("student", {"moderate": 2})  # nobody calls their pictures sharp
    assert student.config.control.kind == "tokens"
    video = tmp_path / "video.mp4"
    report = generate(
        GenerateConfig(
            image=tmp_path / "portrait.png",
            audio=tmp_path / "speech.wav",
            out=video,
            model=str(path),
            mode="fast",
            duration=0.15,
            device="cpu",
        )
    )
    facts = probe(video)
    assert (facts.width, facts.height, report.frames) == (SIZE, SIZE, math.ceil(0.15 * model.fps))
    if family == "hallo":
        assert report.nfe_per_clip == 6
