"""Live speech: the same video as of the whole recording, without delay, and silence where no speech arrives."""

from __future__ import annotations

import math

import pytest
import torch

from fada_core.bench.live import LiveConfig, measure
from fada_core.checkpoint import CheckpointInfo
from fada_core.errors import FadaError
from fada_core.pipeline import Pipeline
from tests.support.networks import FRAME, OVERLAPPING, SMALL, make_networks, speech

SETTINGS = {"steps": 2, "ref_cfg": 1.0, "audio_cfg": 2.0, "seed": 3}
LENGTH, REACH = SMALL.clip_frames, SMALL.condition.audio_window // 2


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return Pipeline(make_networks(SMALL), CheckpointInfo(role="teacher"))


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("pieces", [[10 * FRAME + 100], [1] * 3 + [777] * 20, [3 * FRAME, 9 * FRAME]])
def test_pieces_make_the_video_of_the_whole(pipe: Pipeline, image: torch.Tensor, pieces: list[int]) -> None:
    whole = speech(sum(pieces))
    offline = [pipe.decode(latents) for latents in pipe.sample(pipe.encode(image, whole), **SETTINGS)]
    live = list(pipe.stream(image, whole.split(pieces), lookahead=0.02, **SETTINGS))
    torch.testing.assert_close(torch.cat([part.frames for part in live]), torch.cat(offline), atol=1e-5, rtol=0)
    assert torch.equal(torch.cat([part.samples for part in live]), whole)
    assert (pipe.stats.clips, pipe.stats.nfe_per_clip) == (len(offline), 4)


def test_a_clip_comes_as_soon_as_its_speech_is_there(pipe: Pipeline, image: torch.Tensor) -> None:
    given = 0

    def piecewise():
        nonlocal given
        for piece in speech(40 * FRAME).split(FRAME):
            given += 1
            yield piece

    seen = [given for _ in pipe.stream(image, piecewise(), lookahead=2 * FRAME / 16000, **SETTINGS)]
    assert seen[:3] == [LENGTH + REACH + 2, 2 * LENGTH + REACH + 2, 3 * LENGTH + REACH + 2]


def test_silence_takes_the_place_of_what_does_not_come(pipe: Pipeline, image: torch.Tensor) -> None:
    spoken, nothing = speech(5 * FRAME), torch.zeros(0)
    live = list(pipe.stream(image, [nothing, spoken, nothing, nothing], lookahead=0.04, **SETTINGS))
    heard = torch.cat([part.samples for part in live])
    before = (LENGTH + REACH + 1) * FRAME  # one clip, and what it looks ahead
    assert torch.equal(heard[:before], torch.zeros(before))
    assert torch.equal(heard[before : before + len(spoken)], spoken) and not heard[before + len(spoken) :].any()
    assert sum(len(part.frames) for part in live) * FRAME == len(heard)
    offline = [pipe.decode(latents) for latents in pipe.sample(pipe.encode(image, heard), **SETTINGS)]
    torch.testing.assert_close(torch.cat([part.frames for part in live]), torch.cat(offline), atol=1e-5, rtol=0)


def test_mistakes(pipe: Pipeline, image: torch.Tensor) -> None:
    with pytest.raises(FadaError, match="mode 'teacher'"):
        pipe.stream(image, [], mode="fast")
    with pytest.raises(FadaError, match="look-ahead is -1"):
        pipe.stream(image, [], lookahead=-1)
    with pytest.raises(FadaError, match="not finite"):
        next(pipe.stream(image, [torch.full((10,), float("nan"))]))
    assert list(pipe.stream(image, [])) == []
    with pytest.raises(FadaError, match="all clips together"):
        Pipeline(make_networks(OVERLAPPING), CheckpointInfo(role="teacher")).stream(image, [])


def test_lag_is_measured_from_the_sound(pipe: Pipeline) -> None:
    """No frame can be shown before its clip has been heard and sampled."""
    lag = measure(pipe, LiveConfig(steps=1, seconds=1.0, lookahead=0.1))
    assert lag.clip == LENGTH / 25 and lag.clips == math.ceil(25 / LENGTH)
    assert lag.first_frame >= lag.clip + 0.1
    assert min(lag.median, lag.last) >= lag.work > 0
