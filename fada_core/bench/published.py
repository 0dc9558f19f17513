"""Sampling as in published code for such networks: the reference of the benchmark and of its tests.

It does the following as Hallo (arXiv 2406.08801) and related code do, unlike `sampling`:

- branches are separate passes, and the portrait's features are computed for every branch and clip;
- in every step, the portrait's features are repeated for every frame, and keys and values of portrait, identity, audio
  and control tokens are projected again;
- motion frames pass through the motion modules like predicted frames, and are cut off afterwards;
- activations are videos (batch, c, frames, h, w), copied to contiguous pictures and back around every convolution
  and norm, and bfloat16 is converted to float32 for resizing;
- pictures are decoded one by one and copied to the host as float32.

Costs that would make the comparison unfair are left out: full attention for rows that do not use it, encoding the
portrait for every clip, and synchronisation in the loop. With the same weights, the result equals that of
`Pipeline.sample` up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from ..checkpoint import CheckpointInfo
from ..job import Job
from ..media.image import to_uint8
from ..models import precondition
from ..models.attention import Attention, AudioBlock, AudioTransformer, SpatialBlock, SpatialTransformer
from ..models.audio.projection import clip_windows
from ..models.inputs import ReferenceFeatures, Subject
from ..models.motion import MotionModule, TemporalTransformer
from ..models.networks import Networks
from ..models.reference import UNetBlock
from ..models.resnet import ResnetBlock, Upsample
from ..pipeline import Stats
from ..sampling.chain import next_motion
from ..sampling.denoise import Callback, Denoiser
from ..sampling.guidance import Branch, branches, combine, one_pass
from ..sampling.schedule import NoiseSchedule
from ..sampling.solvers import build_solver
from ..settings import Mode


@dataclass(frozen=True, eq=False)
class _Inputs:
    """Inputs of a branch before projection to keys and values."""

    branch: Branch
    portrait: Tensor
    features: ReferenceFeatures  #: rows: the portrait, then the motion frames
    identity: Tensor | None  #: tokens, (1, T, d)
    audio: Tensor  #: tokens, (frames, T, d)
    face: Tensor | None  #: (1, c, frames, h, w)
    masks: Any


class PublishedPipeline:
    """Samples and decodes like `Pipeline`, for chained clips and DDIM."""

    def __init__(self, networks: Networks, info: CheckpointInfo) -> None:
        self.networks, self.info, self.config = networks, info, networks.config
        self.schedule = NoiseSchedule(self.config.schedule)
        self.stats = Stats()

    @torch.inference_mode()
    def sample(
        self,
        job: Job,
        mode: Mode | None,
        *,
        steps: int,
        ref_cfg: float,
        audio_cfg: float,
        seed: int = 0,
        callback: Callback | None = None,
    ) -> Iterator[Tensor]:
        """Sample as `Pipeline.sample`; the callback gets the steps of each clip counted from 1."""
        config, subject, self.stats = self.config, job.subject, Stats()
        used = one_pass(ref_cfg, audio_cfg) if mode == "fast" else branches(ref_cfg, audio_cfg)
        weights = torch.tensor(list(used.values()), device=subject.portrait.device)
        generator = torch.Generator().manual_seed(seed)
        motion = subject.portrait[:, None].expand(-1, config.motion_frames, -1, -1, -1)
        for start in range(0, job.frames, config.clip_frames):
            audio = clip_windows(job.audio_features, start, config.clip_frames, config.condition.audio_window)
            inputs = [_inputs(self.networks, subject, motion, audio, branch) for branch in used]
            solver = build_solver(self.schedule, steps)
            shape = (1, config.clip_frames, *subject.portrait.shape[1:])
            x = torch.randn(shape, generator=generator).to(subject.portrait.device)
            for done, t in enumerate(solver.timesteps, start=1):
                predictions = [_predict(self.networks, self.schedule, x, t, one) for one in inputs]
                guided = combine(torch.stack(predictions), weights)
                if callback:
                    callback(done, steps, self.schedule.to_x0(x, guided, t)[0])
                x = solver.step(guided, t, x)
            if start + config.clip_frames < job.frames:
                motion = next_motion(Denoiser(self.networks), x)
            self.stats.clips += 1
            self.stats.nfe_per_clip = steps * len(used)
            self.stats.nfe += self.stats.nfe_per_clip
            yield x[0, : job.frames - start]

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Decode as `Pipeline.decode`, one picture at a time."""
        return torch.cat([self.networks.vae.decode(one.to(self.networks.dtype)).float() for one in latents.split(1)])


def to_host(frames: Tensor) -> Tensor:
    """Convert as `to_uint8`, but copy floats to the host."""
    return to_uint8(frames.cpu())


