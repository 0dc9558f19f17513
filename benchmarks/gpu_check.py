"""Checks of the fast ways to compute on this machine, as pass/fail lines, then the benchmark. Needs no network.

python -m benchmarks.gpu_check             from the repository's folder; on a GPU also at Stable Diffusion 1.5's size

Every way to compute makes the same chained video, several clips long, so that errors add up, and is compared with the
plain way of published code (`fada_core.bench.published`):

- float32: the largest difference of two latents is at most 1e-4 (portrait; 1e-3 at SD 1.5's size) of the largest one;
- half precision: measured against the plain way in float32, the root mean square error of the video's latents is at
  most 1.25 times as large as the plain way's own in that precision. The weights are random; what half precision costs
  in pictures is a question for a trained model;
- overlap: frames that were decoded on a stream of their own while the next clip was denoised are the same bytes;
- offload: with the weights of all but the denoising UNet on the host the video is the same;
- no waiting (CUDA): between a clip's first and last step the host never waits for the device;
- recorded, fused (CUDA): the way "graph" did not go back to the networks as they are, nor to torch's own norms and
  gates, which it may, with a line of log.

The exit status is 1 if a check failed.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from fada_core.bench.__main__ import PAPER, BenchConfig, run
from fada_core.bench.models import bench_config, make_job, random_pipeline
from fada_core.bench.report import device_name, markdown
from fada_core.bench.variants import build_variant
from fada_core.config import ModelConfig
from fada_core.job import Job
from fada_core.media.image import to_uint8
from fada_core.models.kernels import KernelModule
from fada_core.pipeline import Pipeline
from fada_core.settings import MODES, Mode, SamplingOptions
from fada_core.speed.fused_layers import FusedKernels
from fada_core.speed.offload import keep_on_host
from fada_core.speed.overlap import decode_ahead
from fada_core.system import default_device

CLIPS = 4
FLOAT32_BOUND = {"portrait": 1e-4, "sd15": 1e-3}
HALF_BOUND = 1.25


def video(config: ModelConfig, mode: Mode, variant: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Latents of the chained video, (frames, c, h, w) float32 on the CPU."""
    pipe = random_pipeline(config, MODES[mode], device, dtype)
    cond = make_job(config, CLIPS).encode(pipe)
    steps = 4 if mode == "teacher" else pipe.info.steps
    options = SamplingOptions(mode=mode, steps=steps, ref_cfg=PAPER.ref_cfg, audio_cfg=PAPER.audio_cfg)
    clips = list(build_variant(variant, pipe).sample(cond, options))  # none may touch another's
    return torch.cat(clips).cpu()


def check(
    config: ModelConfig, mode: Mode, variants: list[str], device: torch.device, halves: list[torch.dtype]
) -> bool:
    """One line for every variant and precision; whether all passed."""

    def make(variant: str, dtype: torch.dtype) -> Tensor:
        gc.collect()  # the model before, whose compiled parts are a cycle
        return video(config, mode, variant, dtype, device)

    exact = make("published", torch.float32)
    passed = True
    for variant in variants:
        error = float((make(variant, torch.float32) - exact).abs().max() / exact.abs().max())
        passed &= _line(config, mode, variant, torch.float32, error, FLOAT32_BOUND[config.name])
    for dtype in halves:
        plain = _rms(make("published", dtype) - exact) / _rms(exact)
        for variant in variants:
            error = _rms(make(variant, dtype) - exact) / _rms(exact)
            passed &= _line(config, mode, variant, dtype, error, HALF_BOUND * plain)
    return passed


