"""Reference and denoising UNet: names, rows of a batch, computations once per clip, and trained weights."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from fada_core.config import PORTRAIT, SD15, ModelConfig
from fada_core.errors import FadaError
from fada_core.models.attention import Attention, ContextAttention
from fada_core.models.audio.projection import AudioProjection, window_features
from fada_core.models.face import FaceLocator, ImageProjection
from fada_core.models.inputs import ClipInputs
from fada_core.models.motion import MotionModule
from fada_core.models.networks import Networks
from fada_core.models.reference import ReferenceUNet
from fada_core.models.unet import Conditioning, DenoisingUNet
from tests.support.recipe import draw_weights
from tests.support.small import SMALL

SHAPES = json.loads((Path(__file__).parents[1] / "fixtures" / "hallo" / "shapes.json").read_text())
DEAD = ("down_blocks.3.motion_modules", "up_blocks.0.motion_modules")  # in Hallo's checkpoint, but never run

# Everything that Hallo has, and a small model with everything that Hallo does not have.
FULL = replace(
    SD15,
    unet=replace(
        SD15.unet,
        block_out_channels=(32, 64, 64, 64),
        num_heads=4,
        image_token_dim=24,
        audio_token_dim=20,
    ),
    condition=replace(SD15.condition, audio_tokens=3),
)
SLIM = replace(
    PORTRAIT,
    unet=replace(PORTRAIT.unet, block_out_channels=(16, 32, 48), num_heads=2, norm_groups=8, audio_token_dim=12),
    condition=replace(PORTRAIT.condition, audio_tokens=3),
)
BOTH = pytest.mark.parametrize("config", [FULL, SLIM], ids=["full", "slim"])
BATCH, FRAMES, MOTION, SIDE = 3, 4, 2, 8


class RecordingOperations:
    """torch.nn's layers; it records the layers made and counts their calls."""

    def __init__(self) -> None:
        self.made: set[nn.Module] = set()
        self.calls: Counter[nn.Module] = Counter()

    def __getattr__(self, layer: str) -> Any:
        def make(*arguments: Any, **options: Any) -> nn.Module:
            module = getattr(nn, layer)(*arguments, **options)
            module.register_forward_pre_hook(lambda module, _: self.calls.update([module]))
            self.made.add(module)
            return module

        return make


def with_weights(network: nn.Module, seed: int) -> Any:
    """Random weights in all layers, also in those that are zero in a new network."""
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    network.load_state_dict(draw_weights(shapes, seed), strict=False)
    return network


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(config: ModelConfig) -> dict[str, Tensor]:
    """Three guidance branches of one clip: base (no reference, no audio), reference only, both."""
    unet = config.unet
    portrait, motion = randn(1, unet.in_channels, SIDE, SIDE), randn(2, MOTION, unet.in_channels, SIDE, SIDE)
    audio = randn(3, FRAMES, config.condition.audio_tokens, unet.audio_token_dim)
    drawn = {
        "noise": randn(4, FRAMES, unet.in_channels, SIDE, SIDE).expand(BATCH, -1, -1, -1, -1),
        "reference": torch.cat([portrait[None], motion]).expand(BATCH, -1, -1, -1, -1),
        "audio_tokens": torch.stack([torch.zeros_like(audio), torch.zeros_like(audio), audio]),
    }
    if unet.concat_reference:
        portraits = torch.stack([torch.zeros_like(portrait), portrait, portrait])
        drawn["reference_latents"] = portraits
    else:
        face = randn(5, unet.block_out_channels[0], SIDE, SIDE)
        drawn["face_latents"] = torch.stack([torch.zeros_like(face), face, face])
    if unet.image_token_dim:
        unknown, known = randn(6, 2, config.condition.image_tokens, unet.image_token_dim)
        drawn["image_tokens"] = torch.stack([unknown, known, known])
    return drawn