def _inputs(networks: Networks, subject: Subject, motion: Tensor, audio: Tensor, branch: Branch) -> _Inputs:
    device = subject.portrait.device
    frames, hidden = audio.shape[1], torch.tensor([branch.drop_reference], device=device)
    tokens = networks.image_tokens(subject.identity, hidden)
    audio = audio.to(device, networks.dtype)
    audio_tokens = (audio.flatten(2, 3) if networks.audioproj is None else networks.audioproj(audio))[0]
    face = None
    if networks.face_locator is not None:
        # As in published code, the picture is repeated, not its features.
        picture = subject.face_box.to(networks.dtype).repeat(frames, 1, 1, 1)
        face = rearrange(networks.face_locator(picture), "f c h w -> 1 c f h w")
    return _Inputs(
        branch=branch,
        portrait=subject.portrait,
        features=networks.reference_features(subject.portrait, motion, tokens),
        identity=tokens,
        audio=torch.zeros_like(audio_tokens) if branch.drop_audio else audio_tokens,
        face=torch.zeros_like(face) if face is not None and branch.drop_reference else face,
        masks=subject.masks,
    )


def _predict(networks: Networks, schedule: NoiseSchedule, x: Tensor, t: int, inputs: _Inputs) -> Tensor:
    """Prediction (v or noise) of a branch, (1, frames, c, h, w) float32, as from `Networks.predict`."""
    timesteps = torch.full((1,), t, device=x.device)
    std = networks.config.residual_std
    if not std:
        return _unet(networks, x, timesteps, inputs)
    alpha, sigma = schedule.alpha_sigma(timesteps)
    sees_portrait = torch.tensor([not inputs.branch.drop_reference], device=x.device)
    seen = precondition.network_input(x, inputs.portrait, alpha, sigma, std, sees_portrait)
    output = _unet(networks, seen, timesteps, inputs)
    return precondition.velocity(output, x, inputs.portrait, alpha, sigma, std, sees_portrait)


def _unet(networks: Networks, x: Tensor, timesteps: Tensor, inputs: _Inputs) -> Tensor:
    unet, branch, frames = networks.denoising_unet, inputs.branch, x.shape[1]
    scales = torch.tensor([branch.scales], device=x.device)
    control = None if unet.cfg_tokens is None else unet.cfg_tokens(scales)
    time = unet.time(timesteps, networks.dtype).repeat(frames, 1)
    if unet.audio_time_embedding is not None:
        time = time + unet.audio_time_embedding(inputs.audio.flatten(1))
    if unet.scale_embedding is not None:
        time = time + unet.scale_embedding(scales)

    video = rearrange(x, "b f c h w -> b c f h w").to(networks.dtype).contiguous()
    if unet.concat_reference:
        portrait = repeat(inputs.portrait.to(video), "b c h w -> b c f h w", f=frames)
        video = torch.cat([video, torch.zeros_like(portrait) if branch.drop_reference else portrait], dim=1)
    hidden = _by_frame(unet.conv_in, video)
    if inputs.face is not None:
        hidden = hidden + inputs.face

    hidden = unet.run_blocks(hidden, lambda block, j, x: _layer(block, j, x, time, control, inputs), _resample)
    output = _by_frame(unet.conv_out, F.silu(_by_frame(unet.conv_norm_out, hidden)))
    if unet.gated_output:
        output = output[:, :-1] * output[:, -1:].sigmoid()
    return rearrange(output.float(), "b c f h w -> b f c h w")


def _by_frame(layer: Callable[[Tensor], Tensor], video: Tensor) -> Tensor:
    """Apply a layer for pictures to a video (b, c, f, h, w)."""
    pictures = layer(rearrange(video, "b c f h w -> (b f) c h w").contiguous())
    return rearrange(pictures, "(b f) c h w -> b c f h w", f=video.shape[2]).contiguous()


def _resample(module: nn.Module, video: Tensor) -> Tensor:
    """Up- and downsampling; for upsampling the video is resized as a volume, in float32 instead of bfloat16."""
    if not isinstance(module, Upsample):
        return _by_frame(module, video)
    wide = video.float() if video.dtype == torch.bfloat16 else video
    return _by_frame(module.conv, F.interpolate(wide, scale_factor=(1.0, 2.0, 2.0), mode="nearest").to(video.dtype))


def _layer(block: UNetBlock, j: int, hidden: Tensor, time: Tensor, control: Tensor | None, inputs: _Inputs) -> Tensor:
    hidden = _resnet(cast(ResnetBlock, block.resnets[j]), hidden, time)
    if j >= len(block.attentions):
        return hidden
    features = inputs.features[block.attention_name(j)]
    seen = None if inputs.branch.drop_reference else features[:1]
    hidden = _spatial(cast(SpatialTransformer, block.attentions[j]), hidden, seen, control, inputs)
    if block.audio_modules:
        masks = None if inputs.masks is None else [mask.to(hidden) for mask in inputs.masks[block.level]]
        hidden = _audio(cast(AudioTransformer, block.audio_modules[j]), hidden, inputs.audio, masks)
    return _motion(cast(MotionModule, block.motion_modules[j]).temporal_transformer, hidden, features[1:])


