"""Compilation, CUDA graphs, overlap and offloading: none of them changes a video."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fada_core import load
from fada_core.avatars import sample
from fada_core.bench.models import make_job, random_pipeline
from fada_core.checkpoint import CheckpointInfo, save_checkpoint
from fada_core.config import SD15, ControlConfig, ModelConfig
from fada_core.errors import FadaError
from fada_core.media.image import to_uint8
from fada_core.models.resnet import ResnetBlock
from fada_core.pipeline import Pipeline
from fada_core.speed.compute import COMPILE_FROM_EVALUATIONS, choose
from fada_core.speed.fused_layers import fuse_layers, restore_layers
from fada_core.speed.overlap import BackgroundCalls, decode_ahead
from fada_core.tensors import map_tensors
from tests.support.networks import IDENTITY, SMALL, make_networks

CPU = torch.device("cpu")
BFLOAT16_RMS = 0.005
"""Of pictures in -1..1, in any clip of a chained video: measured 0.0017 in all of the first four, of one step
each, on a CPU."""
STUDENT = replace(SMALL, control=ControlConfig("tokens", 2, 16))


def make_pipeline(config: ModelConfig = STUDENT) -> Pipeline:
    return random_pipeline(config, "teacher" if config.control.kind == "none" else "student", CPU, torch.float32)


def video(pipe: Pipeline, clips: int = 3, compute: str = "eager") -> Tensor:
    cond = make_job(pipe.config, clips).encode(pipe)
    clips = pipe.sample(cond, steps=2, ref_cfg=2.0, audio_cfg=6.5, compute=compute)
    return torch.cat([pipe.decode(latents) for latents in clips])


def compile_with(monkeypatch: pytest.MonkeyPatch, backend: Callable[..., Any]) -> None:
    """Replace the real compilers, which take minutes."""
    torch.compiler.reset()
    real = torch.compile

    def patched(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        return real(function, **(options | {"backend": backend}))

    monkeypatch.setattr(torch, "compile", patched)


@pytest.mark.parametrize("config, graphs", [(STUDENT, 2), (IDENTITY, 3)], ids=["student", "hallo_like"])
def test_what_repeats_compiles_whole_and_once(config, graphs, monkeypatch):
    """One graph for the steps and one for the decoder, over all clips; and one more where motion frames go through
    pictures, which are fewer than a clip's."""
    counter = CompileCounter()
    compile_with(monkeypatch, counter)
    exact = video(make_pipeline(config))
    pipe = make_pipeline(config)
    torch.testing.assert_close(video(pipe, compute="compile"), exact, atol=1e-5, rtol=0)
    assert counter.frame_count == graphs
    calls = counter.op_count
    assert torch.equal(video(pipe), exact)  # back to the networks as they are
    assert counter.op_count == calls


