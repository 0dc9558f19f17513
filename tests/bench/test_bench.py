"""The benchmark: the published way makes the same video, operations are counted, results have the documented form."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import fada_core.bench.__main__ as bench
from fada_core.bench import busy
from fada_core.bench.measure import CLIP_STAGES, ClipTimes, Measurement, count_tflop
from fada_core.bench.models import bench_config, make_job, random_pipeline
from fada_core.bench.report import markdown, summarise
from fada_core.bench.variants import build_variant, parse_variants
from fada_core.config import ControlConfig
from fada_core.settings import SamplingOptions
from tests.support.networks import IDENTITY, SMALL

CPU = torch.device("cpu")
NARROW = ["--width", "4", "--size", "64", "--steps", "2", "--repeats", "1", "--warmup", "0", "--device", "cpu"]


@pytest.mark.parametrize("config", [SMALL, IDENTITY], ids=["small", "with_identity"])
@pytest.mark.parametrize("mode", ["teacher", "balanced", "fast"])
def test_the_published_way_makes_the_same_video(config, mode):
    role = "teacher" if mode == "teacher" else "student"
    if role == "student":
        config = replace(config, control=ControlConfig("tokens", 2, 16))
    pipe = random_pipeline(config, role, CPU, torch.float32)
    cond = make_job(config, 2).encode(pipe)
    plain, how = build_variant("published", pipe).pipe, {"steps": 2, "ref_cfg": 2.0, "audio_cfg": 6.5}
    ours, theirs = (torch.cat(list(each.sample(cond, mode, seed=0, **how))) for each in (pipe, plain))
    assert ours.shape == theirs.shape == (8, 16, 8, 8)
    assert (ours - theirs).abs().max() <= 1e-4 * ours.abs().max()
    assert pipe.stats.nfe_per_clip == plain.stats.nfe_per_clip == (2 if mode == "fast" else 6)
    torch.testing.assert_close(plain.decode(ours), pipe.decode(ours), atol=1e-5, rtol=0)
    again = torch.cat(list(pipe.sample(cond, mode, seed=0, **how)))
    assert torch.equal(again, ours)  # what the two share is untouched


def test_every_input_reaches_the_output_of_random_weights():
    """Otherwise the comparison above would prove nothing."""
    pipe = random_pipeline(IDENTITY, "teacher", CPU, torch.float32)
    job = make_job(IDENTITY, 1)
    speech, image = replace(job, speech=job.speech.flip(0)), replace(job, image=job.image.flip(3))
    first, *others = (
        next(pipe.sample(each.encode(pipe), steps=2, ref_cfg=2.0, audio_cfg=6.5)) for each in (job, speech, image)
    )
    assert all((first - other).abs().max() > 1e-3 for other in others)


def test_arithmetic_is_counted():
    """The count is linear in steps and branches and includes attention; it is larger in the published way."""
    pipe = random_pipeline(SMALL, "teacher", CPU, torch.float32)
    cond = make_job(SMALL, 1).encode(pipe)

    def options(steps: int, scale: float) -> SamplingOptions:
        return SamplingOptions(mode="teacher", steps=steps, ref_cfg=scale, audio_cfg=scale)

    def count(variant: str, steps: int, scale: float) -> float:
        return count_tflop(build_variant(variant, pipe), cond, options(steps, scale))

    one, two, three = (count("eager", steps, 1.0) for steps in (2, 3, 4))
    assert two - one == pytest.approx(three - two) and two > one > 0
    assert count("eager", 3, 2.0) - count("eager", 2, 2.0) > 1.5 * (two - one)  # one more branch
    assert count("published", 2, 1.0) > one
    query, key = torch.randn(1, 2, 5, 4), torch.randn(1, 2, 7, 4)

    class Attends:
        """The parts of a pipeline that are counted, with a known result."""

        def sample(self, *_, **__):
            yield torch.nn.functional.scaled_dot_product_attention(query, key, key)

        def decode(self, latents):
            return latents

    variant = replace(build_variant("eager", pipe), pipe=Attends())
    assert count_tflop(variant, cond, options(2, 1.0)) == pytest.approx(2 * 2 * (2 * 5 * 7 * 4) / 1e12)


def test_a_row_has_medians_and_quartiles():
    stages = [dict.fromkeys(CLIP_STAGES, seconds) for seconds in (0.1, 0.2, 0.3)]
    passes = [Measurement(0.5, [ClipTimes(times, 0.05) for times in stages], 18, memory) for memory in (100.0, 90.0)]
    facts = {"preset": "portrait", "variant": "eager", "dtype": "float32", "size": 64, "fps": 25.0, "clip_frames": 4}
    row = summarise(passes, SamplingOptions(mode="balanced", steps=6), 0.4, (2.0, "matmul"), **facts)
    assert row.frames_per_s == 5 and row.realtime_factor == pytest.approx(5 * 0.2 * 25 / 4)
    assert row.ms_per_forward == pytest.approx(50 * 6 / 18, rel=1e-3)
    assert row.spread["denoise"] == (125, 275) and row.stages_ms["encode"] == 500
    assert row.peak_memory_mb == 100 and row.peak_share == pytest.approx(0.4 / 0.8 / 2)
    assert row.mean_seconds == pytest.approx(0.8)
    plain = replace(row, variant="published", mean_seconds=2.0)
    assert "balanced, eager : balanced, published, float32: 2.50 x" in markdown([row, plain], CPU)


def test_all_get_as_much_time_as_the_slowest_takes(monkeypatch):
    now, order = [0.0], []

    class Takes:
        def __init__(self, seconds):
            self.seconds = seconds

        def run(self):
            order.append(self.seconds)
            now[0] += self.seconds
            return self.seconds

    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    slow, quick = bench._measure(bench.BenchConfig(warmup=1, repeats=2), [Takes(10.0), Takes(3.0)])
    assert slow == [10.0] * 2 and quick == [3.0] * 7
    assert order == [10.0, 3.0, 10.0, *[3.0] * 4, 10.0, *[3.0] * 3]


def test_the_command_prints_rows(capsys, tmp_path):
    trace = tmp_path / "traces" / "fast.json"
    arguments = ["--modes", "fast", "--compare", "eager,published", "--clips", "1", "--profile", str(trace), "--json"]
    assert bench.main([*arguments, *NARROW]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    ours, plain = json.loads(lines[0])
    wanted = ("preset", "mode", "variant", "dtype", "frames_per_s", "ms_per_forward", "nfe", "peak_memory_mb", "tflop")
    assert {*wanted, "peak_share"} <= set(ours) == set(plain)
    assert (ours["preset"], ours["mode"], ours["variant"], ours["dtype"]) == ("portrait", "fast", "eager", "float32")
    assert plain["variant"] == "published" and ours["nfe"] == plain["nfe"] == 2
    assert all(ours[name] > 0 for name in wanted[4:])
    assert set(ours["stages_ms"]) == {"encode", *CLIP_STAGES}
    assert json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]


def test_modes_are_measured_side_by_side(capsys):
    """The teacher is the student without its control: it shares the weights, so that no second model is in memory."""
    assert bench.main(["--modes", "teacher", "fast", "--clips", "1", "--json", *NARROW]) == 0
    teacher, fast = json.loads(capsys.readouterr().out)
    assert (teacher["mode"], teacher["nfe"]) == ("teacher", 6) and (fast["mode"], fast["nfe"]) == ("fast", 2)
    student = random_pipeline(replace(SMALL, control=ControlConfig("tokens", 2, 16)), "student", CPU, torch.float32)
    shared = random_pipeline(SMALL, "teacher", CPU, torch.float32, student.networks)
    pointers = {weight.data_ptr() for weight in student.networks.parameters()}
    assert all(weight.data_ptr() in pointers for weight in shared.networks.parameters())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--compare", "eager,fastest"], "'fastest'"),
        (["--compare", "eager,eager"], "twice"),
        (["--compare", "graph"], "needs a CUDA device"),
        (["--steps", "1"], "--steps 2"),
        (["--modes", "fast", "--steps", "4", "6"], "2 numbers for 1 modes"),
        (["--width", "5"], "--width 5"),
        (["--repeats", "0"], "--repeats"),
        (["--model", "portrait", "--width", "2"], "--model"),
    ],
)
def test_mistakes_end_in_one_sentence(arguments, says, capsys):
    assert bench.main([*arguments, "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and says in error and len(error.splitlines()) == 1


def test_variants_are_known():
    assert parse_variants("eager, compile,graph", "cuda") == ["eager", "compile", "graph"]


def test_sd15_cut_down_keeps_its_structure():
    config = bench_config("sd15", "student", width=8, size=128, vae="taesd")
    assert config.unet.block_out_channels == (40, 80, 160, 160) and config.unet.norm_groups == 4
    assert config.unet.num_heads == 1  # as wide as before
    assert config.unet.audio_regions == 3 and config.condition.identity_dim == 512
    assert (config.size, config.vae.kind, config.control.kind) == (128, "taesd", "tokens")


def test_busy_processes_end_with_their_block(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **kw: started.append(real(*args, **kw)) or started[-1])
    with busy.busy(2):
        assert len(started) == 2 and all(process.poll() is None for process in started)
        assert len({os.getsid(process.pid) for process in started} | {os.getsid(0)}) == 3
    assert all(process.poll() is not None for process in started)


def test_busy_table() -> None:
    text = busy.table([busy.Busy("command", 2.0, 3.0), busy.Busy("plain", 2.0, 40.0)])
    assert "| command | 2.00 | 3.00 | 1.5 |" in text and "| plain | 2.00 | 40.00 | 20.0 |" in text
