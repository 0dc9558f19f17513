"""From a portrait and speech to video frames: load, encode, sample, decode. Each step also works alone.

pipe = fada_core.load("tiny")
job = pipe.encode(image, audio)             # once
for latents in pipe.sample(job, seed=0):     # clip by clip, in constant memory
    frames = pipe.decode(latents)
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .checkpoint import CheckpointInfo, load_checkpoint
from .errors import FadaError
from .face.region import FaceRegion
from .finite import FiniteCheck
from .job import Job, encode_portrait, encode_speech
from .models.inputs import Masks
from .models.networks import Networks
from .sampling.chain import clip_count, sample_chain
from .sampling.denoise import Callback
from .sampling.guidance import evaluations
from .sampling.live import LiveClip, sample_live
from .sampling.solvers import build_solver
from .settings import Mode, SamplingOptions, SamplingSettings, modes_of, resolve_settings
from .speed.compute import build_denoiser, choose, release
from .speed.offload import keep_on_host
from .system import (
    OUT_OF_MEMORY_ADVICE,
    default_device,
    default_dtype,
    free_bytes,
    named_device,
    out_of_memory,
)
from .tensors import map_tensors
from .threads import shared_machine

log = logging.getLogger("fada.pipeline")

DECODE_BATCH = 8  #: frames that are decoded at once, at most


class LiveFrames(NamedTuple):
    """Frames and the sound that belongs to them."""

    frames: Tensor  #: (n, 3, size, size) in -1..1, float32
    samples: Tensor  #: (samples,) float32, mono, 16 kHz


@dataclass
class Stats:
    """Counts of the latest `Pipeline.sample` so far."""

    clips: int = 0
    frames: int = 0
    nfe: int = 0  #: forward passes of the denoising UNet per conditional branch, all clips
    nfe_per_clip: int = 0  #: of one clip, the same for every one
    seconds: float = 0.0  #: spent sampling, without what the caller did between the clips


def load(
    name_or_path: str | Path,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    *,
    offload: bool = False,
) -> Pipeline:
    """A pipeline from a shipped model's name or a checkpoint's path.

    Args:
        device: default `default_device()`.
        dtype: of the networks; default `default_dtype(device)`.
        offload: keep all but the denoising UNet in host memory: slower, with less of the device's memory.

    Raises:
        FadaError: no such file, not a checkpoint, or no such device.
    """
    device = default_device() if device is None else named_device(device)
    dtype = dtype or default_dtype(device)
    networks, info = load_checkpoint(name_or_path, device="cpu" if offload else device, dtype=dtype)
    if offload:
        keep_on_host(networks, device)
    return Pipeline(networks, info)


class Pipeline:
    """A loaded model. `networks` may be moved between calls; each call works where they are.

    Args:
        device: where to work, for networks whose layers fetch their weights from elsewhere (ComfyUI's, offloaded).
    """

    def __init__(self, networks: Networks, info: CheckpointInfo, device: torch.device | None = None) -> None:
        self.networks, self.info = networks.eval(), info
        self._device = device
        self.config = networks.config
        self.stats = Stats()
        self._decodable = sys.maxsize  #: frames at once that memory suffices for, once it ran out; 0: only tiles of one
        self.compute = "eager"  #: how the networks compute now, an entry of `settings.COMPUTE`
        self.denoiser = build_denoiser(networks, self.compute, self.device)

    @property
    def device(self) -> torch.device:
        return self._device or self.networks.device

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes that this checkpoint serves, the default first; see `modes_of`."""
        return modes_of(self.info, self.config)

    @torch.inference_mode()
    def encode(
        self,
        image: Tensor,
        audio: Tensor,
        fps: float | None = None,
        *,
        region: FaceRegion | None = None,
        identity: Tensor | None = None,
        face_box: Tensor | None = None,
        masks: Masks | None = None,
    ) -> Job:
        """Encode portrait and speech, once a job.

        Args:
            image: (1, 3, h, w) in -1..1, any size; cut to the region's square, or else the one in its middle, and
                resized to the model's.
            audio: (samples,) float, mono, 16 kHz, of any length; the video gets ceil(seconds * fps) frames.
            fps: must be the model's own rate, `config.fps`, the only one that it has seen mouths move at.
            region: the face's place in `image`, from `find_face`; `face_box` and `masks` follow from it.
            identity: face embedding, (1, identity_dim), for models with identity tokens; None: zeros.
            face_box: picture of the face's box, (1, face_channels[0], size, size) in 0..1, for models with a face
                locator.
            masks: of the audio regions, masks[level][region], (1, h*w, 1) in 0..1.

        Raises:
            FadaError: empty or non-finite input, wrong shape, a region of another picture, an identity that the model
                does not take, another fps, or out of memory.
        """
        with shared_machine(self.device.type):
            subject = encode_portrait(self.networks, self.device, image, region, identity, face_box, masks)
            features = encode_speech(self.networks, self.device, audio, fps)
        return Job(self.config, subject, features)

    @torch.inference_mode()
    def reconstruct(self, image: Tensor, region: FaceRegion | None = None) -> Tensor:
        """The square that is animated, encoded and decoded again with nothing denoised: (1, 3, size, size) in -1..1,
        float32 on the CPU. What a frame changes is its difference from this (`face.paste`).

        Raises:
            FadaError: as `encode` for the picture, or out of memory.
        """
        subject = encode_portrait(self.networks, self.device, image, region)
        return self.decode(subject.portrait).float().cpu()

    def sample(
        self,
        job: Job,
        mode: Mode | None = None,
        *,
        seed: int = 0,
        callback: Callback | None = None,
        after: Tensor | None = None,
        **options: Any,
    ) -> Iterator[Tensor]:
        """Sample latents clip by clip, (frames, c, h, w) float32 each, as the iterator is advanced.

        Arguments are checked at once, before the first clip. Afterwards `stats` tells what was done.

        Args:
            mode: one of `modes`: "teacher" for a teacher; for a student "fast" (one pass a step) or "balanced" (its
                three branches); default the first of them.
            seed: of the start noise, -2^63 .. 2^64 - 1.
            callback: called as callback(step, steps, latents) between steps, counted over all clips, with the clip's
                expected latents (`preview` shows them); whatever it raises ends the sampling.
            after: latents (n, c, h, w) of the first clips, from an earlier call with the same arguments that was ended;
                the clips that were missing follow, bit for bit as they would have then.
            options: other fields of `settings.SamplingOptions`: steps (1..1000), ref_cfg and audio_cfg (0..20; in fast
                mode within `info.scale_ranges`), solver, guidance_interval, region_weights, batch_branches, compute.
                Decoding computes in the same way until the next call. On CUDA every `compute` but "eager" keeps memory
                until `release`.

        Raises:
            FadaError: the mode does not fit the checkpoint, a value is out of range, no such way to compute or not on
                this device, `after` is not whole clips of a part of this video, or out of memory.
        """
        if job.config != self.config:
            raise FadaError(f"The condition was encoded by another model; encode it again with '{self.config.name}'.")
        asked = SamplingOptions(mode=mode, **options)
        settings = self._resolve(asked)
        if after is not None:
            whole = self.config.clip_frames - self.config.clip_overlap
            possible = range(whole, job.frames, whole)
            if after.shape[1:] != job.subject.portrait.shape[1:] or len(after) not in possible:
                raise FadaError(
                    f"after has the shape {tuple(after.shape)}; give the latents of whole clips, {whole} frames each, "
                    f"fewer than the video's {job.frames} frames."
                )
            after = after[None]
        clips = clip_count(job.frames, self.config.clip_frames)
        self._compute_as(asked.compute, clips * evaluations(settings))
        self.stats = Stats()
        return self._clips(job, settings, _generator(seed), callback, self.stats, after)

    def stream(
        self,
        image: Tensor,
        chunks: Iterable[Tensor],
        *,
        seed: int = 0,
        lookahead: float = 0.2,
        region: FaceRegion | None = None,
        identity: Tensor | None = None,
        **options: Any,
    ) -> Iterator[LiveFrames]:
        """Follow speech that arrives piece by piece, from a microphone or a voice synthesis; memory does not grow.

        Frames come as soon as a clip's speech and a little beyond it are there. While nothing comes, the face rests.

        Args:
            image: (1, 3, h, w) in -1..1, as for `encode`; so are `region` and `identity`.
            chunks: samples, (samples,) float mono 16 kHz, of any length; an empty one says that nothing comes for now,
                and silence takes its place; their end ends the video.
            lookahead: seconds of speech beyond its own audio that a clip waits for. With the mel encoder, 0.02 give the
                same video as `sample` for the whole recording; other encoders come closer with more.
            options: fields of `settings.SamplingOptions`, as for `sample`; compute "auto" never compiles, as nobody
                knows how long this will be.

        Raises:
            FadaError: as `encode` and `sample`; or a model that makes all its clips together.
        """
        asked = SamplingOptions(**options)
        settings = self._resolve(asked)
        self._compute_as(asked.compute, 0)
        subject = encode_portrait(self.networks, self.device, image, region, identity)
        self.stats = Stats()
        live = sample_live(self.denoiser, subject, _checked(chunks), settings, _generator(seed), lookahead)
        return self._live_frames(live, self.stats)

    def release(self) -> None:
        """Give back the memory that is kept between two videos so that the second one begins sooner."""
        release(self.denoiser)

    def _resolve(self, options: SamplingOptions) -> SamplingSettings:
        settings = resolve_settings(self.info, self.config, options)
        build_solver(self.denoiser.schedule, settings.steps, settings.solver)  # refuses wrong steps and names
        return settings

    def _compute_as(self, asked: str, planned: int) -> None:
        """Switch to this way to compute, for so many evaluations."""
        compute = choose(asked, self.device, planned)
        if compute != self.compute:
            self.denoiser = build_denoiser(self.networks, compute, self.device)
            self.compute = compute

    @torch.inference_mode()
    def _live_frames(self, clips: Iterator[LiveClip], stats: Stats) -> Iterator[LiveFrames]:
        with shared_machine(self.device.type) as share:
            while True:
                share()
                with out_of_memory():
                    clip = next(clips, None)
                if clip is None:
                    return
                stats.clips += 1
                stats.frames += len(clip.latents)
                stats.nfe += clip.nfe
                stats.nfe_per_clip = clip.nfe
                stats.seconds += clip.seconds
                yield LiveFrames(self.decode(clip.latents), clip.samples)

    @torch.inference_mode()
    def _clips(
        self,
        job: Job,
        settings: SamplingSettings,
        generator: torch.Generator,
        callback: Callback | None,
        stats: Stats,
        after: Tensor | None,
    ) -> Iterator[Tensor]:
        subject = map_tensors(lambda value: value.to(self.device), job.subject)
        advice = OUT_OF_MEMORY_ADVICE
        if settings.batch_branches:
            advice = "sample with batch_branches=False (--no-batch-branches), or with scales that need fewer branches"
        with shared_machine(self.device.type) as share:

            def between(step: int, steps: int, latents: Tensor) -> None:
                share()
                if callback is not None:
                    callback(step, steps, latents)

            hear = between if callback is not None or self.device.type == "cpu" else None
            chain = sample_chain(self.denoiser, subject, job.audio_features, settings, generator, hear, after)
            check: FiniteCheck | None = None
            while True:
                start = time.perf_counter()
                with out_of_memory(advice):
                    clip = next(chain, None)
                if check is not None:  # of the clip before, now that this one is queued
                    check.answer()
                if clip is None:
                    return
                check = FiniteCheck(clip.latents, "The latents", self.networks.dtype)
                if self.device.type != "cuda":
                    check.answer()
                stats.clips += 1
                stats.frames += clip.latents.shape[1]
                stats.nfe += clip.nfe
                stats.nfe_per_clip = clip.nfe_per_clip
                stats.seconds += time.perf_counter() - start
                yield clip.latents[0]

    @torch.inference_mode()
    def decode(self, latents: Tensor, batch: int | None = None, *, checked: bool = True) -> Tensor:
        """Latents (n, c, h, w) to frames (n, 3, size, size) in -1..1, float32.

        If memory runs out, fewer frames are decoded at a time from then on, and at last, with Stable Diffusion's
        autoencoder, single frames in tiles, which the log says: their colours differ a little.

        Args:
            batch: frames at a time; default DECODE_BATCH, or as many as there is memory for.
            checked: False: the caller looks for values that are not finite, later, without waiting for them here.

        Raises:
            FadaError: out of memory even so, or frames that are not finite.
        """
        networks, vae = self.networks, self.networks.vae
        if batch is None:
            free, each = free_bytes(self.device), vae.picture_bytes(self.config.size, networks.dtype)
            batch = DECODE_BATCH if free is None else max(1, min(DECODE_BATCH, free // each))
        batch = min(batch, self._decodable)
        # The order of memory that convolutions like; without it, a quarter slower on a CPU.
        ordered = latents.to(self.device, networks.dtype).contiguous(memory_format=torch.channels_last)
        with shared_machine(self.device.type) as share:
            share()
            while True:
                decode = self.denoiser.decode if batch else vae.decode_tiled
                with out_of_memory():
                    try:
                        parts = ordered.chunk(math.ceil(len(ordered) / max(1, batch)))  # all alike, for the compiler
                        frames = torch.cat([decode(part).float() for part in parts])
                        break
                    except torch.OutOfMemoryError:
                        if not batch or (batch == 1 and not vae.tiles):
                            raise
                batch = self._decodable = batch // 2
                if batch:
                    log.info("Memory is short: decoding %d frames at a time from here.", batch)
                else:
                    log.warning("Memory is short: decoding in tiles from here, whose colours may differ a little.")
        if checked:
            FiniteCheck(frames, "The frames", networks.dtype).answer()
        return frames

    @torch.inference_mode()
    def preview(self, latents: Tensor) -> Tensor:
        """Rough frames, as `decode`, of unfinished latents (n, c, h, w); a fraction of its cost."""
        return self.networks.vae.preview(latents.to(self.device, self.networks.dtype)).float()


def _generator(seed: int) -> torch.Generator:
    if not -(2**63) <= seed < 2**64:
        raise FadaError(f"The seed {seed} does not fit 64 bits; choose a smaller one.")
    return torch.Generator().manual_seed(seed)


def _checked(chunks: Iterable[Tensor]) -> Iterator[Tensor]:
    for chunk in chunks:
        if chunk.ndim != 1 or not chunk.isfinite().all():
            raise FadaError("A piece of the speech is not mono or not finite (NaN); give samples, (samples,).")
        yield chunk