def stand_in(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Replace the kernels, which Triton would have to interpret (test_kernels.py tests them), and count their calls."""
    calls: Counter[str] = Counter()

    def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, *, silu: bool) -> Tensor:
        calls["silu" if silu else "norm"] += 1
        made = F.group_norm(x, groups, weight, bias, eps)
        return F.silu(made) if silu else made

    def geglu(projected: Tensor) -> Tensor:
        calls["geglu"] += 1
        value, gate = projected.chunk(2, dim=-1)
        return value * F.gelu(gate)

    kernels = SimpleNamespace(group_norm=group_norm, geglu=geglu)
    monkeypatch.setattr("fada_core.speed.fused_layers.load_kernels", lambda *_: kernels)
    return calls


def replay_on_cpu(monkeypatch: pytest.MonkeyPatch, *, spoil: float = 0.0, refuse: str = "") -> list[str]:
    """Emulates a CUDA graph without CUDA: it reads and writes fixed memory only."""
    events: list[str] = []

    def record(step: Callable[[], Any], device: torch.device, pool: Any) -> tuple[Callable[[], None], Any, Any]:
        events.append("record")
        if refuse:
            raise RuntimeError(refuse)
        made = step()

        def run() -> None:
            events.append("replay")
            for mine, each in zip(made, step(), strict=True):
                mine.copy_(each + spoil)

        return run, made, pool

    monkeypatch.setattr("fada_core.speed.cuda_graph.record", record)
    stand_in(monkeypatch)
    monkeypatch.setattr("fada_core.pipeline.choose", lambda way, *_: way)  # which knows that the CPU has no graphs
    return events


@pytest.mark.parametrize("config", [STUDENT, IDENTITY], ids=["student", "hallo_like"])
def test_a_recorded_step_is_replayed_for_all_clips(config, monkeypatch):
    """It runs once normally and once for recording, and is then replayed; the next clip does not overwrite results."""
    events = replay_on_cpu(monkeypatch)
    pipe = make_pipeline(config)
    cond = make_job(config, 3).encode(pipe)
    how = {"mode": pipe.modes[0], "steps": 3}
    exact = list(pipe.sample(cond, **how))
    plain, calls = pipe.networks.predict, []
    monkeypatch.setattr(pipe.networks, "predict", lambda *args: calls.append(1) or plain(*args))
    torch.testing.assert_close(list(pipe.sample(cond, **how, compute="graph")), exact, atol=1e-5, rtol=0)
    assert events == ["record"] + ["replay"] * 8  # the first compares
    assert len(calls) == 2 + len(events)  # so many are the emulation's own


KL = replace(SMALL, unet=replace(SMALL.unet, in_channels=4), vae=SD15.vae)
"""The same with Stable Diffusion's autoencoder, which has norms."""


@pytest.mark.parametrize("config", [STUDENT, IDENTITY, KL], ids=["student", "hallo_like", "kl"])
def test_fused_kernels_make_the_same_video_and_go(config, monkeypatch):
    calls = stand_in(monkeypatch)
    pipe = make_pipeline(config)
    exact, blocks = video(pipe, clips=1), list(pipe.networks.modules())
    fuse_layers(pipe.networks, CPU, torch.float32)
    torch.testing.assert_close(video(pipe, clips=1), exact, atol=1e-5, rtol=0)
    restore_layers(pipe.networks)
    assert calls["silu"] > 0 and calls["norm"] > 0 and calls["geglu"] > 0
    before = calls.copy()
    assert torch.equal(video(pipe, clips=1), exact)
    assert calls == before and list(pipe.networks.modules()) == blocks


def test_norms_that_the_kernels_do_not_fit_stay_as_they_are(monkeypatch):
    """Tensors in another memory format, and ComfyUI's layers with patches of their weights."""
    calls = stand_in(monkeypatch)
    block = ResnetBlock(8, 8, 4, groups=2).requires_grad_(False)
    hidden, time = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(0)), torch.ones(2, 4)
    ordered, exact = hidden.contiguous(memory_format=torch.channels_last), block(hidden, time)
    fuse_layers(block, CPU, torch.float32)
    torch.testing.assert_close(block(hidden, time), exact, atol=1e-6, rtol=0)
    assert not calls
    block.to(memory_format=torch.channels_last)
    torch.testing.assert_close(block(ordered, time), exact, atol=1e-6, rtol=0)
    assert calls == {"silu": 2}
    block.norm1.weight_function = [lambda weight: weight]
    torch.testing.assert_close(block(ordered, time), exact, atol=1e-6, rtol=0)
    assert calls == {"silu": 3}


def test_without_kernels_the_graph_is_recorded_all_the_same(monkeypatch, caplog):
    events = replay_on_cpu(monkeypatch)

    def missing(*_: Any) -> Any:
        raise ModuleNotFoundError("No module named 'triton'")

    monkeypatch.setattr("fada_core.speed.fused_layers.load_kernels", missing)
    pipe = make_pipeline()
    with caplog.at_level(logging.WARNING, "fada.speed"):
        found = video(pipe, compute="graph")
    torch.testing.assert_close(found, video(pipe), atol=1e-5, rtol=0)
    assert "record" in events
    lines = [record.getMessage() for record in caplog.records if record.name == "fada.speed"]
    assert lines == ["Group norms and GEGLUs are not fused: No module named 'triton'"]


