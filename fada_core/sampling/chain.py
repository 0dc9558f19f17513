"""Clips over audio of any length, in constant memory: chained by motion frames, or as overlapping windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from ..models.audio.projection import window_features
from ..models.inputs import Subject
from ..settings import SamplingSettings
from .denoise import Callback, Clip, Denoiser, GuidedClip, sample_clip, start_noise
from .solvers import Solver, build_solver

_SHIFT = 2  # frames by which the windows move from step to step, so that no two frames always meet at a seam


def clip_count(frames: int, clip_frames: int) -> int:
    """Clips that `frames` frames take."""
    return -(-frames // clip_frames)


def clip_windows(features: Tensor, start: int, frames: int, window: int) -> Tensor:
    """Audio features of one clip, (1, frames, window, layers, dim), from those of the whole audio (n, layers, dim).

    Neighbours come from the whole audio, not only from the clip; beyond its ends the first or last row is repeated.
    """
    reach = window // 2
    rows = torch.arange(start - reach, start + frames + reach, device=features.device).clamp(0, len(features) - 1)
    return window_features(features[rows], window)[None, reach : reach + frames]


@torch.no_grad()
def next_motion(denoiser: Denoiser, latents: Tensor) -> Tensor:
    """What the next clip sees of this one: its last frames' latents, (1, motion_frames, c, h, w) float32.

    By `motion_space` as they are, or through pictures as in Hallo, where the autoencoder's losses add up over the clips
    but the reference UNet only ever sees latents of real pictures.
    """
    networks, config = denoiser.networks, denoiser.networks.config
    last = latents[:, latents.shape[1] - config.motion_frames :]
    if config.motion_space == "latents" or not config.motion_frames:
        return last.clone()  # not a view: the clip itself shall be free to go
    pictures = denoiser.decode(last[0].to(networks.dtype))
    return networks.vae.encode(pictures).float()[None]


def sample_chain(
    denoiser: Denoiser,
    subject: Subject,
    features: Tensor,
    settings: SamplingSettings,
    generator: torch.Generator,
    callback: Callback | None = None,
    after: Tensor | None = None,
) -> Iterator[Clip]:
    """Sample clip after clip, each when it is asked for; together they have one frame per row of `features`.

    With the config's `clip_overlap`, this is `sample_windows`. Else the first clip's motion frames are the portrait
    (Hallo, arXiv 2406.08801), and the last clip is sampled in full, over repeated audio rows, and cut.

    Args:
        features: audio features of the whole audio, (frames, layers, dim), at least one row.
        generator: on the CPU; one for all clips.
        callback: counts the steps of all clips together.
        after: the first clips, (1, frames, c, h, w), which an earlier call with the same arguments has made; the
            others follow, exactly as they would have then.
    """
    config = denoiser.networks.config
    if config.clip_overlap:
        yield from sample_windows(denoiser, subject, features, settings, generator, callback, after)
        return
    total, length = len(features), config.clip_frames
    clips = clip_count(total, length)
    portrait = subject.portrait
    motion = portrait[:, None].expand(1, config.motion_frames, *portrait.shape[1:])
    first = 0
    if after is not None:
        first = after.shape[1] // length
        motion = next_motion(denoiser, after.to(portrait.device))

    for clip in range(clips):
        if clip < first:
            start_noise(portrait, length, generator)  # was for this clip; the next one gets the next
            continue
        start = clip * length
        audio = clip_windows(features, start, length, config.condition.audio_window).to(portrait.device)
        report = None
        if callback:

            def report(done: int, steps: int, expected: Tensor, before: int = clip) -> None:
                callback(before * steps + done, clips * steps, expected)

        made = sample_clip(denoiser, subject, motion, audio, settings, generator, report)
        if clip + 1 < clips:
            motion = next_motion(denoiser, made.latents)
        yield made._replace(latents=made.latents[:, : total - start])


def window_starts(frames: int, length: int, overlap: int, step: int) -> list[int]:
    """First frames of the windows that one denoising step takes, ascending; together they cover all `frames`.

    Neighbours share at least `overlap` frames. From step to step all windows move on; those that would reach over an
    end are moved back inside.
    """
    stride = length - overlap
    first = _SHIFT * step % stride - stride
    return sorted({min(max(start, 0), frames - length) for start in range(first, frames, stride)})


class _Step:
    """One denoising step of the whole video. Frames come in order, each leaves when no further window will touch it.

    So a step holds little more than one window, and a later step can begin before an earlier one has seen the end.
    Frames before the first window are let go.
    """

    def __init__(self, starts: list[int], length: int, predict: Callable[[Tensor, int], Tensor]) -> None:
        self._starts, self._length, self._predict = starts, length, predict
        self._first = starts[0]  # index of the first frame that is held
        self._frames: list[tuple[Tensor, Solver]] = []
        self._sums: list[Tensor | float] = []
        self._counts: list[int] = []

    def push(self, frame: int, latents: Tensor, solver: Solver, t: int) -> list[tuple[int, Tensor, Solver]]:
        """One more frame, its index and (1, 1, c, h, w), at timestep t; returns those that have now made the step."""
        if frame < self._first:
            return []
        self._frames.append((latents, solver))
        self._sums.append(0.0)
        self._counts.append(0)
        if not self._starts or self._first + len(self._frames) < self._starts[0] + self._length:
            return []
        start = self._starts.pop(0)
        low = start - self._first
        window = torch.cat([x for x, _ in self._frames[low:]], 1)
        for i, prediction in enumerate(self._predict(window, start).split(1, 1), start=low):
            self._sums[i] = self._sums[i] + prediction
            self._counts[i] += 1
        ready = self._starts[0] - self._first if self._starts else len(self._frames)
        done = zip(self._frames[:ready], self._sums[:ready], self._counts[:ready], strict=True)
        moved = [
            (i, solver.step(total / count, t, x), solver)
            for i, ((x, solver), total, count) in enumerate(done, start=self._first)
        ]
        self._first += ready
        del self._frames[:ready], self._sums[:ready], self._counts[:ready]
        return moved


def sample_windows(
    denoiser: Denoiser,
    subject: Subject,
    features: Tensor,
    settings: SamplingSettings,
    generator: torch.Generator,
    callback: Callback | None = None,
    after: Tensor | None = None,
) -> Iterator[Clip]:
    """Denoise the whole video in overlapping windows whose predictions are averaged, as EchoMimic (2407.08136) does.

    Each step covers all frames with windows of `clip_frames`. A window needs only its own frames from the step before,
    so the steps run staggered, one window each: the result is the same as step by step over the whole video, but
    frames are finished in order, and memory does not grow with their number. Other than there, the windows do not go
    round from the last frame to the first. A video shorter than a window is sampled as a whole one, and cut.

    Arguments and result are those of `sample_chain`; a clip has as many frames as a window adds.
    """
    config, schedule = denoiser.networks.config, denoiser.schedule
    length, total = config.clip_frames, max(len(features), config.clip_frames)
    portrait = subject.portrait
    motion = portrait.new_zeros(1, 0, *portrait.shape[1:])
    timesteps = build_solver(schedule, settings.steps, settings.solver).timesteps
    starts = [window_starts(total, length, config.clip_overlap, step) for step in range(len(timesteps))]
    windows = sum(map(len, starts))
    needed = made = 0 if after is None else after.shape[1]
    for own in reversed(starts):  # what the frames after these depend on, in each step a little further back
        own[:] = [start for start in own if start + length > needed]
        needed = own[0]
    done, nfe = windows - sum(map(len, starts)), 0
    passes: dict[int, int] = {}  # timestep -> of one window

    def predict(t: int, x: Tensor, start: int) -> Tensor:
        nonlocal done, nfe
        audio = clip_windows(features, start, length, config.condition.audio_window).to(portrait.device)
        clip = GuidedClip(denoiser, subject, motion, audio, settings)
        prediction, _ = clip.step(x, t)
        done, nfe = done + 1, nfe + clip.nfe
        passes[t] = clip.nfe
        if callback:
            callback(done, windows, schedule.to_x0(x, prediction, t)[0])
        return prediction

    steps = [_Step(own, length, partial(predict, t)) for own, t in zip(starts, timesteps, strict=True)]
    finished: list[Tensor] = []
    stride, yielded = length - config.clip_overlap, made
    for frame in range(total):
        noise = start_noise(portrait, 1, generator)
        moving = [(frame, noise, build_solver(schedule, settings.steps, settings.solver))]
        for step, t in zip(steps, timesteps, strict=True):
            moving = [moved for i, x, solver in moving for moved in step.push(i, x, solver, t)]
        finished += [x for i, x, _ in moving if i >= made]
        while len(finished) >= stride or (frame + 1 == total and finished):
            clip = torch.cat(finished[:stride], 1)[:, : len(features) - yielded]
            del finished[:stride]
            if clip.shape[1]:
                yield Clip(clip, nfe, sum(passes.values()))
                yielded, nfe = yielded + clip.shape[1], 0
