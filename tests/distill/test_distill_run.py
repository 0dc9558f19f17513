"""Distillations of tiny networks: they learn, resume exactly after a kill, and can run in several processes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.utils import DistributedType
from safetensors.torch import load_file, save_file

from fada_core.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from fada_core.config import ControlConfig
from fada_core.data.samples import ClipSample
from fada_core.distill.__main__ import parse, run
from fada_core.distill.student import Trainable, make_student, select_trainable
from fada_core.distill.task import DistillTask, Objective
from fada_core.distill.teacher import GuidedTeacher
from fada_core.errors import FadaError
from fada_core.models.networks import Networks
from fada_core.sampling.schedule import NoiseSchedule
from fada_core.training import LoopConfig, train
from fada_core.training.loop import sample_generators
from fada_core.training.state import saved_states
from tests.support.footage import film, manifest, row
from tests.support.networks import SMALL, make_networks
from tests.support.training import assert_same_state, column, state_of

LOOP = LoopConfig(steps=6, learning_rate=1e-3, warmup_steps=1, save_every=2, log_every=1, preview_every=100)


class Clips:
    """Random latents of four clips, two of them of the moderate pool."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> ClipSample:
        generator = torch.Generator().manual_seed(index)
        side = SMALL.size // SMALL.vae.downscale
        portrait = torch.randn(SMALL.vae.latent_channels, side, side, generator=generator)
        moving = 0.1 * torch.randn(8, *portrait.shape, generator=generator)
        return ClipSample(
            id=f"clip-{index}",
            pool="high" if index < 2 else "moderate",
            quality=1.0 if index < 2 else 0.4,
            portrait=portrait.half(),
            latents=(portrait + moving).half(),
            target_latents=None,
            audio=torch.randn(8, SMALL.audio.layers, SMALL.audio.dim, generator=generator),
            weights=torch.ones(8, 1, side, side).half(),
            silent=False,
        )


def write_weights(networks: Networks, folder: Path, step: int) -> None:
    weights = {name: value.contiguous() for name, value in networks.state_dict().items()}
    save_file(weights, folder / f"preview-{step:06d}.safetensors")


def make_task(
    accelerator: Accelerator, batch: int, objective: Objective, slow: float = 0.0, trainable: Trainable = "full"
) -> DistillTask:
    frozen = make_networks(SMALL)
    torch.manual_seed(0)
    student = make_student(frozen, ControlConfig(kind="tokens", tokens=2, dim=16))
    select_trainable(student, trainable, lora_rank=2)
    teacher = GuidedTeacher(frozen, NoiseSchedule(SMALL.schedule))
    task = DistillTask(student, teacher, Clips(), batch, objective, accelerator, write_weights)
    if slow:
        plain = task.losses

        def losses(*args):
            time.sleep(slow)
            return plain(*args)

        task.losses = losses
    return task


def distil(
    folder: Path,
    batch: int = 4,
    loop: LoopConfig = LOOP,
    slow: float = 0.0,
    sharded: bool = False,
    trainable: Trainable = "full",
    **objective,
) -> DistillTask:
    accelerator = Accelerator(cpu=True)
    if sharded:  # as `accelerate launch --use_fsdp --fsdp_version 2` has it; on CPUs torch does it, accelerate does not
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(fsdp_version=2, cpu_ram_efficient_loading=True)
    task = make_task(accelerator, batch, Objective(**objective), slow, trainable)
    train(task, loop, folder, accelerator, float("inf"))
    return task


@pytest.mark.parametrize("strategy", ["direct", "phased", "trajectory"])
def test_distillation_improves_its_own_loss(tmp_path: Path, strategy: str) -> None:
    """Asked for the same clips, scales, noise and timesteps in every step. Teacher and truth have nothing in common,
    so that midway between the two the loss could not fall far; it is nearer to the truth, which is learnt faster."""
    accelerator = Accelerator(cpu=True)
    task = make_task(accelerator, 2, Objective(strategy=strategy, substeps=2, mixer="constant", teacher_share=0.25))
    losses = task.losses
    task.losses = lambda module, step, generators: losses(module, step, sample_generators(9, 0, 0, task.batch))
    train(task, replace(LOOP, steps=10, learning_rate=3e-3), tmp_path, accelerator, float("inf"))
    told = [float(value) for value in column(tmp_path, "loss")]
    assert told[-1] < 0.9 * told[0], told


@pytest.mark.parametrize("mixer", ["constant", "ratio", "grad_norm", "confidence"])
def test_every_term_is_logged(tmp_path: Path, mixer: str) -> None:
    distil(tmp_path, loop=replace(LOOP, steps=2), mixer=mixer)
    for name in ("loss", "distill", "gt", "teacher_error", "lambda_mean", "lambda_spread", "grad_norm"):
        assert all(float(value) >= 0 for value in column(tmp_path, name))