class Elsewhere(TorchDispatchMode):
    """Collects the operations on tensors of another device."""

    def __init__(self, device_type: str) -> None:
        super().__init__()
        self.device_type, self.found = device_type, set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, made)) if isinstance(leaf, Tensor)]
        if any(tensor.device.type != self.device_type for tensor in tensors):
            self.found.add(str(function))
        return made


@pytest.mark.parametrize("config", [SMALL, STUDENT, IDENTITY], ids=["teacher", "student", "hallo_like"])
def test_a_step_neither_reads_from_the_host_nor_waits_for_values(config, monkeypatch):
    """A recording could contain neither. The meta device stands for a device that is not the host."""
    pipe, calls = make_pipeline(config), []
    plain = pipe.denoiser.step
    pipe.denoiser.step = lambda *args: calls.append(args) or plain(*args)
    video(pipe, clips=1)
    elsewhere = map_tensors(lambda tensor: tensor.to("meta"), calls[0])
    pipe.networks.to("meta")
    with torch.inference_mode(), Elsewhere("meta") as watch:
        plain(*elsewhere)  # raises where a value is asked for
    assert not watch.found


def test_a_step_is_recorded_anew_where_weights_have_moved(monkeypatch):
    events = replay_on_cpu(monkeypatch)
    pipe = make_pipeline()
    video(pipe, clips=1, compute="graph")
    assert events.count("record") == 1
    for parameter in pipe.networks.parameters():
        parameter.data = parameter.data.clone() * 0.9
    torch.testing.assert_close(video(pipe, compute="graph"), video(pipe), atol=1e-5, rtol=0)
    assert events.count("record") == 2


def test_released_recordings_are_made_again(monkeypatch):
    events = replay_on_cpu(monkeypatch)
    pipe = make_pipeline()
    exact = video(pipe, compute="graph")
    step = pipe.denoiser.step
    assert step.recorded == 1
    pipe.release()
    assert step.recorded == 0
    torch.testing.assert_close(video(pipe, compute="graph"), exact, atol=1e-5, rtol=0)
    assert events.count("record") == 2


@pytest.mark.parametrize(
    "failure, reason",
    [({"refuse": "operation not permitted"}, "operation not permitted"), ({"spoil": 3.0}, "were off by 3")],
    ids=["refused", "wrong"],
)
def test_what_cannot_be_replayed_runs_as_before(failure, reason, monkeypatch, caplog):
    replay_on_cpu(monkeypatch, **failure)
    pipe = make_pipeline()
    with caplog.at_level(logging.WARNING, "fada.speed"):
        found = video(pipe, compute="graph")
    assert torch.equal(found, video(make_pipeline()))
    lines = [record.getMessage() for record in caplog.records if record.name == "fada.speed"]
    assert len(lines) == 1 and reason in lines[0]
    assert pipe.denoiser.step.recorded == 0


def test_a_compiled_step_is_replayed_where_there_are_graphs(monkeypatch):
    """It is compiled once, for its inputs and for the recording's memory."""
    events, counter = replay_on_cpu(monkeypatch), CompileCounter()
    monkeypatch.setattr("fada_core.speed.compute._has_graphs", lambda device: True)
    compile_with(monkeypatch, counter)
    pipe = make_pipeline()
    torch.testing.assert_close(video(pipe, compute="compile"), video(make_pipeline()), atol=1e-5, rtol=0)
    assert events.count("record") == 1 and events.count("replay") > 1
    assert counter.frame_count == 2  # the step's and the decoder's


def test_compiled_networks_may_change_between_two_videos(monkeypatch):
    compile_with(monkeypatch, CompileCounter())
    pipe = make_pipeline()
    video(pipe, compute="compile")
    for parameter in pipe.networks.parameters():
        parameter.data *= 0.9
    torch.testing.assert_close(video(pipe, compute="compile"), video(pipe), atol=1e-5, rtol=0)
    pipe.networks.bfloat16()
    torch.testing.assert_close(video(pipe, compute="compile"), video(pipe), atol=1e-5, rtol=0)


