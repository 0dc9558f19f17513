"""Command: render a clip of a talking person with its ground truth to a folder, or a contact sheet of many people."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..command import run_command
from ..errors import FadaError
from ..media.audio import load_audio
from ..media.sinks import pcm, wav_file
from ..media.video import VideoWriter, contact_sheet
from .alignment import align
from .clip import Framing, Pool, sample
from .phones import SAMPLE_RATE
from .styles import STYLES

COLUMNS = 8  #: people in a row of the contact sheet


@dataclass
class Options:
    """Render a talking person (portrait.png, speech.wav, truth.mp4, truth.json), or a contact sheet of many people."""

    out: Path | None = None
    """Output folder of the clip; created if it is missing."""
    seed: int = 0
    """The same seed gives the same clip. The people on a sheet have this seed and the ones that follow."""
    pool: Pool = "high"
    """high: clean photographs; moderate: all styles, harsher light and cameras, defects, and sound out of sync."""
    seconds: float = 4.0
    size: int = 256
    """Width and height in pixels; even."""
    fps: float = 25.0
    style: str | None = None
    """Style of the picture, such as photograph or oil; an unknown name makes the error list all of them (default: drawn
    from the pool's styles). On a sheet, "all" alternates photographs with each of the other styles."""
    framing: Framing = "any"
    """any: from a tight face to a bust, as a photographer would choose; face: the square crop that a model sees."""
    words_seed: int | None = None
    """Seed of the words: changes what is said and keeps the person, the light and the head movement."""
    recording: Path | None = None
    """Recording of English speech to use instead of synthetic speech, together with its --text; needs pocketsphinx."""
    text: str = ""
    """The words spoken in --recording."""
    sheet: Path | None = None
    """Picture file to write a contact sheet to: people in the middle of a word, eight in a row."""
    people: int = 16
    """Number of people on the sheet."""


def render_clip(options: Options, out: Path) -> None:
    """Write the files of one clip to `out`. Raises `FadaError` for an odd size, and what `align` and `sample` raise."""
    if options.size % 2:
        raise FadaError(f"A video needs an even size, not {options.size}: add or subtract one pixel.")
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
    with wav_file(out / "speech.wav", SAMPLE_RATE, 1) as file:
        file.writeframes(pcm(clip.waveform.numpy()))
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
    """Write a contact sheet of `options.people` to a picture file: of each, the frame with the widest open mouth."""
    frames = []
    for i in range(options.people):
        style = options.style
        if style == "all":
            style = STYLES[0] if i % 2 == 0 else STYLES[1 + i // 2 % (len(STYLES) - 1)]
        seed, size, fps = options.seed + i, options.size, options.fps
        clip = sample(seed, options.pool, 0.6, size=size, fps=fps, style=style, framing=options.framing)
        frames.append(clip.frames[int(clip.truth["openness"].argmax())].movedim(0, -1).numpy())
    contact_sheet(frames, min(COLUMNS, len(frames)), path)


def run(options: Options) -> None:
    """Render the clip, the sheet, or both.

    Raises:
        FadaError: neither a folder nor a sheet is given, `people` is below 1, or what `render_clip` raises.
    """
    if options.out is None and options.sheet is None:
        raise FadaError("There is nothing to write to; give a folder with --out, or a picture file with --sheet.")
    if options.people < 1:
        raise FadaError("A sheet needs at least one person; raise --people.")
    if options.sheet is not None:
        render_sheet(options, options.sheet)
    if options.out is not None:
        render_clip(options, options.out)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON serializable")


def main() -> int:
    return run_command(run, Options, "avatars")


if __name__ == "__main__":
    sys.exit(main())