def condition(
    reference_unet: ReferenceUNet, denoising_unet: DenoisingUNet, drawn: dict[str, Tensor], unreferenced_rows: int
) -> Conditioning:
    reference, tokens = drawn["reference"], drawn.get("image_tokens")
    rows = None if tokens is None else tokens.repeat_interleave(reference.shape[1], 0)
    given = {name: value for name, value in drawn.items() if name not in ("noise", "reference")}
    bank = reference_unet(reference.flatten(0, 1), rows)
    return denoising_unet.prepare(reference=bank, unreferenced_rows=unreferenced_rows, **given)


def predict(networks: tuple[ReferenceUNet, DenoisingUNet], drawn: dict[str, Tensor], unreferenced_rows: int) -> Tensor:
    """The prediction, (batch, frames, c, h, w)."""
    conditioning = condition(*networks, drawn, unreferenced_rows)
    noise = drawn["noise"]
    output = networks[1](noise.flatten(0, 1), torch.full((len(noise),), 500), conditioning)
    return output.unflatten(0, noise.shape[:2])


def networks_of(config: ModelConfig, operations: Any = nn) -> tuple[ReferenceUNet, DenoisingUNet]:
    return (
        with_weights(ReferenceUNet(config, operations=operations), 1),
        with_weights(DenoisingUNet(config, operations=operations), 2),
    )


@BOTH
@torch.no_grad()
def test_branches_in_one_batch_equal_branches_alone(config: ModelConfig) -> None:
    networks, drawn = networks_of(config), inputs(config)
    together = predict(networks, drawn, unreferenced_rows=1)
    for row in range(BATCH):
        alone = {name: value[row : row + 1] for name, value in drawn.items()}
        torch.testing.assert_close(predict(networks, alone, int(row == 0))[0], together[row], atol=5e-5, rtol=1e-4)
    for one, other in ((0, 1), (1, 2)):
        assert (together[one] - together[other]).abs().max() > 1e-3


@BOTH
@torch.no_grad()
def test_unreferenced_rows_see_motion_frames_but_no_portrait(config: ModelConfig) -> None:
    networks, drawn = networks_of(config), inputs(config)
    before = predict(networks, drawn, unreferenced_rows=1)

    other = {**drawn, "reference": drawn["reference"].clone()}
    other["reference"][:, 0] += 1.0
    after = predict(networks, other, unreferenced_rows=1)
    torch.testing.assert_close(after[0], before[0], atol=0, rtol=0)
    assert (after[1] - before[1]).abs().max() > 1e-3

    other = {**drawn, "reference": drawn["reference"].clone()}
    other["reference"][0, 1] += 1.0
    after = predict(networks, other, unreferenced_rows=1)
    assert (after[0] - before[0]).abs().max() > 1e-3
    torch.testing.assert_close(after[1:], before[1:], atol=0, rtol=0)


@torch.no_grad()
def test_a_clip_needs_no_reference() -> None:
    """Without reference features all rows are unreferenced."""
    networks, drawn = networks_of(FULL), inputs(FULL)
    given = {"audio_tokens": drawn["audio_tokens"], "image_tokens": drawn["image_tokens"]}
    conditioning = networks[1].prepare(**given)
    without = networks[1](drawn["noise"].flatten(0, 1), torch.full((BATCH,), 500), conditioning)
    bank = networks[0](drawn["reference"][:, 0], drawn["image_tokens"])
    conditioning = networks[1].prepare(reference=bank, unreferenced_rows=BATCH, **given)
    plain = networks[1](drawn["noise"].flatten(0, 1), torch.full((BATCH,), 500), conditioning)
    torch.testing.assert_close(without, plain, atol=0, rtol=0)


