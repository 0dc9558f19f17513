"""Our networks compute what EchoMimic's (arXiv 2407.08136) compute: numbers of the original code at a small width.

The environment variable FADA_PARITY_ECHOMIMIC names another folder of the same form, for other sizes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fada_core.checkpoint import as_linear
from fada_core.config import ECHOMIMIC, AudioEncoderConfig, ModelConfig
from fada_core.models.inputs import ClipInputs
from fada_core.models.networks import Networks
from fada_core.models.reference import ReferenceUNet
from fada_core.models.unet import DenoisingUNet
from fada_core.sampling.schedule import NoiseSchedule
from tests.support.recipe import draw_weights, face_channels

FIXTURE = Path(os.environ.get("FADA_PARITY_ECHOMIMIC", Path(__file__).parents[1] / "fixtures" / "echomimic"))
TOLERANCE = 1e-4
HALF_TOLERANCE = 0.1
"""Relative RMS error of any step's prediction in bfloat16, measured on a CPU: 2.6 to 4.7 %, growing with the steps."""


def small_config(info: dict[str, Any], shapes: dict[str, list[int]]) -> ModelConfig:
    sizes, base = info["config"], info["base"]
    tokens, width = sizes["audio_tokens"], sizes["cross_attention_dim"]
    return replace(
        ECHOMIMIC,
        size=sizes["latent"] * ECHOMIMIC.vae.downscale,
        clip_frames=sizes["frames"],
        unet=replace(
            ECHOMIMIC.unet,
            block_out_channels=tuple(sizes["block_out_channels"]),
            layers_per_block=base["layers_per_block"],
            num_heads=sizes["attention_head_dim"],
            norm_groups=base["norm_num_groups"],
            audio_token_dim=width,
        ),
        condition=replace(ECHOMIMIC.condition, audio_tokens=tokens, face_channels=face_channels(shapes)),
        # Not part of this: encoders small enough to be made in no time.
        audio=AudioEncoderConfig(kind="whisper", layers=tokens, dim=width),
        vae=replace(ECHOMIMIC.vae, kind="tiny", width=8),
    )


class Case:
    """The fixture's inputs, and our networks with the weights of its recipe."""

    def __init__(self) -> None:
        self.info = json.loads((FIXTURE / "info.json").read_text())
        self.inputs = load_file(FIXTURE / "inputs.safetensors")
        shapes = json.loads((FIXTURE / "shapes.json").read_text())
        self.config = small_config(self.info, shapes)
        self.networks = Networks(self.config).requires_grad_(False)
        for name, seed in self.info["seeds"].items():
            wanted = {k.removeprefix(f"{name}."): v for k, v in shapes.items() if k.startswith(f"{name}.")}
            network = self.networks.get_submodule(name)
            missing, unknown = network.load_state_dict(
                as_linear(draw_weights(wanted, seed), network.state_dict()), strict=False
            )
            assert not unknown and all(key.endswith("pos_encoder.pe") for key in missing)

    def sample(self, guided: bool) -> tuple[list[Tensor], list[Tensor]]:
        """Predictions (batch, frames, c, h, w) and latents (1, frames, c, h, w) of every DDIM step.

        `guided`: the unconditional and the conditional branch in one batch of 2.
        """
        drop = torch.tensor([True, False] if guided else [False])
        batch = len(drop)
        portrait = self.inputs["ref_latents"].expand(batch, -1, -1, -1)
        inputs = ClipInputs(
            portrait,
            portrait.new_zeros(batch, 0, *portrait.shape[1:]),
            self.inputs["audio"][:, :, None].expand(batch, -1, -1, -1, -1),
            drop_reference=drop,
            drop_audio=drop,
            face_box=self.inputs["face_mask"][:, :, 0].expand(batch, -1, -1, -1),
        )
        conditioning = self.networks.condition(inputs)
        schedule = NoiseSchedule(self.config.schedule)
        steps, scale = self.info["config"]["steps"], self.info["config"]["guidance_scale"]
        latents = self.inputs["latents"].transpose(1, 2)
        predictions, states = [], []
        for t in schedule.timesteps(steps):
            rows, timesteps = latents.expand(batch, -1, -1, -1, -1), torch.full((batch,), t)
            output = self.networks.predict(rows, timesteps, *schedule.alpha_sigma(timesteps), conditioning)
            predictions.append(output)
            combined = output[:1] + scale * (output[1:] - output[:1]) if guided else output
            latents = schedule.ddim_step(combined, latents, t, schedule.previous(t, steps))
            states.append(latents)
        return predictions, states