def check_placement(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> bool:
    """One line for overlap, offloading and the like, in fast mode; whether all passed."""
    pipe = random_pipeline(config, "student", device, dtype)
    cond = make_job(config, CLIPS).encode(pipe)

    def clips() -> Iterator[Tensor]:
        return pipe.sample(cond, "fast", ref_cfg=PAPER.ref_cfg, audio_cfg=PAPER.audio_cfg)

    exact = [latents.cpu() for latents in clips()]
    ahead = torch.cat(list(decode_ahead(partial(pipe.decode, checked=False), clips(), device)))
    plain = torch.cat([to_uint8(pipe.decode(latents)) for latents in exact])
    passed = _line(config, "fast", "overlap", dtype, float((ahead != plain).float().mean()), 0.0)
    if device.type == "cuda":
        for compute in ("eager", "graph"):
            passed &= _line(config, "fast", f"no waiting, {compute}", dtype, float(_waits(pipe, cond, compute)), 0.0)
        passed &= _line(config, "fast", "recorded", dtype, float(pipe.denoiser.step.recorded != 1), 0.0)
        layers = [part for part in pipe.networks.modules() if isinstance(part, KernelModule)]
        fused = all(isinstance(layer.kernels, FusedKernels) for layer in layers)
        passed &= _line(config, "fast", "fused", dtype, float(not fused), 0.0)
        next(clips())  # eager again, as offloading hooks into the layers
    keep_on_host(pipe.networks.cpu(), device)
    error = _rms(torch.cat([latents.cpu() for latents in clips()]) - torch.cat(exact)) / _rms(torch.cat(exact))
    return passed & _line(config, "fast", "offload", dtype, error, 1e-6)


def _waits(pipe: Pipeline, job: Job, compute: str) -> bool:
    """Whether the host waits for the device between the steps of a clip that is not the first."""
    one_clip = replace(job, audio_features=job.audio_features[:1])

    def watch(step: int, steps: int, latents: Tensor) -> None:
        torch.cuda.set_sync_debug_mode("default" if step == steps else "error")

    next(pipe.sample(one_clip, "fast", compute=compute))
    try:
        next(pipe.sample(one_clip, "fast", compute=compute, callback=watch))
    except RuntimeError as error:
        sys.stdout.write(f"{error}\n")
        return True
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return False


def _rms(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt())


def _line(config: ModelConfig, mode: str, variant: str, dtype: torch.dtype, error: float, bound: float) -> bool:
    passed = error <= bound  # not so if it is NaN
    name = str(dtype).removeprefix("torch.")
    verdict = "pass" if passed else "FAIL"
    sys.stdout.write(f"{verdict}  {config.name} {mode} {variant} {name}: error {error:.2e}, bound {bound:.2e}\n")
    sys.stdout.flush()
    return passed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checks-only", action="store_true", help="leave out the benchmark")
    only = parser.parse_args().checks_only
    device = default_device()
    gpu = device.type == "cuda"
    variants = ["eager", "compile", "graph"] if gpu else ["eager"]
    halves = [torch.bfloat16, torch.float16] if gpu else [torch.bfloat16]
    sys.stdout.write(f"{device_name(device)}, torch {torch.__version__}\n")

    # Convolutions in TF32, the default, have errors of 1e-3; the check is of the code, not of the number format.
    torch.backends.cudnn.allow_tf32 = False
    passed = True
    for name in ("portrait", "sd15") if gpu else ("portrait",):
        for mode in ("teacher", "fast"):
            role = MODES[mode]
            # Without a GPU the check is about equality only; a narrow model shows it in seconds.
            config = bench_config(name, role) if gpu else bench_config(name, role, width=4, size=64)
            passed &= check(config, mode, variants, device, halves)
        passed &= check_placement(config, device, halves[0] if gpu else torch.float32)
    torch.backends.cudnn.allow_tf32 = True

    if not only:
        asked = BenchConfig(modes=("teacher", "fast"), compare=",".join([*variants, "published"]), repeats=2)
        runs = [asked, replace(asked, preset="sd15")] if gpu else [replace(asked, width=4, size=64)]
        for bench in runs:
            sys.stdout.write(f"\n{markdown(*run(bench))}")
            sys.stdout.flush()
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
