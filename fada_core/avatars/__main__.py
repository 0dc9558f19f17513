"""Command: render a clip of a talking person to a folder, with the truth of every frame, or a sheet of many people."""

import json
import sys
import wave
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..command import run_command
from ..errors import FadaError
from ..media.audio import load_audio
from ..media.video import VideoWriter, contact_sheet
from .alignment import align
from .clip import Framing, Pool, sample
from .phones import SAMPLE_RATE
from .styles import STYLES

COLUMNS = 8  #: of a sheet


@dataclass
class Options:
    """Render a talking person: portrait.png, speech.wav, truth.mp4 and truth.json; or a sheet of many."""

    out: Path | None = None
    """Folder to write to; made where missing."""
    seed: int = 0
    """The same seed gives the same clip; a sheet's people have the seeds from here on."""
    pool: Pool = "high"
    """high: clean photographs; moderate: all styles, wilder light and cameras, defects, sound out of step."""
    seconds: float = 4.0
    size: int = 256
    """Width and height in pixels; even."""
    fps: float = 25.0
    style: str | None = None
    """Of the picture, a photograph or oil for example; an unknown one names them all (default: the pool's). On a sheet
    "all": photographs and every other style in turn."""
    framing: Framing = "any"
    """any: a photographer's; face: the square around the face that a model sees."""
    words_seed: int | None = None
    """Other words with the same person, light and head movement."""
    recording: Path | None = None
    """A file with English speech to say in place of words of our own, with its --text; needs pocketsphinx."""
    text: str = ""
    """What is said in --recording."""
    sheet: Path | None = None
    """Picture file: people in the middle of a word, eight in a row, in place of a clip."""
    people: int = 16
    """How many are on the sheet."""


def render_clip(options: Options, out: Path) -> None:
    """Write the files of one clip to `out`; raises what `sample` raises, and `FadaError` for an odd size."""
    if options.size % 2:
        raise FadaError(f"A video needs an even size, not {options.size}: add or take away one pixel.")
    speech, seconds = None, options.seconds
    if options.recording is not None:
        waveform = load_audio(options.recording)
        speech, seconds = align(waveform.numpy(), options.text, options.recording.name), len(waveform) / SAMPLE_RATE
    clip = sample(
        options.seed,
        options.pool,
        seconds,
        size=options.size,
        fps=options.fps,
        style=options.style,
        framing=options.framing,
        words_seed=options.words_seed,
        speech=speech,
    )
    out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(clip.portrait.movedim(0, -1).numpy()).save(out / "portrait.png")
    with wave.open(str(out / "speech.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((clip.waveform.clamp(-1, 1) * 32767).round().to(torch.int16).numpy().tobytes())
    with VideoWriter(out / "truth.mp4", options.size, options.size, clip.fps, clip.waveform, crf=12) as writer:
        writer.write(clip.frames.movedim(1, -1).numpy())
    facts = {
        "seed": clip.seed,
        "pool": clip.pool,
        "style": clip.style,
        "fps": clip.fps,
        "size": options.size,
        "text": clip.text,
        "voice": clip.voice,
        "degradations": clip.degradations,
        "av_offset": clip.av_offset,
        "person": asdict(clip.person),
        "phonemes": [asdict(phoneme) for phoneme in clip.phonemes],
        "frames": {name: value.tolist() for name, value in clip.truth.items()},
    }
    text = json.dumps(facts, ensure_ascii=False, indent=1, default=_plain)
    (out / "truth.json").write_text(text, encoding="utf-8")


def render_sheet(options: Options, path: Path) -> None:
    """One frame of each of `options.people`, the widest open of a short clip, to a picture file."""
    frames = []
    for i in range(options.people):
        style = options.style
        if style == "all":
            style = STYLES[0] if i % 2 == 0 else STYLES[1 + i // 2 % (len(STYLES) - 1)]
        made = {"size": options.size, "style": style, "framing": options.framing, "fps": options.fps}
        clip = sample(options.seed + i, options.pool, 0.6, **made)
        frames.append(clip.frames[int(clip.truth["openness"].argmax())].movedim(0, -1).numpy())
    contact_sheet(frames, min(COLUMNS, len(frames)), path)


def run(options: Options) -> None:
    """
    Raises:
        FadaError: neither a folder nor a sheet is named, no people, and what `sample` raises.
    """
    if options.out is None and options.sheet is None:
        raise FadaError("There is nothing to write to; give a folder with --out, or a picture file with --sheet.")
    if options.people < 1:
        raise FadaError("A sheet needs at least one of the people; raise --people.")
    if options.sheet is not None:
        render_sheet(options, options.sheet)
    if options.out is not None:
        render_clip(options, options.out)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no JSON")


def main() -> int:
    return run_command(run, Options, "avatars")


if __name__ == "__main__":
    sys.exit(main())