def _distil_slowly(folder: Path) -> None:
    torch.set_num_threads(1)
    distil(folder, slow=0.3)


def test_a_killed_distillation_goes_on_exactly(tmp_path: Path) -> None:
    """After kill -9 at any moment, the losses are bit for bit those of an uninterrupted run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        distil(tmp_path / "whole")
        process = get_context("spawn").Process(target=_distil_slowly, args=(tmp_path / "killed",))
        process.start()
        while not saved_states(tmp_path / "killed") and process.is_alive():
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert saved_states(tmp_path / "killed")[-1][0] < LOOP.steps
        distil(tmp_path / "killed")
    finally:
        torch.set_num_threads(threads)
    for name in ("step", "loss", "distill", "gt", "lambda_mean"):
        assert column(tmp_path / "killed", name) == column(tmp_path / "whole", name)
    assert_same_state(tmp_path / "whole", tmp_path / "killed")


def _distil_as_one_of_two(rank: int, port: int, folder: Path, options: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    os.environ["ACCELERATE_USE_CPU"] = "true"
    distil(folder, batch=2, mixer="confidence", **options)
    torch.distributed.destroy_process_group()


def distil_as_two(folder: Path, **options) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = get_context("spawn")
    both = [context.Process(target=_distil_as_one_of_two, args=(rank, port, folder, options)) for rank in (0, 1)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a distillation in one process."""
    folder = tmp_path_factory.mktemp("one")
    distil(folder, mixer="confidence")
    return folder


def assert_same_losses(folder: Path, alone: Path) -> None:
    for name in ("loss", "distill", "gt", "lambda_mean", "grad_norm"):
        here, there = ([float(value) for value in column(side, name)] for side in (folder, alone))
        assert here == pytest.approx(there, rel=1e-3), name


