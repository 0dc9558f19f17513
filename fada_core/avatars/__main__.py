"""`python -m fada_core.avatars`: render one clip to a folder, with the truth of every frame beside it."""

import json
import sys
import wave
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

from ..command import run_command
from ..errors import FadaError
from .clip import AvatarClip, Pool, sample
from .speech import SAMPLE_RATE


@dataclass
class Options:
    """Render one procedural talking avatar: portrait.png, speech.wav, truth.mp4 and truth.json."""

    out: Path
    """folder to write to; made where missing"""
    seed: int = 0
    """the same seed gives the same clip"""
    pool: Pool = "high"
    """high: clean; moderate: wilder looks, defects and sound out of step"""
    seconds: float = 4.0
    size: int = 128
    """width and height in pixels; even"""
    fps: float = 25.0


def _write_wave(path: Path, waveform: torch.Tensor) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((waveform.clamp(-1, 1) * 32767).round().to(torch.int16).numpy().tobytes())


def _write_video(path: Path, clip: AvatarClip) -> None:
    size = clip.frames.shape[-1]
    with av.open(str(path), "w") as file:
        video = file.add_stream("h264", rate=Fraction(clip.fps).limit_denominator(1001))
        video.width, video.height, video.pix_fmt, video.options = size, size, "yuv420p", {"crf": "12"}
        audio = file.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for picture in clip.frames.permute(0, 2, 3, 1).numpy():
            file.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        file.mux(video.encode())
        sound = av.AudioFrame.from_ndarray(clip.waveform[None].numpy(), format="fltp", layout="mono")
        sound.sample_rate = SAMPLE_RATE
        file.mux(audio.encode(sound))
        file.mux(audio.encode())


def main(options: Options) -> None:
    """Render and write the files. Raises `FadaError` for a size that no video can have, and what `sample` raises."""
    if options.size % 2:
        raise FadaError(f"A video needs an even size, not {options.size}: add or take away one pixel.")
    clip = sample(options.seed, options.pool, options.seconds, size=options.size, fps=options.fps)
    options.out.mkdir(parents=True, exist_ok=True)
    portrait = ((clip.portrait + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(portrait).save(options.out / "portrait.png")
    _write_wave(options.out / "speech.wav", clip.waveform)
    _write_video(options.out / "truth.mp4", clip)
    facts = {
        "seed": clip.seed,
        "pool": clip.pool,
        "fps": clip.fps,
        "size": options.size,
        "text": clip.text,
        "voice": clip.voice,
        "degradations": clip.degradations,
        "av_offset": clip.av_offset,
        "identity": asdict(clip.identity),
        "phonemes": [asdict(phoneme) for phoneme in clip.phonemes],
        "frames": {name: value.tolist() for name, value in clip.truth.items()},
    }
    (options.out / "truth.json").write_text(json.dumps(facts, ensure_ascii=False, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run_command(main, Options, "avatars"))
