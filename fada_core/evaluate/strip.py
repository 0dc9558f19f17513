"""Command: show the effect of the two guidance scales: the same frames of an avatar's video, one row per setting.

python -m fada_core.evaluate.strip --out scales.png
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont

from ..avatars.clip import sample
from ..command import run_command
from ..data.avatars import HELD_OUT_SEED
from ..media.image import from_uint8, to_uint8
from ..pipeline import load
from ..settings import Mode
from .cases import Case
from .runs import Run, generate

LABEL_WIDTH = 132  #: pixels at the left of each row


@dataclass(frozen=True)
class StripConfig:
    """Draw one avatar speaking at different guidance scales."""

    out: Path
    """The picture, .png or .jpg."""
    model: str = "portrait"
    """Name of a shipped model, or a checkpoint."""
    mode: Mode = "fast"
    ref_cfg: tuple[float, ...] = ()
    """Reference scales to show, at the model's usual audio scale (default: both ends of the trained range)."""
    audio_cfg: tuple[float, ...] = ()
    """Audio scales to show, at the model's usual reference scale (default: ends and middle of the trained range)."""
    seed: int = HELD_OUT_SEED + 7
    """Seed of the avatar; seeds from 1 000 000 on are in no training."""
    seconds: float = 2.0
    frames: int = 10
    """Number of evenly spaced frames to show."""


def strip(config: StripConfig) -> np.ndarray:
    """Rows of frames with labels at their left, the rendered frames first: (height, width, 3) uint8."""
    pipe = load(config.model)
    model, info = pipe.config, pipe.info
    (low_ref, high_ref), (low_audio, high_audio) = info.scale_ranges
    refs = config.ref_cfg or (low_ref, high_ref)
    audios = config.audio_cfg or (low_audio, (low_audio + high_audio) / 2, high_audio)
    scales = [(info.ref_cfg, audio) for audio in audios] + [(ref, info.audio_cfg) for ref in refs]

    clip = sample(config.seed, "high", config.seconds, size=model.size, fps=model.fps, framing="face")
    case = Case(from_uint8(clip.portrait), clip.waveform, from_uint8(clip.frames), lambda _: {})
    shown = torch.linspace(0, len(case.frames) - 1, config.frames).round().long()
    rows = [_row("rendered", to_uint8(case.frames[shown]).numpy())]
    for ref_cfg, audio_cfg in scales:
        frames, _ = generate(Run("", pipe, mode=config.mode, ref_cfg=ref_cfg, audio_cfg=audio_cfg), case, 0)
        rows.append(_row(f"ref {ref_cfg:g}\naudio {audio_cfg:g}", to_uint8(frames[shown]).numpy()))
    return np.concatenate(rows)


def _row(text: str, frames: np.ndarray) -> np.ndarray:
    label = Image.new("RGB", (LABEL_WIDTH, frames.shape[1]), "white")
    draw = ImageDraw.Draw(label)
    draw.multiline_text((12, frames.shape[1] // 2), text, "black", ImageFont.load_default(20), "lm", spacing=8)
    return np.concatenate([np.asarray(label), rearrange(frames, "n h w c -> h (n w) c")], axis=1)


def main() -> int:
    def work(config: StripConfig) -> None:
        iio.imwrite(config.out, strip(config))

    return run_command(work, StripConfig, "evaluate.strip", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
