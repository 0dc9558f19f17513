"""Pictures from outside: known formats within limits, correct colours, and no program is run."""

from __future__ import annotations

import logging
import shutil
import stat
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, PngImagePlugin

from fada_core.errors import FadaError
from fada_core.media import image as module
from fada_core.media.image import checked_picture, load_image, to_uint8

GREY = np.linspace(0, 1, 400).reshape(20, 20)


def saved(path: Path, pixels: np.ndarray, **options: object) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


# What may be opened


@pytest.mark.parametrize("name", ["face.eps", "face.png", "face.jpg"])
def test_postscript_is_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    ran = tmp_path / "ran"
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch '{ran}'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    assert shutil.which("gs") == str(program)
    (tmp_path / name).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n{} loop\n")
    with pytest.raises(FadaError, match=f"'{name}' is not a complete picture of a supported format"):
        load_image(tmp_path / name)
    assert not ran.exists()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif", ".gif", ".avif", ".jp2", ".ppm", ".tga"])
def test_usual_formats_are_read(tmp_path: Path, suffix: str) -> None:
    try:
        path = saved(tmp_path / f"a{suffix}", np.full((40, 30, 3), 200, np.uint8))
    except (OSError, KeyError):
        pytest.skip(f"this Pillow does not write {suffix}")
    assert load_image(path).mean() == pytest.approx(200 / 127.5 - 1, abs=0.03)


def test_a_name_that_no_disk_takes(tmp_path: Path) -> None:
    with pytest.raises(FadaError, match="There is no file"):
        load_image(tmp_path / ("a" * 300 + ".png"))


# Limits


