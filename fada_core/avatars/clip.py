"""A whole clip by its seed: who speaks, what is heard, how the face moves, and the frames that show it."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from ..errors import FadaError
from .behaviour import behave
from .degrade import add_noise, degrade, delay
from .identity import Identity, sample_identity
from .render import feature_boxes, render
from .speech import LANGUAGES, SAMPLE_RATE, VARIANTS, Phoneme, Speech, synthesize
from .texts import sentence
from .visemes import loudness, mouth_track

Pool = Literal["high", "moderate"]
_SPEECHLESS = 0.12  # share of clips in which nobody speaks, so that a model learns to keep the mouth closed


@dataclass
class AvatarClip:
    """A talking avatar with everything that is true about it.

    `portrait` (3, size, size) float in -1..1 with a closed mouth and open eyes; `frames` (n, 3, size, size) uint8;
    `clean_frames` the same before any defect of the moderate pool; `waveform` (samples,) float32 mono 16 kHz, exactly
    n / fps seconds; `truth` per frame: the motion given to `render`, and `mouth_box`, `eyes_box`, `face_box` (n, 4) in
    pixels. `av_offset` is by how many frames the sound comes late.
    """

    portrait: torch.Tensor
    frames: torch.Tensor
    clean_frames: torch.Tensor
    waveform: torch.Tensor
    truth: dict[str, torch.Tensor]
    identity: Identity
    phonemes: list[Phoneme]
    voice: str
    text: str
    pool: Pool
    degradations: list[str]
    av_offset: int
    seed: int
    fps: float


def _speech_track(seconds: float, generator: torch.Generator) -> Speech:
    """Sentences with pauses between them, in one voice, for `seconds`."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    language = LANGUAGES[int(torch.randint(len(LANGUAGES), (), generator=generator))]
    voice = f"{language}+{VARIANTS[int(torch.randint(len(VARIANTS), (), generator=generator))]}"
    rate, pitch, pitch_range = round(uniform(125, 205)), round(uniform(25, 75)), round(uniform(30, 80))
    waveform = torch.zeros(round(seconds * SAMPLE_RATE))
    phonemes: list[Phoneme] = []
    texts: list[str] = []
    at = uniform(0.05, 0.5)
    while at < seconds - 0.4:
        spoken = synthesize(sentence(generator), voice, rate, pitch, pitch_range)
        start = round(at * SAMPLE_RATE)
        heard = spoken.waveform[: len(waveform) - start]
        waveform[start : start + len(heard)] = heard
        phonemes += [
            Phoneme(p.start + at, min(p.end + at, seconds), p.symbol) for p in spoken.phonemes if p.start + at < seconds
        ]
        texts.append(spoken.text)
        at += len(spoken.waveform) / SAMPLE_RATE + uniform(0.05, 0.7)
    peak = waveform.abs().max().clamp(min=1e-3)
    return Speech(waveform / peak * uniform(0.35, 0.95), phonemes, " ".join(texts), voice)


def _speechless_track(seconds: float, generator: torch.Generator) -> Speech:
    """Silence, white or pink noise, or chords: sound that moves no mouth."""
    count = round(seconds * SAMPLE_RATE)
    kind = ("silence", "white noise", "pink noise", "music")[int(torch.randint(4, (), generator=generator))]
    level = 0.02 + 0.2 * float(torch.rand((), generator=generator))
    if kind == "silence":
        waveform = torch.zeros(count)
    elif kind == "music":
        times = torch.arange(count) / SAMPLE_RATE
        waveform = torch.zeros(count)
        for _ in range(max(1, round(seconds / 0.4))):
            start = seconds * float(torch.rand((), generator=generator))
            pitch = 110 * 2 ** (int(torch.randint(36, (), generator=generator)) / 12)
            envelope = torch.where(times < start, 0.0, torch.exp(-3 * (times - start)))
            waveform += envelope * sum(torch.sin(2 * math.pi * pitch * k * times) / k**1.5 for k in (1, 2, 3, 4))
    else:
        waveform = torch.randn(count, generator=generator)
        if kind == "pink noise":  # power falls with frequency
            spectrum = torch.fft.rfft(waveform)
            waveform = torch.fft.irfft(spectrum / torch.arange(1, len(spectrum) + 1).sqrt(), n=count)
    return Speech(waveform / waveform.abs().max().clamp(min=1e-3) * level, [], "", kind)


