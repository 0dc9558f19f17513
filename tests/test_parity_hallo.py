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
from torch import Tensor, nn

from fada_core.config import SD15, ModelConfig, ScheduleConfig
from fada_core.models.audio_projection import AudioProjection, window_features
from fada_core.models.face import FaceLocator, ImageProjection
from fada_core.models.reference import ReferenceUNet
from fada_core.models.unet import DenoisingUNet
from fada_core.sampling.schedule import NoiseSchedule
from tests.recipe import draw_weights

FIXTURE = Path(os.environ.get("FADA_PARITY_HALLO", Path(__file__).parent / "fixtures" / "hallo"))
TOLERANCE = 1e-4


def small_config(info: dict[str, Any]) -> ModelConfig:
    sizes, base = info["config"], info["unet_base"]
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
        ),
        audio=replace(SD15.audio, layers=sizes["audio_layers"], dim=sizes["audio_channels"]),
        schedule=ScheduleConfig(previous_timestep="stride"),
    )


class Case:
    """The fixture's inputs, and our networks with the weights of its recipe."""

    def __init__(self) -> None:
        self.info = json.loads((FIXTURE / "info.json").read_text())
        self.inputs = load_file(FIXTURE / "inputs.safetensors")
        self.config = small_config(self.info)
        self.shapes = json.loads((FIXTURE / "shapes.json").read_text())
        face_channels = [self.shapes["face_locator.conv_in.weight"][0]]
        while f"face_locator.blocks.{2 * len(face_channels) - 1}.weight" in self.shapes:
            face_channels.append(self.shapes[f"face_locator.blocks.{2 * len(face_channels) - 1}.weight"][0])
        self.reference_unet = self.load("reference_unet", ReferenceUNet(self.config))
        self.denoising_unet = self.load("denoising_unet", DenoisingUNet(self.config))
        self.face_locator = self.load("face_locator", FaceLocator(self.config, tuple(face_channels)))
        self.imageproj = self.load("imageproj", ImageProjection(self.config))
        self.audioproj = self.load("audioproj", AudioProjection(self.config))

        identity = self.inputs["face_emb"]
        self.image_tokens = self.imageproj(torch.cat([torch.zeros_like(identity), identity]))
        frames = self.config.clip_frames
        windows = window_features(self.inputs["audio_emb"], self.config.condition.audio_window)[:frames]
        self.audio_tokens = self.audioproj(windows[None])
        self.face = self.face_locator(self.inputs["face_mask_image"])
        regions, levels = ("full", "face", "lip"), range(len(self.config.unet.block_out_channels))
        self.masks = [[self.inputs[f"{region}_mask_{level}"][..., None] for region in regions] for level in levels]

    def load(self, name: str, network: nn.Module) -> nn.Module:
        shapes = {k.removeprefix(f"{name}."): v for k, v in self.shapes.items() if k.startswith(f"{name}.")}
        weights = draw_weights(shapes, self.info["seeds"][name])
        own = network.state_dict()
        missing, _ = network.load_state_dict({k: v for k, v in weights.items() if k in own}, strict=False)
        assert all(key.endswith("pos_encoder.pe") for key in missing)
        return network.eval()

    def guided(self, compat: bool) -> tuple[Any, int]:
        """The unconditional and the conditional branch in one batch."""
        latents, tokens = self.inputs["ref_latents"].repeat(2, 1, 1, 1), self.image_tokens
        repeats = len(latents) // 2
        rows = tokens.repeat(repeats, 1, 1) if compat else tokens.repeat_interleave(repeats, 0)
        conditioning = self.denoising_unet.prepare(
            reference=self.reference_unet(latents, rows),
            audio_tokens=torch.cat([torch.zeros_like(self.audio_tokens), self.audio_tokens]),
            image_tokens=tokens,
            face_latents=torch.cat([torch.zeros_like(self.face), self.face]),
            masks=self.masks,
            region_weights=tuple(self.info["config"]["motion_scale"]),
            plain_rows=1,
            hallo_compat=compat,
        )
        return conditioning, 2

    def unguided(self, compat: bool) -> tuple[Any, int]:
        latents, tokens = self.inputs["ref_latents"], self.image_tokens[1:]
        conditioning = self.denoising_unet.prepare(
            reference=self.reference_unet(latents, tokens.expand(len(latents), -1, -1)),
            audio_tokens=self.audio_tokens,
            image_tokens=tokens,
            face_latents=self.face,
            masks=self.masks,
            region_weights=tuple(self.info["config"]["motion_scale"]),
            hallo_compat=compat,
        )
        return conditioning, 1

    def sample(self, conditioning: Any, batch: int) -> tuple[list[Tensor], list[Tensor]]:
        """Predictions (batch, frames, c, h, w) and latents (1, frames, c, h, w) of every DDIM step."""
        schedule = NoiseSchedule.from_config(self.config.schedule)
        steps, scale = self.info["config"]["num_inference_steps"], self.info["config"]["guidance_scale"]
        latents = self.inputs["latents"].transpose(1, 2)
        predictions, states = [], []
        for t in schedule.timesteps(steps):
            rows = latents.repeat(batch, 1, 1, 1, 1).flatten(0, 1)
            output = self.denoising_unet(rows, torch.full((batch,), t), conditioning).unflatten(0, (batch, -1))
            predictions.append(output)
            guided = output[:1] + scale * (output[1:] - output[:1]) if batch == 2 else output
            latents = schedule.ddim_step(guided, latents, t, schedule.previous(t, steps))
            states.append(latents)
        return predictions, states


@pytest.fixture(scope="module")
def case() -> Case:
    with torch.no_grad():
        return Case()


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=0.0)


def test_conditions(case: Case) -> None:
    expected = load_file(FIXTURE / "outputs_cfg.safetensors")
    close(case.image_tokens, torch.cat([expected["image_tokens_uncond"], expected["image_tokens_cond"]]))
    close(case.audio_tokens, expected["audio_tokens"])
    close(case.face[:, :, None].expand_as(expected["face_locator"]), expected["face_locator"])


@torch.no_grad()
def check_sampling(case: Case, outputs: str, conditioning: Any, batch: int) -> None:
    expected = load_file(FIXTURE / outputs)
    for i, (prediction, latents) in enumerate(zip(*case.sample(conditioning, batch), strict=True)):
        close(prediction.transpose(1, 2), expected[f"pred_{i}"])
        close(latents.transpose(1, 2), expected[f"latents_{i}"])


@torch.no_grad()
def test_guided_sampling_repeats_the_published_row_order(case: Case) -> None:
    check_sampling(case, "outputs_cfg.safetensors", *case.guided(compat=True))


@torch.no_grad()
@pytest.mark.parametrize("compat", [False, True])
def test_unguided_sampling(case: Case, compat: bool) -> None:
    check_sampling(case, "outputs_nocfg.safetensors", *case.unguided(compat))


@torch.no_grad()
def test_correct_row_order_differs_from_the_published_one(case: Case) -> None:
    """Only the conditional branch and the motion frames' tokens change; a test that could not tell would be blind."""
    expected = load_file(FIXTURE / "outputs_cfg.safetensors")["pred_0"]
    predictions, _ = case.sample(*case.guided(compat=False))
    assert (predictions[0].transpose(1, 2) - expected).abs().max() > 100 * TOLERANCE
