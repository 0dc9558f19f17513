"""Pictures without faces as negative examples for the face finder: dead leaves, scenery, text and stripes."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from safetensors.numpy import load_file, save_file

from ..atomic import whole_file
from ..avatars.scenery import background
from .textures import dead_leaves

KINDS = ("leaves", "scenery", "text", "stripes")
_SHARES = (0.33, 0.33, 0.14, 0.2)  # of KINDS


def draw(seed: int, size: int) -> np.ndarray:
    """The picture of `seed`, (size, size, 3) uint8."""
    rng = np.random.default_rng([seed, 22])
    kind = KINDS[rng.choice(len(KINDS), p=_SHARES)]
    if kind == "leaves":
        leaves = dead_leaves(size, torch.Generator().manual_seed(seed))
        return ((leaves + 1) * 127.5).byte().movedim(0, -1).numpy()
    if kind == "scenery":
        light = background(rng, size).clip(0, 1)
        return (255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)).astype(np.uint8)
    return text(size, rng) if kind == "text" else stripes(size, rng)


def collection(root: Path, count: int, size: int) -> np.ndarray:
    """The pictures of the seeds 0 .. count - 1, (count, size, size, 3) uint8, stored in a file under `root`."""
    path = root / f"nonfaces-{size}px-{count}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        pictures = np.stack([draw(seed, size) for seed in range(count)])
        with whole_file(path) as partial:
            save_file({"pictures": pictures}, partial)
    return load_file(path)["pictures"]


def text(size: int, rng: np.random.Generator) -> np.ndarray:
    """Lines of random letters in up to three font sizes, dark on light or light on dark, (size, size, 3) uint8."""
    paper, ink = rng.integers(150, 256, 3), rng.integers(0, 110, 3)
    if rng.random() < 0.3:
        paper, ink = ink, paper
    picture = Image.new("RGB", (size, size), tuple(paper.tolist()))
    pen = ImageDraw.Draw(picture)
    heights = rng.uniform(0.04, 0.3, 3) * size
    y = -rng.uniform(0, 0.1) * size
    while y < size:
        height = float(rng.choice(heights))
        letters = "".join(rng.choice(list(string.ascii_letters + string.digits + "    .,-:&%?"), 60))
        pen.text((-rng.uniform(0, 0.3) * size, y), letters, tuple(ink.tolist()), ImageFont.load_default(height))
        y += height * rng.uniform(1.1, 1.8)
    return np.asarray(picture)


def stripes(size: int, rng: np.random.Generator) -> np.ndarray:
    """Stripes, checks, rings or petals with sharp or soft edges, (size, size, 3) uint8."""
    y, x = np.mgrid[:size, :size].astype(np.float32) / size - rng.uniform(0.2, 0.8, (2, 1, 1)).astype(np.float32)
    angle, rate = rng.uniform(0, np.pi), 2 * np.pi * np.exp(rng.uniform(np.log(2), np.log(30)))
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    kind = rng.integers(4)
    wave = np.sin(rate * (np.hypot(u, v) if kind >= 2 else u))
    if kind == 3:  # petals around a centre; each ring is rotated relative to the next
        ring = np.floor(rate * np.hypot(u, v) / np.pi)
        wave = wave * np.sin(rng.integers(3, 12) * np.arctan2(v, u) + np.pi / 2 * ring)
    if kind == 1:
        wave = wave * np.sin(rate * rng.uniform(0.5, 2) * v)
    wave = np.clip(wave * rng.choice([1.0, 2.0, 20.0]), -1, 1)[..., None] / 2 + 0.5
    first, second = rng.uniform(0, 255, (2, 3))
    return (first + (second - first) * wave).astype(np.uint8)
