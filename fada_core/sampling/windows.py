"""Denoises a video as a whole, in overlapping windows whose predictions are averaged, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from ..models.audio.projection import clip_windows
from ..models.inputs import Subject
from ..settings import SamplingSettings
from .denoise import Callback, Clip, Denoiser, GuidedClip, start_noise
from .solvers import Solver, build_solver

_SHIFT = 2  #: frames by which the windows move with each step, so that seams do not stay between the same frames


def window_starts(frames: int, length: int, overlap: int, step: int) -> list[int]:
    """First frames of the windows of one denoising step, ascending; together they cover all `frames`.

    Neighbouring windows share at least `overlap` frames. All windows move with each step; a window that would extend
    beyond either end of the video is moved back inside.

    Args:
        length: frames of a window, at most `frames`.
        step: index of the denoising step.
    """
    stride = length - overlap
    first = _SHIFT * step % stride - stride
    return sorted({min(max(start, 0), frames - length) for start in range(first, frames, stride)})


class _Step:
    """One denoising step of the whole video as a pipeline stage: frames enter in order, and leave as soon as no further
    window covers them.

    A stage thus holds little more than one window, and later steps start before earlier ones have processed all frames.
    Frames before the first window are dropped.
    """

    def __init__(self, starts: list[int], length: int, predict: Callable[[Tensor, int], Tensor]) -> None:
        self._starts, self._length, self._predict = starts, length, predict
        self._first = starts[0]  # index of the first frame in `_frames`
        self._frames: list[tuple[Tensor, Solver]] = []
        self._sums: list[Tensor] = []
        self._counts: list[int] = []

    def push(self, frame: int, latents: Tensor, solver: Solver, t: int) -> list[tuple[int, Tensor, Solver]]:
        """Add a frame, (1, 1, c, h, w), at timestep t; returns the frames whose step is complete, with their index."""
        if frame < self._first:
            return []
        self._frames.append((latents, solver))
        self._sums.append(torch.zeros_like(latents))
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

    Each step covers all frames with windows of `clip_frames`. A window depends only on its own frames from the previous
    step. The steps therefore run staggered, one window at a time: the result is the same as if each step ran over the
    whole video before the next, but frames are finished in order, and memory does not grow with the video's length.
    Unlike EchoMimic's, the windows do not wrap around from the last frame to the first. A video shorter than a window
    is sampled at the length of a window, and cut.

    Arguments and results are those of `sample_chain`; a clip has `clip_frames - clip_overlap` frames.
    """
    config, schedule = denoiser.networks.config, denoiser.schedule
    length, total = config.clip_frames, max(len(features), config.clip_frames)
    portrait = subject.portrait
    motion = portrait.new_zeros(1, 0, *portrait.shape[1:])
    timesteps = build_solver(schedule, settings.steps, settings.solver).timesteps
    starts = [window_starts(total, length, config.clip_overlap, step) for step in range(len(timesteps))]
    windows = sum(map(len, starts))
    needed = made = 0 if after is None else after.shape[1]
    for own in reversed(starts):  # drop windows that no later frame depends on; earlier steps need more frames
        own[:] = [start for start in own if start + length > needed]
        needed = own[0]
    done, nfe = windows - sum(map(len, starts)), 0
    passes: dict[int, int] = {}  # timestep -> forward passes of one window

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