@torch.no_grad()
def test_masks_confine_a_region_and_weights_scale_it() -> None:
    _, unet = networks_of(FULL)
    drawn = inputs(FULL)
    levels = len(FULL.unet.block_out_channels)

    def run(masks: Any, **options: Any) -> Tensor:
        given = {"audio_tokens": drawn["audio_tokens"], "image_tokens": drawn["image_tokens"]}
        conditioning = unet.prepare(masks=masks, **given, **options)
        return unet(drawn["noise"].flatten(0, 1), torch.full((BATCH,), 500), conditioning)

    def constant(*values: float) -> list[list[Tensor]]:
        return [[torch.full((1, (SIDE >> level) ** 2, 1), v) for v in values] for level in range(levels)]

    torch.testing.assert_close(run(constant(1, 1, 1)), run(None), atol=1e-5, rtol=0)
    _, silent, spoken = run(constant(0, 0, 0)).unflatten(0, (BATCH, -1))
    torch.testing.assert_close(spoken, silent, atol=1e-5, rtol=0)
    only_lip = run(None, region_weights=(0.0, 0.0, 1.0))
    other = [[*masks] for masks in constant(1, 1, 1)]
    for masks in other:
        masks[0], masks[1] = masks[0] * 0.3, masks[1] * 0.1
    torch.testing.assert_close(run(other, region_weights=(0.0, 0.0, 1.0)), only_lip, atol=1e-5, rtol=0)
    assert (only_lip - run(None)).abs().max() > 1e-3


@BOTH
@torch.no_grad()
def test_what_a_clip_shares_is_computed_once(config: ModelConfig) -> None:
    operations, drawn = RecordingOperations(), inputs(config)
    reference_unet, unet = networks_of(config, operations)
    conditioning = condition(reference_unet, unet, drawn, unreferenced_rows=1)
    shared = {
        name: module
        for name, module in unet.named_modules()
        if name.endswith(("to_k", "to_v")) and (".attentions." in name or ".attn2_" in name)
    }
    assert all(operations.calls[module] == 1 for module in shared.values())

    operations.calls.clear()
    noise, timesteps = drawn["noise"].flatten(0, 1), torch.full((BATCH,), 500)
    first = unet(noise, timesteps, conditioning)
    for name, module in shared.items():
        assert operations.calls[module] == (1 if ".attn1." in name else 0), name
    assert not any(operations.calls[module] for module in reference_unet.modules())
    torch.testing.assert_close(unet(noise, timesteps, conditioning), first, atol=0, rtol=0)


@BOTH
@torch.no_grad()
def test_half_precision_stays_near(config: ModelConfig) -> None:
    networks, drawn = networks_of(config), inputs(config)
    exact = predict(networks, drawn, unreferenced_rows=1)
    half = tuple(network.bfloat16() for network in networks)
    rounded = predict(half, {name: value.bfloat16() for name, value in drawn.items()}, unreferenced_rows=1)
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).square().mean().sqrt() < 0.05 * exact.square().mean().sqrt()


@BOTH
def test_every_layer_comes_from_operations(config: ModelConfig) -> None:
    operations = RecordingOperations()
    parts = [ReferenceUNet, DenoisingUNet, AudioProjection]
    if config is FULL:
        parts += [FaceLocator, ImageProjection]
    for part in parts:
        for name, module in part(config, operations=operations, device="meta").named_modules():
            if list(module.parameters(recurse=False)):
                assert module in operations.made, name


@BOTH
def test_every_trainable_weight_gets_a_gradient(config: ModelConfig) -> None:
    """Several processes wait for each other's gradients, so none may be missing, whatever the batch contains."""
    for unreferenced_rows in (0, 1):
        networks = networks_of(config)
        predict(networks, inputs(config), unreferenced_rows).square().mean().backward()
        for network in networks:
            for name, parameter in network.named_parameters():
                assert (parameter.grad is not None) == parameter.requires_grad, name
                assert parameter.grad is None or parameter.grad.abs().max() > 0, name