def test_what_cannot_be_compiled_runs_as_before(monkeypatch, caplog):
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler here")

    compile_with(monkeypatch, broken)
    pipe = make_pipeline()
    with caplog.at_level(logging.WARNING, "fada.speed"):
        found = video(pipe, compute="compile")
    assert torch.equal(found, video(make_pipeline()))
    lines = [record.getMessage() for record in caplog.records if record.name == "fada.speed"]
    assert len(lines) == 2  # the step's and the decoder's, once each
    assert lines[0].startswith("The denoising step runs uncompiled: ") and "no compiler here" in lines[0]


def test_which_way_is_chosen(monkeypatch):
    cuda, many = torch.device("cuda"), COMPILE_FROM_EVALUATIONS
    few = many - 1
    assert choose("auto", CPU, few) == choose("auto", torch.device("mps"), many) == "eager"
    assert choose("auto", CPU, many) == choose("auto", cuda, many) == "compile"
    assert choose("auto", cuda, few) == choose("graph", cuda, 1) == "graph"
    with pytest.raises(FadaError, match="needs a CUDA device, not 'cpu'; choose eager"):
        choose("graph", CPU, 1)
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert choose("auto", cuda, few) == "eager"
    with pytest.raises(FadaError, match="choose auto or one of eager, compile, graph"):
        video(make_pipeline(), compute="fastest")


@pytest.mark.parametrize("config", [STUDENT, IDENTITY], ids=["student", "hallo_like"])
def test_offloaded_weights_make_the_same_video(config, tmp_path):
    path = tmp_path / "model.safetensors"
    info = CheckpointInfo("student" if config is STUDENT else "teacher")
    save_checkpoint(path, make_networks(config), info, dtype=torch.float32)
    pipe = load(path, "cpu", offload=True)
    resting = {name.split(".")[0] for name, p in pipe.networks.named_parameters() if p.device.type == "meta"}
    assert resting == {name for name, part in pipe.networks.named_children() if list(part.parameters())} - {
        "denoising_unet"
    }
    exact = load(path, "cpu")
    torch.testing.assert_close(video(pipe), video(exact), atol=1e-6, rtol=0)


def test_offloaded_networks_compile_where_they_can(monkeypatch, tmp_path):
    path, counter = tmp_path / "model.safetensors", CompileCounter()
    save_checkpoint(path, make_networks(STUDENT), CheckpointInfo("student"), dtype=torch.float32)
    compile_with(monkeypatch, counter)
    found = video(load(path, "cpu", offload=True), compute="compile")
    torch.testing.assert_close(found, video(load(path, "cpu")), atol=1e-5, rtol=0)
    assert counter.frame_count == 1  # of the step, as the denoising UNet stays; the decoder comes and goes


