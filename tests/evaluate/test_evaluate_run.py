"""The command: evaluations of each mode, reproducible results, its files, and messages for mistakes."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fada_core.checkpoint import CheckpointInfo, read_info, save_checkpoint
from fada_core.config import ControlConfig
from fada_core.data.sync import load_syncnet, scores
from fada_core.distill.__main__ import run as distil
from fada_core.distill.config import DistillConfig
from fada_core.distill.student import make_student
from fada_core.errors import FadaError
from fada_core.evaluate import train_lips
from fada_core.evaluate.__main__ import EvaluateConfig, load_pipelines, plan, run
from fada_core.evaluate.ablation import AblationConfig
from fada_core.evaluate.ablation import run as compare_variants
from fada_core.evaluate.cases import Case, EvaluationSet
from fada_core.evaluate.footage import FootageConfig, footage_set, fvd_features, inception_features, sync_scores
from fada_core.evaluate.frechet import frame_features
from fada_core.evaluate.lips import WEIGHTS
from fada_core.evaluate.metrics import flicker
from fada_core.evaluate.reconstruct import ReconstructConfig
from fada_core.evaluate.reconstruct import run as reconstruct
from fada_core.evaluate.report import markdown, to_json
from fada_core.evaluate.runs import evaluate
from fada_core.evaluate.sweep import sweep
from fada_core.evaluate.train_lips import TrainLipsConfig
from fada_core.training import LoopConfig
from tests.support.footage import film, manifest, row
from tests.support.networks import SMALL, make_networks


@dataclass(frozen=True)
class Files:
    teacher: str
    student: str


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("models")
    teacher = make_networks(SMALL)
    torch.manual_seed(0)
    student = make_student(teacher, ControlConfig(kind="tokens", tokens=2, dim=16))
    ranges = ((1.0, 3.0), (1.0, 10.0))
    save_checkpoint(folder / "t.safetensors", teacher, CheckpointInfo("teacher"))
    save_checkpoint(folder / "s.safetensors", student, CheckpointInfo("student", steps=6, scale_ranges=ranges))
    return Files(str(folder / "t.safetensors"), str(folder / "s.safetensors"))


@pytest.fixture(scope="module")
def data() -> EvaluationSet:
    """Two moving patterns, each with the length of a clip."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(1, 1, SMALL.size, SMALL.size)
    cases = []
    for _ in range(2):
        frames = torch.rand(SMALL.clip_frames, 3, SMALL.size, SMALL.size, generator=generator) * 2 - 1
        sound = 0.1 * torch.randn(640 * SMALL.clip_frames, generator=generator)
        cases.append(Case(frames[0], sound, frames, lambda made: {"flicker": flicker(made, mask), "odd": math.nan}))
    return EvaluationSet("closed", 2, cases, {"frechet_frames": frame_features})


def both(files: Files, **changes: object) -> EvaluateConfig:
    return replace(EvaluateConfig(model=files.student, teacher=files.teacher), **changes)


def test_evaluations_are_those_of_the_paper(files: Files, data: EvaluationSet) -> None:
    """75, 18 and 6 per clip by default."""
    config = both(files)
    results = evaluate(data, plan(config, load_pipelines(config)))
    assert list(results) == ["truth", "teacher", "balanced", "fast"]
    nfe = {mode: summary["nfe_per_clip"]["mean"] for mode, summary in results.items() if mode != "truth"}
    assert nfe == {"teacher": 75, "balanced": 18, "fast": 6}
    assert set(results["fast"]) == {"flicker", "odd", "frechet_frames", "nfe_per_clip", "seconds_per_video"}
    assert set(results["truth"]) == {"flicker", "odd"}
    assert results["fast"]["frechet_frames"]["mean"] > 0.1
    assert results["fast"]["odd"]["n"] == 0


def test_the_same_numbers_twice(files: Files, data: EvaluationSet) -> None:
    config = both(files, steps=(1,), modes=("teacher", "fast"))
    runs = plan(config, load_pipelines(config))
    first, second, other = (evaluate(data, runs, seed) for seed in (3, 3, 4))
    for results in (first, second, other):
        for mode in config.modes:
            del results[mode]["seconds_per_video"]
    assert to_json(first) == to_json(second) != to_json(other)


def test_steps_for_each_mode(files: Files) -> None:
    pipes = load_pipelines(both(files, modes=("fast", "teacher")))
    assert [r.steps for r in plan(both(files, steps=(3, 10)), pipes)] == [3, 10]
    assert [r.steps for r in plan(both(files, steps=(3,)), pipes)] == [3, 3]
    with pytest.raises(FadaError, match="3 numbers for 2 modes"):
        plan(both(files, steps=(1, 2, 3)), pipes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"teacher": None, "modes": ("teacher",)}, "needs a teacher checkpoint; give one with --teacher"),
        (
            {"model": "TEACHER", "teacher": None, "modes": ("fast",)},
            "needs a student checkpoint; give one with --model",
        ),
        ({"model": "TEACHER"}, "are both teachers"),
        ({"teacher": "STUDENT"}, "give a teacher's checkpoint"),
        ({"teacher": "nothing.safetensors"}, "There is no model"),
        ({"seconds": 0.5}, "nothing to measure"),
    ],
)
def test_mistakes(files: Files, changes: dict[str, object], message: str) -> None:
    names = {"TEACHER": files.teacher, "STUDENT": files.student}
    given = {name: names.get(value, value) if isinstance(value, str) else value for name, value in changes.items()}
    with pytest.raises(FadaError, match=message):
        run(both(files, **given))