@BOTH
def test_a_fresh_network_says_nothing_and_can_learn(config: ModelConfig) -> None:
    torch.manual_seed(0)
    networks = ReferenceUNet(config), DenoisingUNet(config)
    drawn = inputs(config)
    assert not predict(networks, drawn, unreferenced_rows=1).any()
    parameters = [p for network in networks for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, 1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        (predict(networks, drawn, unreferenced_rows=1) - 1).square().mean().backward()
        optimizer.step()
    gradients = {name: p.grad.abs().max() for name, p in networks[1].named_parameters()}
    assert all(value > 0 for name, value in gradients.items() if "attn2_0" in name or "zero_conv_full" in name)


def test_reference_unet_equals_diffusers() -> None:
    unet = FULL.unet
    theirs = UNet2DConditionModel(
        in_channels=unet.in_channels,
        out_channels=unet.in_channels,
        block_out_channels=unet.block_out_channels,
        attention_head_dim=unet.num_heads,
        cross_attention_dim=unet.image_token_dim,
        norm_num_groups=unet.norm_groups,
        use_linear_projection=True,
    )
    ours, _ = networks_of(FULL)
    missing, unexpected = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert not unexpected and all(name.startswith(("conv_norm_out", "conv_out")) for name in missing)
    bank: dict[str, Tensor] = {}
    for name, module in theirs.named_modules():
        if name.endswith("transformer_blocks.0.norm1"):
            key = name.removesuffix(".transformer_blocks.0.norm1")
            module.register_forward_hook(lambda module, inputs, output, key=key: bank.update({key: output}))
    latents, tokens = randn(1, 2, unet.in_channels, 16, 16), randn(2, 2, 5, unet.image_token_dim)
    with torch.no_grad():
        theirs(latents, 0, tokens)
        features = ours(latents, tokens)
    assert features.keys() == bank.keys()
    for name, rows in features.items():
        torch.testing.assert_close(rows, bank[name], atol=2e-5, rtol=1e-4)


def test_names_are_those_of_hallo() -> None:
    for prefix, network in (
        ("reference_unet.", ReferenceUNet(FULL, device="meta")),
        ("denoising_unet.", DenoisingUNet(FULL, device="meta")),
        ("face_locator.", FaceLocator(FULL, device="meta")),
        ("imageproj.", ImageProjection(FULL, device="meta")),
        ("audioproj.", AudioProjection(FULL, device="meta")),
    ):
        names = {name.removeprefix(prefix) for name in SHAPES if name.startswith(prefix)}
        assert set(network.state_dict()) == {name for name in names if not name.startswith(DEAD)}


def test_sizes_are_those_of_hallo() -> None:
    """Facts of the published checkpoint (net.pth) at full width."""
    reference = ReferenceUNet(SD15, device="meta").state_dict()
    denoising = DenoisingUNet(SD15, device="meta").state_dict()
    widest = SD15.unet.block_out_channels[-1]
    dead = MotionModule(SD15.unet, widest, device="meta").state_dict()
    dead_modules = 5
    assert len(reference) == 682
    assert len(denoising) + dead_modules * len(dead) == 1946

    def millions(tensors: dict[str, Tensor], times: int = 1) -> float:
        return round(times * sum(tensor.numel() for tensor in tensors.values()) / 1e6, 1)

    assert millions(reference) == 859.5
    assert millions(dead, dead_modules) == 180.8
    assert millions(denoising) == pytest.approx(1526.7 - 180.8, abs=0.11)
    small = {
        "face_locator": (FaceLocator, 0.51e6),
        "audioproj": (AudioProjection, 36.5e6),
        "imageproj": (ImageProjection, 512 * 3072 + 3072 + 2 * 768),
    }
    for network, count in small.values():
        elements = sum(p.numel() for p in network(SD15, device="meta").parameters())
        assert elements == pytest.approx(count, rel=0.01)
    inner = {
        "down_blocks.0.audio_modules.0": (320, 320),
        "down_blocks.1.audio_modules.0": (320, 640),
        "down_blocks.1.audio_modules.1": (640, 640),
        "down_blocks.2.audio_modules.0": (640, 1280),
        "down_blocks.2.audio_modules.1": (1280, 1280),
        "mid_block.audio_modules.0": (1280, 1280),
        "up_blocks.1.audio_modules.2": (640, 1280),
        "up_blocks.2.audio_modules.0": (320, 640),
        "up_blocks.3.audio_modules.0": (320, 320),
    }
    for name, (narrow, wide) in inner.items():
        assert denoising[f"{name}.proj_in.weight"].shape == (narrow, wide)
        assert denoising[f"{name}.proj_out.weight"].shape == (wide, narrow)
        assert denoising[f"{name}.transformer_blocks.0.attn2_2.to_k.weight"].shape == (narrow, 768)
    pe = "up_blocks.3.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.1.pos_encoder.pe"
    assert denoising[pe].shape == (1, 32, 320)
    assert reference["down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"].shape == (320, 768)


def test_window_features_are_clamped_at_the_ends() -> None:
    features = torch.arange(4.0)[:, None, None].expand(4, 2, 3)
    windows = window_features(features, 5)
    assert windows.shape == (4, 5, 2, 3)
    assert windows[..., 0, 0].tolist() == [[0, 0, 0, 1, 2], [0, 0, 1, 2, 3], [0, 1, 2, 3, 3], [1, 2, 3, 3, 3]]


def test_bfloat16_attention_is_the_same_with_and_without_gradient() -> None:
    """On a CPU they use different kernels."""
    attention = Attention(32, 4).bfloat16()
    x = randn(1, 2, 9, 32).bfloat16()
    trained = attention(x, attention.keys_values(x))
    with torch.no_grad():
        torch.testing.assert_close(attention(x, attention.keys_values(x)), trained.detach(), atol=0.02, rtol=0.02)


@torch.no_grad()
def test_a_folded_context_is_attended_to_as_any_other() -> None:
    attention = with_weights(ContextAttention(32, 4, 12), 0)
    tokens, context = randn(1, 3, 9, 32), randn(2, 3, 5, 12)
    inward, outward = attention.fold(context)
    assert inward.shape == outward.shape == (3, 20, 32)
    plain = attention.to_out[0](attention.attend(attention.to_q(tokens), *attention.keys_values(context)))
    torch.testing.assert_close(attention(tokens, (inward, outward)), plain, atol=1e-5, rtol=0)
    assert (attention(tokens, attention.fold(context.flip(0))) - plain).abs().max() > 1e-2


def test_a_single_frame_needs_no_motion_modules() -> None:
    """One frame without motion frames is the same whatever they have learned; two frames are not."""
    torch.manual_seed(0)
    networks = Networks(SMALL).requires_grad_(False)
    for value in networks.denoising_unet.parameters():
        value.normal_(0, 0.1)

    def predict(frames: int) -> Tensor:
        audio = torch.randn(1, frames, 11, 1, 160, generator=torch.Generator().manual_seed(1))
        latents = torch.randn(1, frames, 16, 4, 4, generator=torch.Generator().manual_seed(2))
        inputs = ClipInputs(torch.zeros(1, 16, 4, 4), torch.zeros(1, 0, 16, 4, 4), audio)
        half = torch.tensor([0.5])
        return networks.predict(latents, torch.tensor([500]), half, half, networks.condition(inputs))

    before = predict(1), predict(2)
    for module in networks.denoising_unet.modules():
        if isinstance(module, MotionModule):
            for value in module.parameters():
                value.normal_(0, 0.3)
    assert torch.equal(predict(1), before[0])
    assert not torch.allclose(predict(2), before[1])


def test_missing_or_misfitting_conditions_are_refused() -> None:
    unet = DenoisingUNet(SLIM)
    drawn = inputs(SLIM)
    with pytest.raises(FadaError, match="reference_latents"):
        unet.prepare(audio_tokens=drawn["audio_tokens"])
    bank = ReferenceUNet(SLIM)(drawn["reference"].flatten(0, 1)[:-1])
    with pytest.raises(FadaError, match="equally many"):
        unet.prepare(audio_tokens=drawn["audio_tokens"], reference_latents=drawn["reference_latents"], reference=bank)
    conditioning = unet.prepare(audio_tokens=drawn["audio_tokens"], reference_latents=drawn["reference_latents"])
    with pytest.raises(ValueError, match="do not fit"):
        unet(drawn["noise"][0], torch.full((BATCH,), 500), conditioning)