def claimed(width: int, height: int) -> bytes:
    """A PNG that claims to have this many grey pixels, but has no data."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    chunks = b""
    for name, content in ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")):
        check = zlib.crc32(name + content).to_bytes(4, "big")
        chunks += len(content).to_bytes(4, "big") + name + content + check
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("side", [10_001, 13_000, 14_000, 60_000])
def test_a_large_picture_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was unpacked"))
    (tmp_path / "large.png").write_bytes(claimed(side, side))
    with pytest.raises(FadaError, match="'large.png' has more than 100 megapixels.*make it smaller"):
        load_image(tmp_path / "large.png")


def test_texts_of_any_length_do_no_harm(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    texts = PngImagePlugin.PngInfo()
    texts.add_text("workflow", "x" * 3_000_000)
    texts.add_text("prompt", "y" * 3_000_000, zip=True)
    texts.add_itxt("more", "z" * 3_000_000, zip=True)
    path = saved(tmp_path / "a.png", pixels, pnginfo=texts)
    assert np.array_equal(to_uint8(load_image(path))[0].numpy(), pixels)


def test_a_large_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FILE", 100)
    with pytest.raises(FadaError, match="MB"):
        load_image(saved(tmp_path / "a.png", np.zeros((99, 99, 3), np.uint8)))


def test_whatever_a_reader_stumbles_over_is_a_sentence(tmp_path: Path) -> None:
    """The reader of each format raises other errors."""
    generator = np.random.default_rng(0)
    for suffix in (".png", ".jpg", ".webp", ".bmp", ".tif", ".gif", ".tga", ".ppm"):
        content = saved(tmp_path / f"a{suffix}", generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)).read_bytes()
        for _ in range(15):
            broken = bytearray(content)
            for at in generator.integers(0, min(len(content), 200), 4):
                broken[at] = generator.integers(256)
            (tmp_path / f"b{suffix}").write_bytes(broken[: generator.integers(20, len(broken))])
            try:
                assert load_image(tmp_path / f"b{suffix}").isfinite().all()
            except FadaError as error:
                assert f"'b{suffix}'" in str(error)


# Colours


def test_a_profile_is_converted_to_srgb(tmp_path: Path) -> None:
    """The profile is CIE Lab, of which the grey for each L is known."""
    lab = Image.merge("LAB", [Image.new("L", (20, 20), value) for value in (128, 128, 128)])
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    lab.save(tmp_path / "lab.tif", icc_profile=profile)
    lightness = 128 / 255 * 100
    linear = ((lightness + 16) / 116) ** 3  # CIE 1976
    encoded = 1.055 * linear ** (1 / 2.4) - 0.055  # IEC 61966-2-1
    assert ((load_image(tmp_path / "lab.tif") + 1) / 2).mean() == pytest.approx(encoded, abs=0.01)


def swapped() -> bytes:
    """The profile of sRGB with red and blue exchanged, under another name."""
    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    content = content.replace(b"s\0R\0G\0B", b"X\0X\0X\0X").replace(b"sRGB", b"XXXX")
    tags = int.from_bytes(content[128:132], "big")
    at = {bytes(content[132 + 12 * i : 136 + 12 * i]): 136 + 12 * i for i in range(tags)}
    red, blue = at[b"rXYZ"], at[b"bXYZ"]
    content[red : red + 8], content[blue : blue + 8] = content[blue : blue + 8], content[red : red + 8]
    return bytes(content)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_profiles_primaries_count(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (20, 20), (250, 20, 20, 255)[: len(mode)]).save(tmp_path / "a.png", icc_profile=swapped())
    red, _, blue = load_image(tmp_path / "a.png")[0, :, 0, 0]
    assert blue > 0.9 and red < -0.7


def test_srgb_stays_bit_for_bit(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(to_uint8(load_image(saved(tmp_path / "a.png", pixels, icc_profile=profile)))[0], pixels)


def test_a_broken_profile_is_left_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pixels = np.full((20, 20, 3), 90, np.uint8)
    path = saved(tmp_path / "a.png", pixels, icc_profile=b"no profile at all" * 20)
    assert np.array_equal(to_uint8(load_image(path))[0], pixels)
    assert "colour profile of 'a.png' cannot be used" in caplog.text


@pytest.mark.parametrize(
    ("suffix", "pixels"),
    [
        (".tif", (GREY * 255).astype(np.int32)),
        (".tif", (GREY * 65535).astype(np.int32)),
        (".tif", (GREY * (2**31 - 1)).astype(np.int32)),
        (".tif", GREY.astype(np.float32)),
        (".tif", (GREY * 255).astype(np.float32)),
        (".tif", (GREY * 65535).astype(np.float32)),
        (".tif", (GREY * 65535).astype(np.uint16)),
        (".png", (GREY * 65535).astype(np.uint16)),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.dtype}-{value.max():g}",
)
def test_number_types(tmp_path: Path, suffix: str, pixels: np.ndarray) -> None:
    image = load_image(saved(tmp_path / f"a{suffix}", pixels))
    assert np.abs((image[0, 0].numpy() + 1) / 2 - GREY).max() < 0.005


def test_a_dark_picture_of_sixteen_bits_stays_dark(tmp_path: Path) -> None:
    assert load_image(saved(tmp_path / "a.png", (GREY * 255).astype(np.uint16))).max() < -0.99


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    with pytest.raises(FadaError, match="not numbers"):
        load_image(saved(tmp_path / "a.tif", np.full((20, 20), np.nan, np.float32)))


# Pictures in memory


def test_pictures_of_other_ranges_are_told() -> None:
    good = torch.rand(1, 3, 20, 20) * 2 - 1
    assert checked_picture(good) is good
    for wrong, said in (
        ((good * 127.5 + 127.5).to(torch.uint8), "uint8"),
        (good * 127.5 + 127.5, "values from"),
        (good[0], r"shape \(3, 20, 20\)"),
        (good.movedim(1, -1), "shape"),
        (good * float("nan"), "not finite"),
    ):
        with pytest.raises(FadaError, match=said):
            checked_picture(wrong)


def test_pictures_that_are_no_numbers_are_not_shown_black() -> None:
    with pytest.raises(FadaError, match="not finite"):
        to_uint8(torch.full((1, 3, 4, 4), float("nan")))


def test_logging_names_what_was_assumed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "fada.media"):
        load_image(saved(tmp_path / "a.tif", (GREY * 255).astype(np.float32)))
        load_image(saved(tmp_path / "b.tif", GREY.astype(np.float32)))
    assert "255 is used as white" in caplog.text and "b.tif" not in caplog.text