def test_a_teacher_alone_is_enough(files: Files) -> None:
    assert list(load_pipelines(EvaluateConfig(model=files.teacher))) == ["teacher"]


def test_command_on_avatars(files: Files, tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    written = {"json": tmp_path / "new" / "r.json", "table": tmp_path / "r.md", "out": tmp_path / "videos"}
    run(both(files, modes=("fast",), steps=(1,), videos=1, seconds=0.96, **written))
    results = json.loads(written["json"].read_text())
    assert list(results) == ["closed", "open"]
    for modes in results.values():
        assert list(modes) == ["truth", "fast"]
        assert modes["fast"]["nfe_per_clip"] == {"mean": 1, "ci95": None, "n": 1}
        assert {"frechet_frames", "frechet_clips", "flicker", "psnr_last_clip"} <= set(modes["fast"])
        assert all(set(value) == {"mean", "ci95", "n"} for value in modes["fast"].values())
    assert {"lips_r", "lips_offset", "openness_at_rest"} <= set(results["closed"]["fast"])
    table = written["table"].read_text()
    assert "| closed, 1 videos | truth | fast |" in table and "| nfe_per_clip |  | 1 |" in table
    assert (written["out"] / "closed" / "000.mp4").is_file()


def test_autoencoder_alone(files: Files) -> None:
    pytest.importorskip("espeakng_loader")
    results = reconstruct(ReconstructConfig(models=(files.student,), videos=2, seconds=0.96))
    assert list(results) == ["closed", "open"]
    for found in results.values():
        assert list(found) == ["truth", files.student]
        assert {"psnr", "psnr_mouth", "flicker", "lips_error"} <= set(found[files.student])
        assert "psnr" not in found["truth"]
        assert 0 < found[files.student]["psnr"]["mean"] < 20  # random weights


def test_table_says_what_was_not_measured_everywhere() -> None:
    r = {"mean": 0.5, "ci95": 0.25, "n": 2}
    text = markdown(
        {"open": {"fast": {"flicker": r, "lips_r": r | {"n": 1, "ci95": math.nan}}, "truth": {"flicker": r}}}
    )
    assert "| lips_r | 0.500 (n 1) |  |" in text and "| flicker | 0.500 ± 0.250 | 0.500 ± 0.250 |" in text


def test_variants_trained_alike_and_compared(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("espeakng_loader")
    config = AblationConfig(
        out=tmp_path,
        teacher=files.teacher,
        variants=("naive", "embedding"),
        steps=1,
        clips=4,
        mixed_precision="no",
        balanced=("naive",),
        videos=2,
        seconds=0.96,
        teacher_videos=False,
    )
    results = compare_variants(config)
    names = ["truth", "naive balanced", "naive fast", "embedding fast"]
    assert [list(runs) for runs in results.values()] == [names, names]
    facts = [read_info(tmp_path / name / "student.safetensors") for name in ("naive", "embedding")]
    assert [list(info.training["clips"]) for _, info in facts] == [["high"], ["high", "moderate"]]
    assert [model.control.kind for model, _ in facts] == ["tokens", "embedding"]
    table = (tmp_path / "results.md").read_text()
    assert "| open, 2 videos | nfe_per_clip |" in table and "| naive fast | 6 |" in table
    assert "| open, difference to naive in the same mode, 2 videos | lips_r |" in table
    kept = [(tmp_path / name / "found.json").stat().st_mtime_ns for name in ("naive", "embedding")]
    again = compare_variants(config)
    assert to_json(again) == to_json(results)
    assert kept == [(tmp_path / name / "found.json").stat().st_mtime_ns for name in ("naive", "embedding")]
    with pytest.raises(FadaError, match="no variant 'other'"):
        compare_variants(replace(config, variants=("other",)))

    def until_a_signal(config: DistillConfig) -> Path | None:
        return distil(replace(config, loop=replace(config.loop, steps=1)))

    monkeypatch.setattr("fada_core.evaluate.ablation.distil", until_a_signal)
    with pytest.raises(FadaError, match="'constant' was stopped at step 1 of 2; start again"):
        compare_variants(replace(config, variants=("constant",), steps=2))
    assert not (tmp_path / "constant" / "found.json").exists()


def test_sweep(files: Files, data: EvaluationSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One curve per mode for each scale, over the range for which fast was distilled."""
    monkeypatch.setattr("fada_core.evaluate.sweep.POINTS", 2)
    monkeypatch.setattr("fada_core.evaluate.sweep.METRICS", {"flicker": "flicker & co", "odd": "odd"})
    config = both(files, steps=(1,))
    sweep([data], plan(config, load_pipelines(config)), 0, tmp_path)
    found = json.loads((tmp_path / "sweep.json").read_text())["closed"]
    for scale, ends in (("audio_cfg", ["1.0", "10.0"]), ("ref_cfg", ["1.0", "3.0"])):
        assert {mode: list(line) for mode, line in found[scale].items()} == dict.fromkeys(("teacher", "fast"), ends)
    assert found["ref_cfg"]["teacher"]["3.0"]["nfe_per_clip"]["mean"] == 3
    assert found["truth"]["flicker"]["n"] == 2
    svg = (tmp_path / "closed-audio_cfg.svg").read_text()
    assert svg.startswith("<svg") and svg.count("<polyline") == 2 and svg.count("<circle") == 4
    assert "flicker &amp; co" in svg and "odd: not measured" in svg and "nan" not in svg
    with pytest.raises(FadaError, match="teacher and fast"):
        config = both(files, modes=("balanced",))
        sweep([data], plan(config, load_pipelines(config)), 0, tmp_path)


def test_real_footage(files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    film(tmp_path / "a.mp4", frames=20)
    film(tmp_path / "short.mp4", frames=6)
    clips = [row("good", split="test"), row("gone", split="test", video="b.mp4")]
    clips += [row("short", split="test", video="short.mp4", audio="short.mp4"), row("seen", split="train")]
    footage = FootageConfig(manifest=manifest(tmp_path, *clips))
    given = {"modes": ("fast",), "sets": ("closed",), "steps": (1,), "table": tmp_path / "t.md"}
    results = run(both(files, footage=footage, **given))
    assert results["closed"]["fast"]["nfe_per_clip"]["n"] == 1
    assert "FID will be left out; give its weights with --inception" in caplog.text
    assert "left out gone" in caplog.text and "left out short" in caplog.text
    with pytest.raises(FadaError, match="no clip for split 'test'"):
        run(both(files, footage=footage, **{**given, "sets": ("open",)}))


def test_missing_libraries_and_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, weights = torch.device("cpu"), tmp_path / "weights.pth"
    for module, package, make in (
        ("torch_fidelity", "torch-fidelity", partial(inception_features, weights, cpu)),
        ("cdfvd.fvd", "cd-fvd", partial(fvd_features, weights, "i3d", cpu)),
        ("syncnet_python", "syncnet-python", partial(load_syncnet, weights, weights, "cpu")),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(FadaError, match=f"pip install {package}"):
            make()
    monkeypatch.setitem(sys.modules, "torch_fidelity", object())  # installed, as far as can be told
    with pytest.raises(FadaError, match=r"There is no file .*\(--inception"):
        inception_features(weights, cpu)
    torch.save({"code": print}, weights)
    with pytest.raises(FadaError, match="no weights that can be read safely"):
        inception_features(weights, cpu)
    with pytest.raises(FadaError, match="both --syncnet and --s3fd"):
        footage_set("closed", FootageConfig(syncnet=weights), 1, 1.0, 64, 25.0, cpu)


def test_sync_is_the_mean_over_tracks() -> None:
    class Tracks:
        """Gives the results of syncnet-python's pipeline."""

        def inference(self, path: str) -> tuple[list[int], list[float], list[float], float, float, str, bool]:
            return self.found

        found = ([1, 1], [4.0, 6.0], [8.0, 10.0], 6.0, 8.0, "", True)

    frames, sound = torch.zeros(4, 3, 32, 32), torch.zeros(2560)
    assert scores(Tracks(), Path("a.mp4")) == {"offset": 1, "sync_c": 5, "sync_d": 9}
    found = sync_scores(frames, sound, 25.0, partial(scores, Tracks()))
    assert found == {"sync_offset": 1, "sync_c": 5, "sync_d": 9}
    nobody = Tracks()
    nobody.found = ([], [], [], 0.0, 0.0, "", False)
    assert sync_scores(frames, sound, 25.0, partial(scores, nobody)) == {} == sync_scores(frames, sound, 25.0, None)


def test_the_ruler_can_be_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A few steps of the command; the shipped regressor stays, and the new weights are beside the states."""
    pytest.importorskip("espeakng_loader")
    shipped = WEIGHTS.read_bytes()
    loop = LoopConfig(steps=3, log_every=1, preview_every=9)
    config = TrainLipsConfig(
        out=tmp_path / "lips", data=tmp_path, clips=1, clip_seconds=0.2, batch=3, held_out=1, loop=loop
    )
    with caplog.at_level("INFO", "fada.lips"):
        made = train_lips.run(config)
    assert made == tmp_path / "lips" / "lips.safetensors" and WEIGHTS.read_bytes() == shipped
    made_again, before = load_file(made), load_file(WEIGHTS)
    assert {name: value.shape for name, value in made_again.items()} == {n: v.shape for n, v in before.items()}
    assert "held-out correlation, moderate: " in caplog.text
