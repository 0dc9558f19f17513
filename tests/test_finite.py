"""Values that are not finite end the work with a message, wherever they come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch import Tensor, nn

from fada_core.checkpoint import CheckpointInfo
from fada_core.errors import FadaError
from fada_core.generate.options import GenerateConfig
from fada_core.generate.video import generate
from fada_core.media.video import read_video
from fada_core.pipeline import Pipeline
from fada_core.speed.overlap import decode_ahead
from fada_core.system import default_dtype
from tests.support.networks import SMALL, make_networks


def make_pipeline(dtype: torch.dtype = torch.float32) -> Pipeline:
    return Pipeline(make_networks(SMALL).to(dtype), CheckpointInfo("teacher", steps=2))


def spoilt(module: nn.Module, value: float) -> None:
    """The networks with `value` as a weight of the first convolution."""
    weight = next(layer.weight for layer in module.modules() if isinstance(layer, nn.Conv2d))
    with torch.no_grad():
        weight.view(-1)[0] = value


def sampled(pipe: Pipeline, clips: int = 3) -> list[Tensor]:
    cond = pipe.encode(torch.zeros(1, 3, 40, 40), torch.zeros(640 * SMALL.clip_frames * clips))
    return list(pipe.sample(cond))


def test_latents_that_are_no_numbers_are_refused() -> None:
    pipe = make_pipeline()
    spoilt(pipe.networks.denoising_unet, float("nan"))
    with pytest.raises(FadaError, match="The latents are not finite.*checkpoint is damaged"):
        sampled(pipe)


def test_an_overflow_in_half_precision_says_what_to_do() -> None:
    pipe = make_pipeline()
    spoilt(pipe.networks.denoising_unet, 6e4)
    assert len(sampled(pipe)) == 3  # float32 stands it
    with pytest.raises(FadaError, match="overflows in float16: use float32 or bfloat16"):
        sampled(Pipeline(pipe.networks.to(torch.float16), pipe.info))


def test_frames_that_are_no_numbers_are_refused() -> None:
    pipe = make_pipeline()
    latents = sampled(pipe)
    frames = pipe.decode(latents[0])
    spoilt(pipe.networks.vae.decoder, float("inf"))
    with pytest.raises(FadaError, match="The frames are not finite"):
        pipe.decode(latents[0])
    assert not pipe.decode(latents[0], checked=False).isfinite().all()
    ahead = decode_ahead(lambda clip: frames if clip is latents[0] else frames * float("nan"), latents, pipe.device)
    assert len(next(ahead)) == len(frames)
    with pytest.raises(FadaError, match="The frames are not finite"):
        next(ahead)


def test_a_video_ends_with_its_last_good_frame(tmp_path: Path) -> None:
    pipe = make_pipeline()
    step = pipe.denoiser.step
    calls = iter(range(100))

    def fails_later(*arguments: object) -> tuple[Tensor, Tensor | None]:
        prediction, following = step(*arguments)
        return prediction * (float("nan") if next(calls) >= 2 else 1), None  # from the second clip on

    pipe.denoiser.step = fails_later
    Image.new("RGB", (40, 40)).save(tmp_path / "face.png")
    soundfile.write(tmp_path / "speech.wav", np.zeros(640 * SMALL.clip_frames * 3), 16000)
    config = GenerateConfig(image=tmp_path / "face.png", audio=tmp_path / "speech.wav", out=tmp_path / "out.mp4")
    with pytest.raises(FadaError, match="The latents are not finite"):
        generate(config, pipe=pipe)
    assert len(list(read_video(tmp_path / "out.mp4"))) == SMALL.clip_frames


def test_half_precision_is_never_chosen_unasked() -> None:
    assert default_dtype(torch.device("cpu")) == torch.float32
    assert default_dtype(torch.device("cuda")) in (torch.float32, torch.bfloat16) or not torch.cuda.is_available()