def test_decoding_takes_what_memory_there_is(monkeypatch, caplog):
    pipe = make_pipeline()
    latents = torch.randn(7, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    exact, decode, taken = pipe.decode(latents), pipe.networks.vae.decode, []

    def short(part: Tensor) -> Tensor:
        taken.append(len(part))
        if len(part) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(part)

    monkeypatch.setattr(pipe.networks.vae, "decode", short)
    with caplog.at_level(logging.INFO, "fada.pipeline"):
        torch.testing.assert_close(pipe.decode(latents), exact, atol=1e-6, rtol=0)
    assert taken == [7, 4, 2, 2, 2, 1]
    assert "decoding 2 frames at a time" in caplog.text
    taken.clear()
    torch.testing.assert_close(pipe.decode(latents), exact, atol=1e-6, rtol=0)
    assert taken == [2, 2, 2, 1]  # the next clip does not run out of memory first


def test_decoding_ends_in_tiles(monkeypatch, caplog):
    """Stable Diffusion's autoencoder, when even a single picture does not fit into memory."""
    pipe = make_pipeline(KL)
    vae = pipe.networks.vae
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    exact, taken = pipe.decode(latents), []

    def full(part: Tensor) -> Tensor:
        taken.append(len(part))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(vae, "decode", full)
    with caplog.at_level(logging.WARNING, "fada.pipeline"):
        torch.testing.assert_close(pipe.decode(latents), exact, atol=1e-5, rtol=0)  # smaller than a tile
        pipe.decode(latents)
    assert taken == [2, 2, 2, 1] and caplog.text.count("decoding in tiles") == 1
    vae.kl.tile_sample_min_size, vae.kl.tile_latent_min_size = 32, 4
    tiled = pipe.decode(latents)
    assert tiled.shape == exact.shape == (2, 3, 64, 64)
    alike = torch.corrcoef(torch.stack([tiled.flatten(), exact.flatten()]))[0, 1]
    assert 0.7 < alike < 0.9999  # each tile is half of the side, so all of it is near a border
    monkeypatch.setattr(vae, "decode_tiled", full)
    with pytest.raises(FadaError, match="ran out of memory"):
        pipe.decode(latents)


def test_bfloat16_stays_near_over_a_chained_video():
    """With the shipped student, rounding errors do not accumulate from clip to clip."""
    pytest.importorskip("espeakng_loader")
    clip = sample(1_000_007, "high", 4 * 0.48, size=256, framing="face")
    portrait = clip.portrait[None].float() / 127.5 - 1

    def clips(dtype: torch.dtype) -> Tensor:
        pipe = load("portrait", "cpu", dtype)
        cond = pipe.encode(portrait, clip.waveform)
        return torch.stack([pipe.decode(latents) for latents in pipe.sample(cond, "fast", steps=1)])

    errors = (clips(torch.bfloat16) - clips(torch.float32)).square().mean((1, 2, 3, 4)).sqrt()
    assert errors.max() < BFLOAT16_RMS


def test_decoding_takes_no_more_than_is_free(monkeypatch):
    pipe = make_pipeline()
    latents = torch.randn(7, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    exact, decode, taken = pipe.decode(latents), pipe.networks.vae.decode, []
    monkeypatch.setattr(pipe.networks.vae, "decode", lambda part: taken.append(len(part)) or decode(part))
    for free, sizes in ((3.5, [3, 3, 1]), (0.5, [1] * 7), (100, [7])):
        each = pipe.networks.vae.picture_bytes(pipe.config.size, torch.float32)
        monkeypatch.setattr("fada_core.pipeline.free_bytes", lambda device, free=free, each=each: int(free * each))
        torch.testing.assert_close(pipe.decode(latents), exact, atol=1e-6, rtol=0)
        assert taken == sizes
        taken.clear()


def test_decoding_ahead_hands_out_every_clip_as_bytes():
    pipe = make_pipeline()
    clips = [torch.randn(n, 16, 8, 8, generator=torch.Generator().manual_seed(n)) for n in (4, 4, 2)]
    found = list(decode_ahead(pipe.decode, clips, CPU))
    assert [len(frames) for frames in found] == [4, 4, 2]
    assert all(torch.equal(a, to_uint8(pipe.decode(b))) for a, b in zip(found, clips, strict=True))

    def stopped() -> Iterator[Tensor]:
        yield clips[0]
        raise KeyboardInterrupt

    ahead = decode_ahead(pipe.decode, stopped(), CPU)
    assert torch.equal(next(ahead), found[0])
    with pytest.raises(KeyboardInterrupt):
        next(ahead)


def test_calls_behind_keep_their_order_and_their_errors():
    done: list[int] = []
    free, main = threading.Event(), threading.current_thread()

    def work(number: int) -> None:
        assert threading.current_thread() is not main
        free.wait(60)
        done.append(number)
        if number == 2:
            raise FadaError("The disk is full.")

    with pytest.raises(FadaError, match="disk is full"), BackgroundCalls() as behind:
        behind(work, 1)
        assert not done  # it goes on while this thread does
        free.set()
        behind(work, 2)
        assert done[0] == 1  # no more than one piece is held
        behind(work, 3)
    assert done == [1, 2]
    with pytest.raises(FadaError, match="disk is full"), BackgroundCalls() as behind:
        behind(work, 2)  # the last call's error comes at the end
