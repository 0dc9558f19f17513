"""From a portrait and speech to video frames: load, encode, sample, decode. Each step can be used on its own.

pipe = fada_core.load("portrait")
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

DECODE_BATCH = 8  #: frames that are decoded at a time, at most


class LiveFrames(NamedTuple):
    """Frames and the audio of the same time span."""

    frames: Tensor  #: (n, 3, size, size) float32 in -1..1
    samples: Tensor  #: (samples,) float32, mono, 16 kHz


@dataclass
class Stats:
    """Counters of the latest `Pipeline.sample` or `stream`, updated after each clip."""

    clips: int = 0
    frames: int = 0
    nfe: int = 0  #: forward passes of the denoising UNet, counted per branch, in all clips
    nfe_per_clip: int = 0  #: the same for one clip
    seconds: float = 0.0  #: spent sampling, without the caller's time between clips


def load(
    name_or_path: str | Path,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    *,
    offload: bool = False,
) -> Pipeline:
    """Load a model as a pipeline.

    Args:
        name_or_path: a shipped model's name, or the path of a checkpoint.
        device: default `default_device()`.
        dtype: of the networks; default `default_dtype(device)`.
        offload: keep all networks but the denoising UNet in host memory: slower, but takes less device memory.

    Raises:
        FadaError: there is no such file or device, or the file is not a checkpoint.
    """
    device = default_device() if device is None else named_device(device)
    dtype = dtype or default_dtype(device)
    networks, info = load_checkpoint(name_or_path, device="cpu" if offload else device, dtype=dtype)
    if offload:
        keep_on_host(networks, device)
    return Pipeline(networks, info)


class Pipeline:
    """A loaded model. `networks` may be moved between calls; each call computes where they are.

    Args:
        device: where to compute if the layers load their weights from elsewhere (ComfyUI's layers, offloaded ones);
            default: the networks' own device.
    """

    def __init__(self, networks: Networks, info: CheckpointInfo, device: torch.device | None = None) -> None:
        self.networks, self.info = networks.eval(), info
        self._device = device
        self.config = networks.config
        self.stats = Stats()
        self._decodable = sys.maxsize  #: limit of frames to decode at a time, set when memory ran out; 0: use tiles
        self.compute = "eager"  #: the current way to compute, an entry of `settings.COMPUTE`
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
        *,
        region: FaceRegion | None = None,
        identity: Tensor | None = None,
        face_box: Tensor | None = None,
        masks: Masks | None = None,
    ) -> Job:
        """Encode portrait and speech, once per job.

        Args:
            image: (1, 3, h, w) in -1..1, of any size; cropped to the region's square, or else to the central square,
                and resized to the model's size.
            audio: (samples,) float, mono, 16 kHz, of any length; the video gets ceil(seconds * config.fps)
                frames.
            region: the face in `image`, from `find_face`; `face_box` and `masks` are derived from it unless given.
            identity: face embedding, (1, identity_dim), for models with identity tokens; None: zeros.
            face_box: image of the face's box, (1, face_channels[0], size, size) in 0..1, for models with a face
                locator.
            masks: of the audio regions, masks[level][region] of shape (1, h*w, 1) in 0..1.

        Raises:
            FadaError: the input is empty or not finite or has a wrong shape, the region belongs to another picture,
                the model does not take this identity embedding, or memory ran out.
        """
        with shared_machine(self.device.type):
            subject = encode_portrait(self.networks, self.device, image, region, identity, face_box, masks)
            features = encode_speech(self.networks, self.device, audio)
        return Job(self.config, subject, features)

    @torch.inference_mode()
    def reconstruct(self, image: Tensor, region: FaceRegion | None = None) -> Tensor:
        """Encode and decode the portrait without denoising; returns (1, 3, size, size) float32 in -1..1, on the CPU.

        A frame's difference from this picture is the motion in it, which `face.paste` adds to the original picture.

        Raises:
            FadaError: as in `encode` for the picture, or memory ran out.
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

        Arguments are checked by the call itself, before the first clip. `stats` counts the work done.

        Args:
            mode: one of `modes`: "teacher" for a teacher; for a student "fast" (one pass per step) or "balanced" (three
                branches per step); default: the first of `modes`.
            seed: of the initial noise, -2^63 .. 2^64 - 1.
            callback: called as callback(step, steps, latents) after each step, counted over all clips, with the current
                prediction of the clip's clean latents (for `preview`); an exception that it raises ends the sampling.
            after: latents (n, c, h, w) of the first clips, from an earlier, interrupted call with the same arguments;
                sampling continues with the next clip, and the result is bit for bit that of an uninterrupted call.
            options: other fields of `settings.SamplingOptions`: steps (1..1000), ref_cfg and audio_cfg (0..20; in fast
                mode within `info.scale_ranges`), solver, guidance_interval, region_weights, batch_branches, compute.
                `compute` also applies to `decode` until the next call; on CUDA every value but "eager" keeps memory
                until `release`.

        Raises:
            FadaError: the mode does not fit the checkpoint, a value is out of range, `compute` is unknown or not
                possible on this device, `after` does not consist of whole clips of a part of this video, or memory ran
                out.
        """
        if job.config != self.config:
            raise FadaError(
                f"Portrait and speech were encoded by another model; encode them again with '{self.config.name}'."
            )
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
        clips = clip_count(job.frames, self.config.clip_frames - self.config.clip_overlap)
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
        """Animate speech while it arrives, from a microphone or speech synthesis, in constant memory.

        A clip is sampled as soon as its own audio and `lookahead` seconds beyond it have arrived. While no speech
        arrives, the face is at rest.

        Args:
            image: (1, 3, h, w) in -1..1; `image`, `region` and `identity` are as in `encode`.
            chunks: pieces of audio of any length, (samples,) float, mono, 16 kHz. An empty one means that no speech is
                available at the moment, and is replaced by silence. The end of `chunks` ends the video.
            lookahead: seconds of audio after a clip to wait for. With the mel encoder, 0.02 suffices for the same video
                as from `sample` with the whole recording; with other encoders the difference shrinks as it grows.
            options: fields of `settings.SamplingOptions`, as in `sample`; compute "auto" never compiles, as the length
                of the video is unknown.

        Raises:
            FadaError: as in `encode` and `sample`, or the model denoises all its clips together.
        """
        asked = SamplingOptions(**options)
        settings = self._resolve(asked)
        self._compute_as(asked.compute, 0)
        subject = encode_portrait(self.networks, self.device, image, region, identity)
        self.stats = Stats()
        live = sample_live(self.denoiser, subject, _checked(chunks), settings, _generator(seed), lookahead)
        return self._live_frames(live, self.stats)

    def release(self) -> None:
        """Free memory that compiled and recorded steps keep between videos; the next video then starts later."""
        release(self.denoiser)

    def _resolve(self, options: SamplingOptions) -> SamplingSettings:
        settings = resolve_settings(self.info, self.config, options)
        build_solver(self.denoiser.schedule, settings.steps, settings.solver)  # refuses wrong steps and names
        return settings

    def _compute_as(self, asked: str, planned: int) -> None:
        """Switch to the way of computing that is `asked` for; "auto" depends on the number of evaluations planned."""
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
                if check is not None:  # of the previous clip: the device is busy with this one meanwhile
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
        """Decode latents (n, c, h, w) to frames (n, 3, size, size) float32 in -1..1.

        If memory runs out, fewer frames are decoded at a time from then on; Stable Diffusion's autoencoder finally
        decodes single frames in tiles, whose colours may differ slightly. Both are logged.

        Args:
            batch: frames at a time; default: DECODE_BATCH, or fewer if memory is short.
            checked: whether to check here that all frames are finite, which waits for the device; if False, the caller
                has to check.

        Raises:
            FadaError: memory ran out nevertheless, or frames are not finite.
        """
        networks, vae = self.networks, self.networks.vae
        if batch is None:
            free, each = free_bytes(self.device), vae.picture_bytes(self.config.size, networks.dtype)
            batch = DECODE_BATCH if free is None else max(1, min(DECODE_BATCH, free // each))
        batch = min(batch, self._decodable)
        # Convolutions are faster in channels_last; without it, decoding takes a quarter longer on a CPU.
        ordered = latents.to(self.device, networks.dtype).contiguous(memory_format=torch.channels_last)
        with shared_machine(self.device.type) as share:
            share()
            while True:
                decode = self.denoiser.decode if batch else vae.decode_tiled
                with out_of_memory():
                    try:
                        # Equal parts where possible: torch.compile compiles again for another size.
                        parts = ordered.chunk(math.ceil(len(ordered) / max(1, batch)))
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
        """Rough frames of (also noisy) latents (n, c, h, w), shaped as in `decode`, at a fraction of its cost."""
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
