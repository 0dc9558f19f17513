"""Our networks compute what Hallo's (arXiv 2406.08801) compute: numbers of the original code at a small width.

The environment variable FADA_PARITY_HALLO names another folder of the same form, for other sizes.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fada_core.checkpoint import as_linear
from fada_core.config import SD15, AudioEncoderConfig, ModelConfig, ScheduleConfig
from fada_core.models.audio.mel import MEL_COLUMNS
from fada_core.models.audio.projection import window_features
from fada_core.models.inputs import ClipInputs
from fada_core.models.networks import Networks
from fada_core.sampling.schedule import NoiseSchedule
from tests.support.recipe import draw_weights, face_channels

FIXTURE = Path(os.environ.get("FADA_PARITY_HALLO", Path(__file__).parents[1] / "fixtures" / "hallo"))
TOLERANCE = 1e-4
HALF_TOLERANCE = 0.1
"""Relative RMS error of any step's prediction in bfloat16, measured on a CPU: 2.8 to 6.1 %, growing with the steps."""


def small_config(info: dict[str, Any], shapes: dict[str, list[int]]) -> ModelConfig:
    sizes, base = info["config"], info["unet_base"]
    audio_dim = sizes["audio_layers"] * sizes["audio_channels"]
    return replace(
        SD15,
        size=sizes["latent"] * SD15.vae.downscale,
        clip_frames=sizes["frames"],
        motion_frames=sizes["motion_frames"],
        unet=replace(
            SD15.unet,
            block_out_channels=tuple(sizes["block_out_channels"]),
            layers_per_block=base["layers_per_block"],
            num_heads=sizes["attention_head_dim"],
            norm_groups=base["norm_num_groups"],
            image_token_dim=sizes["cross_attention_dim"],
            audio_token_dim=sizes["audio_attention_dim"],
        ),
        condition=replace(
            SD15.condition,
            identity_dim=sizes["face_emb_dim"],
            image_tokens=sizes["image_tokens"],
            audio_tokens=sizes["audio_tokens"],
            audio_window=sizes["audio_window"],
            audio_hidden=sizes["audio_intermediate"],
            face_channels=face_channels(shapes),
        ),
        # The two networks around ours are not part of this: the smallest that fit. The projection sees layers and
        # columns as one vector, so the recorded features may pass for those of a mel encoder.
        audio=AudioEncoderConfig(kind="mel", layers=1, dim=audio_dim, mels=audio_dim // MEL_COLUMNS),
        vae=replace(SD15.vae, kind="tiny", width=8, decoder_widths=(16, 8)),
        schedule=ScheduleConfig(previous_timestep="stride"),
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
            own = network.state_dict()
            weights = as_linear(draw_weights(wanted, seed), own)
            missing, _ = network.load_state_dict({k: v for k, v in weights.items() if k in own}, strict=False)
            assert all(key.endswith("pos_encoder.pe") for key in missing)

        windows = window_features(self.inputs["audio_emb"].flatten(1)[:, None], self.config.condition.audio_window)
        self.audio = windows[None, : self.config.clip_frames]
        regions, levels = ("full", "face", "lip"), range(len(self.config.unet.block_out_channels))
        self.masks = [[self.inputs[f"{region}_mask_{level}"][..., None] for region in regions] for level in levels]

    def sample(self, *, guided: bool, compat: bool) -> tuple[list[Tensor], list[Tensor]]:
        """Predictions (batch, frames, c, h, w) and latents (1, frames, c, h, w) of every DDIM step.

        `guided`: the unconditional and the conditional branch in one batch of 2.
        """
        self.networks.config = replace(self.config, hallo_compat=compat)
        drop = torch.tensor([True, False] if guided else [False])
        batch = len(drop)
        portrait = self.inputs["ref_latents"][:1].expand(batch, -1, -1, -1)
        inputs = ClipInputs(
            portrait,
            self.inputs["ref_latents"][None, 1:].expand(batch, -1, -1, -1, -1),
            self.audio.expand(batch, -1, -1, -1, -1),
            drop_reference=drop,
            drop_audio=drop,
            identity=self.inputs["face_emb"].expand(batch, -1),
            face_box=self.inputs["face_mask_image"].expand(batch, -1, -1, -1),
            masks=self.masks,
            region_weights=tuple(self.info["config"]["motion_scale"]),
        )
        conditioning = self.networks.condition(inputs)
        schedule = NoiseSchedule(self.config.schedule)
        steps, scale = self.info["config"]["num_inference_steps"], self.info["config"]["guidance_scale"]
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


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=0.0)


def test_conditions(case: Case) -> None:
    expected, networks = load_file(FIXTURE / "outputs_cfg.safetensors"), case.networks
    tokens = networks.image_tokens(case.inputs["face_emb"].expand(2, -1), torch.tensor([True, False]))
    close(tokens, torch.cat([expected["image_tokens_uncond"], expected["image_tokens_cond"]]))
    close(networks.audioproj(case.audio), expected["audio_tokens"])
    face = networks.face_locator(case.inputs["face_mask_image"])
    close(face[:, :, None].expand_as(expected["face_locator"]), expected["face_locator"])


@pytest.mark.parametrize(("guided", "compat"), [(True, True), (False, True), (False, False)])
def test_predictions_and_latents_of_every_step(case: Case, guided: bool, compat: bool) -> None:
    """Guided, the published code deals out rows in its own way; without guidance there is nothing to mix up."""
    expected = load_file(FIXTURE / f"outputs_{'cfg' if guided else 'nocfg'}.safetensors")
    for i, (prediction, latents) in enumerate(zip(*case.sample(guided=guided, compat=compat), strict=True)):
        close(prediction.transpose(1, 2), expected[f"pred_{i}"])
        close(latents.transpose(1, 2), expected[f"latents_{i}"])


def test_correct_row_order_differs_from_the_published_one(case: Case) -> None:
    """If it did not, the test above could not tell the two apart."""
    expected = load_file(FIXTURE / "outputs_cfg.safetensors")["pred_0"]
    predictions, _ = case.sample(guided=True, compat=False)
    assert (predictions[0].transpose(1, 2) - expected).abs().max() > 100 * TOLERANCE


@pytest.mark.parametrize("guided", [True, False], ids=["guided", "unguided"])
def test_bfloat16_stays_near(guided: bool) -> None:
    expected = load_file(FIXTURE / f"outputs_{'cfg' if guided else 'nocfg'}.safetensors")
    case = Case()
    case.networks.bfloat16()
    for i, prediction in enumerate(case.sample(guided=guided, compat=guided)[0]):
        exact = expected[f"pred_{i}"]
        error = (prediction.transpose(1, 2) - exact).square().mean().sqrt() / exact.square().mean().sqrt()
        assert error < HALF_TOLERANCE
