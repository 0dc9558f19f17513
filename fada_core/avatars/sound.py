"""Effects of recording on speech: room, microphone, codec, level and background noise; and sound without speech.

All functions take and return waveforms (samples,) float32 at 16 kHz. The ranges of the effects are our choice, after
everyday footage: decay times of ordinary rooms (ISO 3382), the telephone codec G.711, noise of named spectra.
"""

import io
from typing import Literal

import numpy as np
from scipy.signal import butter as butterworth
from scipy.signal import fftconvolve, lfilter, resample_poly, sosfilt

from .phones import SAMPLE_RATE

Pool = Literal["high", "moderate"]
SPEECHLESS = ("silence", "white noise", "pink noise", "brown noise", "hum", "music", "applause")
NOISES = {"white noise": 0.0, "pink noise": 0.5, "brown noise": 1.0}  # amplitude ~ 1 / frequency ** value


def _level(waveform: np.ndarray) -> float:
    """Root mean square of the louder half of all 20 ms frames, which leaves out pauses."""
    frames = waveform[: len(waveform) // 320 * 320].reshape(-1, 320)
    power = np.sort((frames.astype(np.float64) ** 2).mean(1)) if len(frames) else np.zeros(1)
    return float(np.sqrt(power[len(power) // 2 :].mean()))


def mix(waveform: np.ndarray, background: np.ndarray, ratio_db: float) -> np.ndarray:
    """Add `background` to `waveform` at a signal-to-noise ratio of `ratio_db`, measured where there is speech."""
    level = _level(waveform) or 0.05
    return waveform + background * np.float32(level / (_level(background) + 1e-9) * 10 ** (-ratio_db / 20))


def noise(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """Sound (n,) of one of SPEECHLESS, at a level of the order of 1."""
    if kind == "silence":
        return np.zeros(n, np.float32)
    if kind == "music":
        return music(n, rng)
    times = np.arange(n) / SAMPLE_RATE
    if kind == "hum":
        base = float(rng.choice([50, 60]))
        hum = np.zeros(n)
        for k in range(1, 9):
            hum += rng.uniform(0, 1) / k * np.sin(2 * np.pi * (base * k * times + rng.random()))
        return hum.astype(np.float32)
    white = rng.normal(size=n).astype(np.float32)
    if kind == "applause":  # noise in many short bursts
        bursts = np.zeros(n)
        bursts[rng.integers(0, max(n, 1), int(n / SAMPLE_RATE * 60))] = rng.uniform(0.3, 1)
        return (white * lfilter([1], [1, -0.995], bursts)).astype(np.float32)
    spectrum = np.fft.rfft(white)
    spectrum /= np.maximum(np.arange(len(spectrum)), 20 * n / SAMPLE_RATE) ** NOISES[kind]
    shaped = np.fft.irfft(spectrum, n)
    return (shaped / (shaped.std() + 1e-9)).astype(np.float32)


def music(n: int, rng: np.random.Generator) -> np.ndarray:
    """Music (n,): plucked or held chords in one key, with a beat."""
    out = np.zeros(n, np.float32)
    beat = SAMPLE_RATE * 60 / float(rng.uniform(70, 140))
    scale = np.array([0, 2, 4, 5, 7, 9, 11] if rng.random() < 0.6 else [0, 2, 3, 5, 7, 8, 10])
    key, partials, decay = float(rng.uniform(100, 200)), int(rng.integers(2, 7)), float(rng.uniform(0.6, 5))
    tail = min(n, int(1.2 * SAMPLE_RATE))
    times = np.arange(tail) / SAMPLE_RATE
    envelope = np.minimum(times / float(rng.choice([0.004, 0.08])), 1) * np.exp(-decay * times)
    for i in range(int(n / beat) + 1):
        start = int((i + float(rng.choice([0, 0, 0.5]))) * beat)
        if start >= n:
            break
        root = int(rng.integers(0, 7))
        for degree in (root, root + 2, root + 4)[: int(rng.integers(1, 4))]:
            pitch = key * 2 ** ((scale[degree % 7] + 12 * (degree // 7 + rng.integers(0, 2))) / 12)
            tone = sum(np.sin(2 * np.pi * pitch * k * times) / k**1.5 for k in range(1, partials + 1)) * envelope
            out[start : start + tail] += tone[: n - start].astype(np.float32)
        if rng.random() < 0.5:
            hit = rng.normal(size=min(2400, n - start)) * np.exp(-np.arange(min(2400, n - start)) / 400)
            out[start : start + len(hit)] += hit.astype(np.float32)
    return out


def room(rng: np.random.Generator, decay_s: float, direct_db: float) -> np.ndarray:
    """An impulse response (n,) of a room, without delay: the direct sound is its first sample.

    `decay_s`: time to decay by 60 dB; `direct_db`: level of the direct sound relative to all reflections. A few
    discrete early reflections are followed by noise that decays faster at high frequencies.
    """
    n = int(min(max(decay_s, 0.05), 1.2) * SAMPLE_RATE)
    times = np.arange(n) / SAMPLE_RATE
    tail = np.zeros(n)
    for low, high, share in ((None, 1000, 1.15), (1000, 3500, 1.0), (3500, None, 0.65)):  # treble is absorbed faster
        band = [f for f in (low, high) if f]
        kind = "bandpass" if len(band) == 2 else "lowpass" if high else "highpass"
        sos = butterworth(2, band if len(band) == 2 else band[0], kind, fs=SAMPLE_RATE, output="sos")
        tail += sosfilt(sos, rng.normal(size=n)) * 10 ** (-3 * times / (decay_s * share))
    tail[: int(0.006 * SAMPLE_RATE)] *= 0.1
    early = rng.uniform(0.001, 0.03, int(rng.integers(4, 10)))
    for at in early:
        tail[int(at * SAMPLE_RATE)] += rng.choice([-1, 1]) * rng.uniform(2, 6) * np.exp(-at / 0.02)
    tail[0] = 0
    tail *= 10 ** (-direct_db / 20) / (np.sqrt((tail**2).sum()) + 1e-9)
    tail[0] = 1
    return tail.astype(np.float32)


def microphone(waveform: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Colour the sound like a microphone: less bass, a spectral tilt and two resonances, scaled by `strength` 0..1."""
    out = sosfilt(
        butterworth(2, float(rng.uniform(40, 60 + 160 * strength)), "highpass", fs=SAMPLE_RATE, output="sos"), waveform
    )
    frequencies = np.fft.rfftfreq(len(out), 1 / SAMPLE_RATE) + 1
    octaves = np.log2(frequencies / 1000)
    gain = strength * rng.normal(0, 1.5) * octaves
    for _ in range(2):
        gain += (
            strength * rng.normal(0, 6) * np.exp(-0.5 * ((octaves - rng.uniform(-2, 2.8)) / rng.uniform(0.2, 0.8)) ** 2)
        )
    return np.fft.irfft(np.fft.rfft(out) * 10 ** (gain.clip(-24, 24) / 20), len(out)).astype(np.float32)


def telephone(waveform: np.ndarray) -> np.ndarray:
    """Telephone sound: 8 kHz, 300 to 3400 Hz, 8 bit mu-law (ITU-T G.711)."""
    narrow = resample_poly(waveform, 1, 2)
    narrow = sosfilt(butterworth(4, [300, 3400], "bandpass", fs=8000, output="sos"), narrow).clip(-1, 1)
    packed = np.round(np.sign(narrow) * np.log1p(255 * np.abs(narrow)) / np.log(256) * 127) / 127
    wide = resample_poly(np.sign(packed) * (256 ** np.abs(packed) - 1) / 255, 2, 1)
    out = np.zeros(len(waveform), np.float32)
    out[: len(wide)] = wide[: len(waveform)]
    return out


def compressed(waveform: np.ndarray, bit_rate: int) -> np.ndarray:
    """Compress as MP3 at `bit_rate` bits per second (16000 or more); the result is in sync with the original."""
    import av

    file = io.BytesIO()
    samples = (waveform.clip(-1, 1) * 32767).astype(np.int16)
    with av.open(file, "w", format="mp3") as written:
        stream = written.add_stream("mp3", rate=SAMPLE_RATE, layout="mono")
        stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=SAMPLE_RATE)
        for part in resampler.resample(frame):
            written.mux(stream.encode(part))
        written.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as read:
        decoded = np.concatenate([f.to_ndarray()[0] for f in read.decode(audio=0)])
    heard = decoded.astype(np.float32) / (32768 if decoded.dtype == np.int16 else 1)
    # Encoder and decoder delay the sound by some thousand samples, differently in each library: find it by correlation.
    span = min(len(heard), len(samples) + 4096)
    match = fftconvolve(heard[:span], waveform[::-1])[len(waveform) - 1 :]
    shift = int(np.argmax(match[:4096])) if len(match) else 0
    out = np.zeros(len(waveform), np.float32)
    cut = heard[shift : shift + len(waveform)]
    out[: len(cut)] = cut
    return out


def delay(waveform: np.ndarray, samples: int) -> np.ndarray:
    """Delay the waveform by `samples` (negative: advance it), keeping its length; the gap is silent."""
    late = np.pad(waveform, (max(0, samples), max(0, -samples)))
    return late[max(0, -samples) :][: len(waveform)]


def speechless(seconds: float, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Sound without speech (samples,), with a peak of 0.02 to 0.7 unless it is silent, and its kind in SPEECHLESS."""
    kind = SPEECHLESS[rng.integers(len(SPEECHLESS))]
    sound = noise(kind, round(seconds * SAMPLE_RATE), rng)
    peak = 0.02 * 35 ** float(rng.random())
    return (sound * np.float32(peak / max(float(np.abs(sound).max(initial=0.0)), 1e-3))).astype(np.float32), kind


def record(
    waveform: np.ndarray, pool: Pool, rng: np.random.Generator, others: list[np.ndarray] | None = None
) -> tuple[np.ndarray, list[str]]:
    """Simulate a recording of `waveform`; returns the sound, of the same length and in sync, and a list of the effects.

    high: an ordinary room and microphone, a signal-to-noise ratio of 25 to 60 dB, sometimes quiet music or MP3.
    moderate: also reverberant rooms, loud noise and music, the voices of `others` as babble, clipping, a telephone or
    MP3 of a low bit rate.
    """
    moderate = pool == "moderate"
    out, done = waveform.astype(np.float32), []
    n = len(out)
    if rng.random() < (0.9 if moderate else 0.8):
        decay = float(rng.uniform(0.15, 1.0) if moderate else rng.uniform(0.1, 0.5))
        direct = float(rng.uniform(-6, 12) if moderate else rng.uniform(4, 20))
        out = fftconvolve(out, room(rng, decay, direct))[:n].astype(np.float32)
        done.append(f"room {decay:.2f} s {direct:.0f} dB")
    strength = float(rng.uniform(0.3, 1.0) if moderate else rng.uniform(0.1, 0.6))
    out = microphone(out, rng, strength)
    done.append(f"microphone {strength:.2f}")
    kind = str(rng.choice(["white noise", "pink noise", "pink noise", "brown noise", "hum"]))
    ratio = float(rng.uniform(8, 35) if moderate else rng.uniform(25, 60))
    out = mix(out, noise(kind, n, rng), ratio)
    done.append(f"{kind} {ratio:.0f} dB")
    if rng.random() < (0.3 if moderate else 0.1):
        ratio = float(rng.uniform(3, 20) if moderate else rng.uniform(20, 35))
        out = mix(out, music(n, rng), ratio)
        done.append(f"music {ratio:.0f} dB")
    if others and moderate and rng.random() < 0.3:
        babble = np.zeros(n, np.float32)
        for other in others:
            babble += np.roll(np.resize(other, n), int(rng.integers(n))) * np.float32(rng.uniform(0.4, 1))
        ratio = float(rng.uniform(6, 20) + 3 / len(others))
        out = mix(out, babble, ratio)
        done.append(f"babble of {len(others)} {ratio:.0f} dB")
    peak = max(float(np.abs(out).max(initial=0.0)), 1e-3)
    clips = moderate and rng.random() < 0.15
    out = (out * np.float32(rng.uniform(0.15, 0.95) / peak * (rng.uniform(2, 5) if clips else 1))).clip(-1, 1)
    if clips:
        done.append("clipped")
    coder = rng.random()
    if moderate and coder < 0.12:
        out = telephone(out)
        done.append("telephone")
    elif coder < (0.35 if moderate else 0.25):
        rate = int(rng.choice([16_000, 24_000, 32_000] if moderate else [48_000, 64_000]))
        out = compressed(out, rate)
        done.append(f"mp3 {rate // 1000} kbit/s")
    return out.clip(-1, 1).astype(np.float32), done