def _resnet(block: ResnetBlock, video: Tensor, time: Tensor) -> Tensor:
    hidden = _by_frame(block.conv1, F.silu(_by_frame(block.norm1, video)))
    if block.time_emb_proj is not None:
        hidden = hidden + rearrange(block.time_emb_proj(F.silu(time)), "f c -> 1 c f 1 1")
    hidden = _by_frame(block.conv2, F.silu(_by_frame(block.norm2, hidden)))
    return hidden + (video if block.conv_shortcut is None else _by_frame(block.conv_shortcut, video))


def _tokens(video: Tensor) -> Tensor:
    return rearrange(video, "b c f h w -> (b f) (h w) c").contiguous()


def _video(tokens: Tensor, like: Tensor) -> Tensor:
    _, _, frames, height, _ = like.shape
    return rearrange(tokens, "(b f) (h w) c -> b c f h w", f=frames, h=height).contiguous()


def _cross(attention: Attention, tokens: Tensor, context: Tensor) -> Tensor:
    return attention.to_out[0](attention.attend(attention.to_q(tokens), *attention.keys_values(context)))


def _pointwise(layer: nn.Linear, pictures: Tensor) -> Tensor:
    """A linear layer as a 1x1 convolution, as in published code."""
    return F.conv2d(pictures, layer.weight[:, :, None, None], layer.bias)


def _spatial(
    module: SpatialTransformer, video: Tensor, portrait: Tensor | None, control: Tensor | None, inputs: _Inputs
) -> Tensor:
    block, frames = cast(SpatialBlock, module.transformer_blocks[0]), video.shape[2]
    tokens = _tokens(_by_frame(partial(_pointwise, module.proj_in), _by_frame(module.norm, video)))
    normed = block.norm1(tokens)
    context = normed if portrait is None else torch.cat([normed, portrait.repeat(frames, 1, 1)], dim=1)
    tokens = tokens + _cross(block.attn1, normed, context)
    if block.control is not None:
        repeated = control.repeat(frames, 1, 1)
        tokens = tokens + _cross(block.control.attn, block.control.norm(tokens), repeated)
    if block.attn2 is not None:
        repeated = inputs.identity.repeat(frames, 1, 1)
        tokens = tokens + _cross(block.attn2, block.norm2(tokens), repeated)
    tokens = tokens + block.ff(block.norm3(tokens))
    return video + _by_frame(partial(_pointwise, cast(nn.Linear, module.proj_out)), _video(tokens, video))


def _audio(module: AudioTransformer, video: Tensor, audio: Tensor, masks: list[Tensor] | None) -> Tensor:
    block = cast(AudioBlock, module.transformer_blocks[0])
    tokens = _tokens(_by_frame(partial(_pointwise, module.proj_in), _by_frame(module.norm, video)))
    if block.attn1 is not None:
        normed = block.norm1(tokens)
        tokens = tokens + _cross(block.attn1, normed, normed)
    normed = block.norm2(tokens)
    for index, region in enumerate(block.regions):
        heard = _cross(cast(Attention, block.get_submodule(f"attn2_{index}")), normed, audio)
        if masks is not None:
            heard = heard * masks[index]
        leave = partial(_pointwise, cast(nn.Linear, block.get_submodule(f"zero_conv_{region}")))
        tokens = tokens + _tokens(_by_frame(leave, _video(heard, video)))
    tokens = tokens + block.ff(block.norm3(tokens))
    return video + _by_frame(partial(_pointwise, module.proj_out), _video(tokens, video))


def _motion(module: TemporalTransformer, video: Tensor, before: Tensor) -> Tensor:
    """Motion module; `before` (motion_frames, hw, c): the reference UNet's features of the motion frames."""
    motion_frames, height = len(before), video.shape[3]
    whole = torch.cat([rearrange(before, "f (h w) c -> 1 c f h w", h=height), video], dim=2)
    frames = whole.shape[2]
    tokens = module.proj_in(rearrange(_by_frame(module.norm, whole), "b c f h w -> (b f) (h w) c"))
    tokens = rearrange(tokens, "(b f) d c -> (b d) f c", f=frames).contiguous()
    tokens = module.proj_out(module.transformer_blocks[0](tokens, 0))
    output = rearrange(tokens, "(b h w) f c -> b c f h w", h=height, w=whole.shape[4]).contiguous()
    return (whole + output)[:, :, motion_frames:].contiguous()
