"""Sound, pictures and video: files are read completely, and written files can be played, even after an interruption."""

import io
import math
import multiprocessing
import os
import signal
import tracemalloc
import wave
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import av
import imageio.v3 as iio
import librosa
import numpy as np
import pytest
import torch
from PIL import Image

from fada_core.errors import FadaError
from fada_core.media.audio import from_waveform, load_audio
from fada_core.media.image import load_image, to_square, to_uint8
from fada_core.media.video import VideoWriter, contact_sheet, probe, read_video

FPS = 25


def tone(seconds: float, rate: int = 16000, frequency: float = 440.0) -> torch.Tensor:
    return 0.5 * torch.sin(2 * math.pi * frequency * torch.arange(round(seconds * rate)) / rate)


def write_wav(path: Path, channels: torch.Tensor, rate: int) -> Path:
    """Write (channels, samples) as 16-bit PCM."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((channels.T.contiguous() * 32767).round().to(torch.int16).numpy().tobytes())
    return path


def pitch(samples: torch.Tensor) -> float:
    spectrum = torch.fft.rfft(samples * torch.hann_window(len(samples))).abs()
    return float(spectrum.argmax()) * 16000 / len(samples)


def grey(count: int, height: int = 32, width: int = 48, level: int = 60) -> np.ndarray:
    return np.full((count, height, width, 3), level, np.uint8)


# Sound in


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
def test_load_audio_resamples_any_rate(tmp_path: Path, rate: int) -> None:
    samples = load_audio(write_wav(tmp_path / "a.wav", tone(1.0, rate)[None], rate))
    assert samples.dtype == torch.float32
    assert abs(len(samples) - 16000) <= 1
    assert pitch(samples) == pytest.approx(440, abs=1)
    assert samples[2000:-2000].abs().max() == pytest.approx(0.5, abs=0.01)


def test_block_by_block_resampling_equals_librosas(tmp_path: Path) -> None:
    noise = torch.rand(1, 44100, generator=torch.Generator().manual_seed(0)) - 0.5
    whole = librosa.resample(noise[0].numpy(), orig_sr=44100, target_sr=16000)
    samples = load_audio(write_wav(tmp_path / "a.wav", noise, 44100))
    assert np.abs(samples.numpy() - whole).max() < 1e-4  # 16 bits in the file


def test_channels_are_averaged(tmp_path: Path) -> None:
    both = torch.stack([tone(0.5), tone(0.5, frequency=700)])
    assert torch.allclose(load_audio(write_wav(tmp_path / "a.wav", both, 16000)), both.mean(0), atol=1e-4)
    assert torch.allclose(from_waveform(both[None], 16000), both.mean(0), atol=1e-6)


def test_start_and_duration(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", torch.cat([tone(1.0), tone(1.0, frequency=880)])[None], 16000)
    assert torch.equal(load_audio(path, 0.5, 1.0), load_audio(path)[8000:24000])
    assert pitch(load_audio(path, 1.0)) == pytest.approx(880, abs=1)
    assert len(load_audio(path, 1.5, 10.0)) == 8000


def test_sound_of_a_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with VideoWriter(path, 48, 32, FPS, tone(1.0)) as writer:
        writer.write(grey(25))
    assert pitch(load_audio(path)[:16000]) == pytest.approx(440, abs=1)


def test_from_waveform_takes_one_sample_and_every_layout() -> None:
    assert len(from_waveform(torch.ones(1), 16000)) == 1
    assert from_waveform(tone(1.0, 48000), 48000).shape == (16000,)
    assert pitch(from_waveform(tone(1.0, 44100)[None, None], 44100)) == pytest.approx(440, abs=1)
    with pytest.raises(FadaError, match="one recording"):
        from_waveform(torch.zeros(2, 1, 100), 16000)
    with pytest.raises(FadaError, match="empty"):
        from_waveform(torch.zeros(1, 1, 0), 16000)
    with pytest.raises(FadaError, match="not numbers"):
        from_waveform(torch.tensor([0.0, float("nan")]), 16000)


def test_audio_mistakes_are_named(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", tone(1.0)[None], 16000)
    with pytest.raises(FadaError, match="only 1.00 s long"):
        load_audio(path, start=3.0)
    with pytest.raises(FadaError, match="start is -1"):
        load_audio(path, start=-1.0)
    with pytest.raises(FadaError, match="duration is 0"):
        load_audio(path, duration=0.0)
    with pytest.raises(FadaError, match="no file"):
        load_audio(tmp_path / "none.wav")
    with pytest.raises(FadaError, match="is empty"):
        load_audio(write_wav(tmp_path / "empty.wav", torch.zeros(1, 0), 16000))
    with pytest.raises(FadaError, match="cannot be read"):
        (tmp_path / "noise.mp3").write_bytes(bytes(range(256)) * 20)
        load_audio(tmp_path / "noise.mp3")
    silent = tmp_path / "silent.mp4"
    with VideoWriter(silent, 48, 32, FPS) as writer:
        writer.write(grey(2))
    with pytest.raises(FadaError, match="has no sound"):
        load_audio(silent)


def test_nan_in_a_float_file(tmp_path: Path) -> None:
    path = tmp_path / "nan.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_f32le", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.full((1, 1600), np.nan, np.float32), format="flt", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(FadaError, match="not numbers"):
        load_audio(path)


# Pictures


def test_load_image_scales_bytes_to_minus_one_to_one(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    iio.imwrite(tmp_path / "a.png", pixels)
    image = load_image(tmp_path / "a.png")
    assert image.shape == (1, 3, 20, 30)
    assert image.dtype == torch.float32
    assert np.array_equal(to_uint8(image)[0].numpy(), pixels)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:, :15] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    image = load_image(tmp_path / "a.png")
    assert image.shape == (1, 3, 30, 20)
    assert image[0, :, 0].min() == 1
    assert image[0, :, -1].max() == -1


def test_transparency_shows_white_and_grey_becomes_rgb(tmp_path: Path) -> None:
    Image.new("RGBA", (20, 20), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert load_image(tmp_path / "clear.png").eq(1).all()
    Image.new("L", (20, 20), 0).save(tmp_path / "grey.png")
    assert load_image(tmp_path / "grey.png").eq(-1).all()
    iio.imwrite(tmp_path / "deep.png", np.full((20, 20), 65535 // 4, np.uint16))
    assert load_image(tmp_path / "deep.png").mean() == pytest.approx(-0.5, abs=1e-3)


def test_to_square_cuts_the_middle() -> None:
    images = -torch.ones(2, 3, 32, 64)
    images[..., 16:48] = 1
    assert to_square(images, 32).eq(1).all()
    assert to_square(images, 20).shape == (2, 3, 20, 20)
    noise = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
    shrunk = to_square(noise, 4)
    assert shrunk.std() < noise.std() / 4  # antialiased: the mean of a patch, not one of its pixels
    assert to_square(noise, 64).abs().max() <= 1


def test_image_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(FadaError, match="no file"):
        load_image(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(FadaError, match="not a complete picture"):
        load_image(tmp_path / "text.png")
    buffer = io.BytesIO()
    Image.fromarray(grey(1, 64, 64)[0]).save(buffer, "png")
    (tmp_path / "cut.png").write_bytes(buffer.getvalue()[:60])
    with pytest.raises(FadaError, match="not a complete picture"):
        load_image(tmp_path / "cut.png")
    Image.new("RGB", (15, 40)).save(tmp_path / "small.png")
    with pytest.raises(FadaError, match="at least 16"):
        load_image(tmp_path / "small.png")


# Video out


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif"])
@pytest.mark.parametrize("size", [(48, 32), (47, 33)])
def test_round_trip(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    width, height = size
    path = tmp_path / "new" / f"a{suffix}"
    frames = torch.zeros(30, 3, height, width)
    frames[:, 0], frames[:, 1] = 0.6, -0.6
    frames[:, :, :, : width // 2] = -1
    with VideoWriter(path, width, height, FPS, tone(1.2)) as writer:
        for clip in frames.split(12):
            writer.write(clip)
        assert writer.frames == 30
    facts = probe(path)
    even = 0 if suffix == ".gif" else 1
    assert (facts.width, facts.height) == (width + width % 2 * even, height + height % 2 * even)
    assert (facts.frames, facts.fps) == (30, FPS)
    assert facts.duration == pytest.approx(1.2, abs=0.01)
    if suffix != ".gif":
        assert facts.audio_duration == pytest.approx(1.2, abs=0.03)
    read = list(read_video(path))
    assert len(read) == 30
    wanted = to_uint8(frames)[0].numpy()
    for frame in read[0], read[-1]:
        difference = np.abs(frame[:height, :width].astype(int) - wanted)
        assert np.delete(difference, slice(width // 2 - 3, width // 2 + 3), axis=1).max() < 8  # but for the edge


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
@pytest.mark.parametrize("fps", [25, 30, 24000 / 1001])
def test_a_beep_stays_with_its_flash(tmp_path: Path, suffix: str, fps: float) -> None:
    flash = 40
    frames = grey(60)
    frames[flash] = 255
    audio = torch.zeros(round(60 / fps * 16000))
    at = round(flash / fps * 16000)
    audio[at : at + 600] = tone(600 / 16000, frequency=1000)
    path = tmp_path / f"a{suffix}"
    with VideoWriter(path, 48, 32, fps, audio) as writer:
        for start in range(0, 60, 12):
            writer.write(frames[start : start + 12])
    seen = [i for i, frame in enumerate(read_video(path)) if frame.mean() > 160]
    assert seen == [flash]
    with av.open(str(path)) as container:
        shown = next(float(f.time) for i, f in enumerate(container.decode(video=0)) if i == flash)
        container.seek(0)
        heard = [(float(f.time), np.abs(f.to_ndarray()).mean(0)) for f in container.decode(audio=0)]
    start, samples = next((time, values) for time, values in heard if values.max() > 0.2)
    beep = start + float(np.argmax(samples > 0.2)) / 48000
    assert abs(beep - shown) < 0.5 / fps


def test_frames_as_pictures(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 17, 19, 3), dtype=np.uint8)
    folder = tmp_path / "frames"
    with VideoWriter(folder, 19, 17, FPS, tone(0.1), metadata={"comment": "made here"}) as writer:
        writer.write(pixels)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["audio.wav", *(f"frame_{i:05d}.png" for i in range(5))]
    assert np.array_equal(iio.imread(folder / "frame_00003.png"), pixels[3])
    assert Image.open(folder / "frame_00000.png").text["comment"] == "made here"
    assert len(load_audio(folder / "audio.wav")) == 3200  # padded to the length of the frames
    with pytest.raises(FadaError, match="empty one"), VideoWriter(folder, 19, 17, FPS):
        pass


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_short_silent_and_stereo_sound(tmp_path: Path, suffix: str) -> None:
    for name, audio in {"short": tone(0.1), "silent": torch.zeros(16000), "one": torch.zeros(1)}.items():
        path = tmp_path / f"{name}{suffix}"
        with VideoWriter(path, 48, 32, FPS, audio) as writer:
            writer.write(grey(25))
        assert probe(path).audio_duration == pytest.approx(1.0, abs=0.03)
    path = tmp_path / f"stereo{suffix}"
    with VideoWriter(path, 48, 32, FPS, torch.stack([tone(1, 44100)] * 2), audio_rate=44100) as writer:
        writer.write(grey(25))
    assert pitch(load_audio(path)[:16000]) == pytest.approx(440, abs=1)
    with av.open(str(path)) as container:
        assert container.streams.audio[0].channels == 2


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_metadata_is_kept(tmp_path: Path, suffix: str) -> None:
    workflow = '{"nodes": [' + "1, " * 20000 + "1]}"
    path = tmp_path / f"a{suffix}"
    with VideoWriter(path, 48, 32, FPS, metadata={"title": "ä", "workflow": workflow}) as writer:
        writer.write(grey(2))
    with av.open(str(path)) as container:
        found = {name.lower(): text for name, text in container.metadata.items()}
    assert (found["title"], found["workflow"]) == ("ä", workflow)


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a"])
def test_an_exception_leaves_a_finished_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, 48, 32, FPS, tone(9.0)) as writer:
        writer.write(grey(7))
        writer.write(grey(7))
        raise KeyboardInterrupt
    if path.suffix:
        assert len(list(read_video(path))) == 14
    else:
        assert len(list(path.glob("*.png"))) == 14
    if path.suffix != ".gif":
        sound = load_audio(path if path.suffix else path / "audio.wav")
        assert len(sound) / 16000 == pytest.approx(14 / FPS, abs=0.03)


def _write_until_killed(folder: Path, level: int) -> None:
    noise = np.random.default_rng(0).integers(0, level, (75, 64, 64, 3), dtype=np.uint8)
    with ExitStack() as stack:
        paths = [folder / name for name in ("a.mp4", "a.webm", "a.gif", "a")]
        writers = [stack.enter_context(VideoWriter(path, 64, 64, FPS, tone(9.0))) for path in paths]
        for start in range(0, 75, 15):
            for writer in writers:
                writer.write(noise[start : start + 15])
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize("level", [1, 256], ids=["still", "noise"])
def test_a_killed_process_leaves_playable_files(tmp_path: Path, level: int) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_write_until_killed, args=(tmp_path, level))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    for name in ("a.mp4", "a.webm", "a.gif", "a"):
        path = tmp_path / name
        frames = len(list(read_video(path))) if path.suffix else len(list(path.glob("*.png")))
        assert 75 - 0.6 * FPS <= frames <= 75, name
        if path.suffix != ".gif":
            sound = load_audio(path if path.suffix else path / "audio.wav")
            assert abs(len(sound) / 16000 - frames / FPS) < 0.1, name


def _fill_the_disk(folder: Path) -> None:
    import resource  # POSIX only

    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    noise = np.random.default_rng(0).integers(0, 256, (60, 128, 128, 3), dtype=np.uint8)
    for path in (folder / name for name in ("a.mp4", "a.webm", "a.gif")):
        try:
            with VideoWriter(path, 128, 128, FPS, tone(9.0)) as writer:
                for frame in noise:
                    writer.write(frame[None])
        except FadaError as error:
            path.with_name(path.name + ".txt").write_text(str(error))


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX limits")
def test_a_full_disk_leaves_playable_files(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_fill_the_disk, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    for name in ("a.mp4", "a.webm", "a.gif"):
        message = (tmp_path / f"{name}.txt").read_text()
        assert "disk is full" in message
        assert name in message
        assert len(list(read_video(tmp_path / name))) >= 5


def test_writing_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(FadaError, match=".mp4, .webm, .gif"):
        VideoWriter(tmp_path / "a.avi", 48, 32, FPS)
    with pytest.raises(FadaError, match="positive"):
        VideoWriter(tmp_path / "a.mp4", 48, 32, 0)
    with pytest.raises(FadaError, match="shape"):
        VideoWriter(tmp_path / "a.mp4", 48, 32, FPS, torch.zeros(3, 100))
    (tmp_path / "file").write_text("")
    with pytest.raises(FadaError, match="cannot be written"), VideoWriter(tmp_path / "file" / "a.mp4", 48, 32, FPS):
        pass
    path = tmp_path / "b.mp4"
    with pytest.raises(FadaError, match="do not fit"), VideoWriter(path, 48, 32, FPS) as writer:
        writer.write(grey(1, 32, 32))
    with pytest.raises(FadaError, match="No frame"), VideoWriter(path, 48, 32, FPS):
        pass
    assert not path.exists()
    with pytest.raises(FadaError, match="no file"):
        probe(tmp_path / "none.mp4")
    with pytest.raises(FadaError, match="no picture"):
        next(read_video(write_wav(tmp_path / "a.wav", tone(0.1)[None], 16000)))


def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    def clips(count: int) -> Iterator[np.ndarray]:
        for _ in range(count):
            yield grey(10, 128, 128)

    def peak(count: int) -> int:
        tracemalloc.start()
        with VideoWriter(tmp_path / "a.mp4", 128, 128, FPS, torch.zeros(16000)) as writer:
            for clip in clips(count):
                writer.write(clip)
        for _ in read_video(tmp_path / "a.mp4"):
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(2)  # imports and caches
    assert peak(20) < 1.2 * peak(4)


def test_contact_sheet(tmp_path: Path) -> None:
    frames = np.stack([np.full((4, 6, 3), level, np.uint8) for level in (10, 20, 30)])
    contact_sheet(frames, 2, tmp_path / "new" / "sheet.png")
    sheet = iio.imread(tmp_path / "new" / "sheet.png")
    assert sheet.shape == (8, 12, 3)
    assert [int(sheet[y, x, 0]) for y, x in ((0, 0), (0, 6), (4, 0), (4, 6))] == [10, 20, 30, 255]


def test_a_kind_of_video_that_nothing_decodes(tmp_path: Path) -> None:
    path = tmp_path / "a.webm"
    with VideoWriter(path, 32, 32, 25) as writer:
        writer.write(np.zeros((2, 32, 32, 3), np.uint8))
    path.write_bytes(path.read_bytes().replace(b"V_VP9", b"V_XYZ"))
    for read in (probe, lambda film: list(read_video(film))):
        with pytest.raises(FadaError, match="'a.webm' has a codec that is not supported; give another file"):
            read(path)