def test_two_processes_learn_what_one_learns(tmp_path: Path, alone: Path) -> None:
    """The same global batch in two gloo processes gives the same losses, up to the order of additions."""
    distil_as_two(tmp_path)
    assert_same_losses(tmp_path, alone)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a distillation in two processes with sharded parameters."""
    folder = tmp_path_factory.mktemp("sharded")
    distil_as_two(folder, sharded=True, loop=replace(LOOP, preview_every=3))
    return folder


def test_sharded_parameters_learn_the_same(sharded: Path, alone: Path) -> None:
    """FSDP2 in two gloo processes; states, previews and checkpoints are made of complete weights."""
    assert_same_losses(sharded, alone)
    ours, theirs = state_of(sharded), state_of(alone)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=3e-4, msg=name)
    shown = [load_file(folder / f"preview-{LOOP.steps:06d}.safetensors") for folder in (sharded, alone)]
    assert shown[0].keys() == shown[1].keys()
    for name, value in shown[1].items():
        torch.testing.assert_close(shown[0][name], value, rtol=0, atol=3e-4, msg=name)


def test_sharded_adapters_learn_the_same(tmp_path: Path) -> None:
    """In frozen layers with low-rank adapters, only the adapters have gradients and moments."""
    how = {"loop": replace(LOOP, steps=3, preview_every=3), "trainable": "lora"}
    distil(tmp_path / "one", mixer="confidence", **how)
    distil_as_two(tmp_path / "two", sharded=True, **how)
    assert_same_losses(tmp_path / "two", tmp_path / "one")
    one, two = (load_file(tmp_path / name / "preview-000003.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys() and any(".lora_A" in name for name in one)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=3e-4, msg=name)


@pytest.mark.parametrize("back", [True, False])
def test_runs_go_on_in_the_other_layout(tmp_path: Path, sharded: Path, alone: Path, back: bool) -> None:
    """A run with sharded parameters is stopped and resumed in one process, and the other way round."""
    folder = shutil.copytree(sharded if back else alone, tmp_path / "half")
    saved_states(folder)[-1][1].unlink()
    assert saved_states(folder)[-1][0] == 4
    if back:
        distil(folder, mixer="confidence")
    else:
        distil_as_two(folder, sharded=True)
    assert_same_losses(folder, alone)


# The command


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_checkpoint(path, make_networks(SMALL), CheckpointInfo("teacher", steps=4, ref_cfg=1.0, audio_cfg=2.0))
    return path


def command(teacher: Path, out: Path, *more: str) -> list[str]:
    small = ["--avatars.clips", "1", "--avatars.seconds", "0.5", "--avatars.workers", "1", "--batch", "2"]
    shapes = ["--control.tokens", "2", "--control.dim", "16", "--mixed-precision", "no", "--cpu"]
    return ["--teacher", str(teacher), "--out", str(out), *small, *shapes, *more]


def test_the_command_makes_a_student(teacher_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    config = parse(command(teacher_file, tmp_path, "--loop.steps", "2", "--loop.preview-every", "2"))
    student, info = load_checkpoint(run(config))
    assert info.role == "student" and info.steps == 6
    assert info.scale_ranges == ((1.0, 2.0), (1.0, 4.0))
    assert info.training["clips"] == {"high": 2, "moderate": 2}, "each in two versions"
    assert student.config.control.kind == "tokens"
    assert (tmp_path / "preview-000002.png").exists() and (tmp_path / "preview-000002.mp4").exists()


def test_the_first_steps_see_close_ups() -> None:
    task = make_task(Accelerator(cpu=True), 2, Objective())
    task.closeup_steps, task.closeup_cells = 1, 4
    seen = []
    task.module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[-1]))
    for step in range(2):
        task.losses(task.module, step, sample_generators(0, step, 0, 2))
    assert seen == [4, 8]


@pytest.mark.parametrize(
    ("locator", "cells", "words"),
    [(True, 4, "needs whole pictures, with the face's place"), (False, 3, "Close-ups of 3 cells do not fit 'small'")],
)
def test_close_ups_that_do_not_fit(tmp_path: Path, locator: bool, cells: int, words: str) -> None:
    config = replace(SMALL, condition=replace(SMALL.condition, face_locator=locator))
    save_checkpoint(tmp_path / "teacher.safetensors", Networks(config), CheckpointInfo("teacher"))
    wanted = ["--closeup-steps", "1", "--closeup-cells", str(cells)]
    with pytest.raises(FadaError, match=words):
        run(parse(command(tmp_path / "teacher.safetensors", tmp_path, *wanted)))


def test_dry_run_tells_and_writes_no_training(
    teacher_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("espeakng_loader")
    with caplog.at_level("INFO"):
        assert run(parse(command(teacher_file, tmp_path, "--dry-run", "--avatars.clips", "500"))) is None
    for told in (
        "2 high, 2 moderate (only the first ones, for a dry run)",
        "M parameters",
        "GB for weights",
        "learning rate",
        "one step: loss",
    ):
        assert told in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert len(list((tmp_path / "cache").glob("data/*/*.safetensors"))) == 4, "not the whole data set"


def test_a_dry_run_looks_at_the_first_usable_clips(teacher_file: Path, tmp_path: Path) -> None:
    film(tmp_path / "a.mp4", frames=20)
    rows = [row("gone", video="b.mp4"), *(row(f"clip-{i}") for i in range(5))]
    data = ("--data", str(manifest(tmp_path, *rows)))
    assert run(parse(command(teacher_file, tmp_path / "run", "--dry-run", *data))) is None
    cached = (tmp_path / "run" / "cache" / "latents").glob("*/*.safetensors")
    assert sorted(path.stem for path in cached) == ["clip-0", "clip-1"]


@pytest.mark.parametrize("option", ["--batch", "--avatars.clips", "--loop.save-every", "--loop.keep-states"])
def test_zeros_are_refused_before_the_work(
    teacher_file: Path, tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(command(teacher_file, tmp_path, option, "0"))
    assert ended.value.code == 2
    assert f"{option[2:].split('.')[-1].replace('-', '_')} is 0; give" in " ".join(capsys.readouterr().err.split())


def test_settings_come_from_preset_then_yaml_then_command_line(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("preset: sd15\nbatch: 3\nloop:\n  steps: 77\nobjective:\n  audio_cfg: [1, 5]\ncpu: true\n")
    config = parse(["--out", "x", "--config", str(file), "--batch", "5"])
    assert (config.batch, config.loop.steps, config.objective.audio_cfg, config.cpu) == (5, 77, (1.0, 5.0), True)
    assert config.loop.learning_rate == 1e-5 and config.gradient_checkpointing


@pytest.mark.parametrize(
    ("text", "message"),
    [("- a", "no settings"), ("a: [", "not YAML"), (None, "cannot be read"), ("preset: [1]", r"no preset \[1\]")],
)
def test_bad_yaml_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "run.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(FadaError, match=message):
        parse(["--out", "x", "--config", str(file)])


def test_only_teachers_are_distilled(tmp_path: Path) -> None:
    student = make_student(make_networks(SMALL), ControlConfig(kind="tokens", tokens=2, dim=16))
    save_checkpoint(tmp_path / "student.safetensors", student, CheckpointInfo("student"))
    with pytest.raises(FadaError, match="starts from a teacher"):
        run(parse(command(tmp_path / "student.safetensors", tmp_path)))


def test_unknown_data_is_refused(teacher_file: Path, tmp_path: Path) -> None:
    with pytest.raises(FadaError, match="no data set"):
        run(parse(command(teacher_file, tmp_path, "--data", "nothing.txt")))