@pytest.fixture
def case() -> Case:
    return Case()


def expected_of(guided: bool) -> dict[str, Tensor]:
    return load_file(FIXTURE / f"outputs_{'cfg' if guided else 'acc'}.safetensors")


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=0.0)


def test_face_locator(case: Case) -> None:
    expected = expected_of(guided=True)["face_locator"]
    close(case.networks.face_locator(case.inputs["face_mask"][:, :, 0])[:, :, None], expected)


@pytest.mark.parametrize("guided", [True, False], ids=["guided", "accelerated"])
def test_predictions_and_latents_of_every_step(case: Case, guided: bool) -> None:
    expected = expected_of(guided)
    for i, (prediction, latents) in enumerate(zip(*case.sample(guided), strict=True)):
        close(prediction.transpose(1, 2), expected[f"pred_{i}"])
        close(latents.transpose(1, 2), expected[f"latents_{i}"])


@pytest.mark.parametrize("guided", [True, False], ids=["guided", "accelerated"])
def test_bfloat16_stays_near(case: Case, guided: bool) -> None:
    expected = expected_of(guided)
    case.networks.bfloat16()
    for i, prediction in enumerate(case.sample(guided)[0]):
        exact = expected[f"pred_{i}"]
        error = (prediction.transpose(1, 2) - exact).square().mean().sqrt() / exact.square().mean().sqrt()
        assert error < HALF_TOLERANCE


def test_sizes_are_those_of_echomimic() -> None:
    """Facts of the published weights at full width: tensors and millions of elements."""
    for network, tensors, millions in ((DenoisingUNet, 1274, 1304.4), (ReferenceUNet, 570, 815.5)):
        state = network(ECHOMIMIC, device="meta").state_dict()
        assert len(state) == tensors
        assert round(sum(value.numel() for value in state.values()) / 1e6, 1) == millions


@torch.no_grad()
def test_arithmetic_of_the_published_size() -> None:
    """What the README says of the cost, in TFLOP: a window of 12 frames at 512 pixels, once and in every evaluation."""
    config, meta = ECHOMIMIC, {"device": "meta"}
    networks = Networks(config, **meta).to("meta")
    frames, cells = config.clip_frames, config.size // config.vae.downscale
    latents, face = torch.empty(frames, 4, cells, cells, **meta), torch.empty(1, 1, config.size, config.size, **meta)
    audio = torch.empty(1, frames, config.condition.audio_tokens, config.unet.audio_token_dim, **meta)

    def count(work: Callable[[], Any]) -> tuple[float, Any]:
        with FlopCounterMode(display=False) as counter:
            result = work()
        return counter.get_total_flops() / 1e12, result

    once, conditions = count(
        lambda: networks.denoising_unet.prepare(
            audio_tokens=audio,
            reference=networks.reference_unet(latents[:1], None),
            face_latents=networks.face_locator(face),
        )
    )
    evaluation, _ = count(lambda: networks.denoising_unet(latents, torch.empty(1, **meta), conditions))
    decoding, _ = count(lambda: networks.vae.decode(latents[:1]))
    assert (round(once, 1), round(evaluation, 1), round(decoding, 1)) == (0.9, 14.6, 2.5)
    new = frames - config.clip_overlap
    assert round((6 * evaluation + new * decoding) / 1000 * config.fps / new, 1) == 0.3  # PFLOP for a second of video