def _fitted(speech: Speech, samples: int) -> Speech:
    waveform = F.pad(speech.waveform[:samples], (0, max(0, samples - len(speech.waveform))))
    seconds = samples / SAMPLE_RATE
    phonemes = [Phoneme(p.start, min(p.end, seconds), p.symbol) for p in speech.phonemes if p.start < seconds]
    return Speech(waveform, phonemes, speech.text, speech.voice)


def sample(
    seed: int,
    pool: Pool = "high",
    seconds: float = 4.0,
    *,
    size: int = 128,
    fps: float = 25.0,
    identity_seed: int | None = None,
    speech: Speech | None = None,
    device: torch.device | str = "cpu",
) -> AvatarClip:
    """The clip of `seed`: the same on one machine every time.

    `identity_seed` keeps the face while words and motion change with `seed`; `speech` (cut or padded with silence to
    `seconds`) is spoken instead of a text of our own. Frames are rendered on `device` and returned on the CPU.
    Raises `FadaError` for an unknown pool, for a clip without frames, and where espeak-ng is needed but missing.
    """
    if pool not in ("high", "moderate"):
        raise FadaError(f"There is no pool '{pool}' of avatars: choose high or moderate.")
    n = round(seconds * fps)
    if n < 1 or size < 16:
        raise FadaError("An avatar clip needs at least one frame and 16 pixels: raise seconds, fps or size.")
    moderate = pool == "moderate"
    who_seed = seed if identity_seed is None else identity_seed
    identity = sample_identity(torch.Generator().manual_seed(2 * who_seed + moderate), pool)
    generator = torch.Generator().manual_seed(1_000_003 * (seed + 1) + moderate)
    samples = round(n / fps * SAMPLE_RATE)
    if speech is None:
        speechless = float(torch.rand((), generator=generator)) < _SPEECHLESS
        speech = (_speechless_track if speechless else _speech_track)(samples / SAMPLE_RATE, generator)
    speech = _fitted(speech, samples)

    spoken = loudness(speech.waveform, n, fps) if speech.phonemes else torch.zeros(n)
    turned = 0.35 * float(torch.randn((), generator=generator)) if moderate else 0.0
    motion = mouth_track(speech.phonemes, speech.waveform, n, fps)
    motion |= behave(n, fps, spoken, generator, turned=max(-0.6, min(0.6, turned)), amount=1.4 if moderate else 0.5)
    rest = {name: torch.zeros_like(value[:1]) for name, value in motion.items()}
    rest["width"] = torch.full((1,), 0.5)
    rest["yaw"] = motion["yaw"][:1] * 0.5
    everything = {name: torch.cat([rest[name], value]) for name, value in motion.items()}
    pictures = render(identity, everything, size, device).cpu()
    frames = ((pictures[1:] + 1) * 127.5).round().to(torch.uint8)

    waveform, clean, degradations, av_offset = speech.waveform, frames, [], 0
    if moderate:
        frames, degradations = degrade(frames, generator)
        av_offset = int(torch.randint(-2, 3, (), generator=generator))
        waveform = delay(waveform, round(av_offset / fps * SAMPLE_RATE))
        if float(torch.rand((), generator=generator)) < 0.5:
            ratio_db = 5 + 20 * float(torch.rand((), generator=generator))
            waveform = add_noise(waveform, ratio_db, generator)
            degradations.append(f"audio noise {ratio_db:.0f} dB")
    return AvatarClip(
        portrait=pictures[0],
        frames=frames,
        clean_frames=clean,
        waveform=waveform,
        truth=motion | feature_boxes(identity, motion, size),
        identity=identity,
        phonemes=speech.phonemes,
        voice=speech.voice,
        text=speech.text,
        pool=pool,
        degradations=degradations,
        av_offset=av_offset,
        seed=seed,
        fps=fps,
    )
