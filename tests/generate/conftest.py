"""A small model, its inputs, and the command in this process."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fada_core.checkpoint import CheckpointInfo, save_checkpoint
from fada_core.generate.__main__ import main
from fada_core.models.networks import Networks
from tests.support.generate import STEPS, Run, write_sound
from tests.support.small import SMALL


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights, a portrait, and 0.5 s of sound."""
    folder = tmp_path_factory.mktemp("generate")
    torch.manual_seed(0)
    save_checkpoint(folder / "model.safetensors", Networks(SMALL), CheckpointInfo("teacher", steps=STEPS))
    pixels = np.random.default_rng(0).integers(0, 255, (50, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "portrait.png")
    write_sound(folder / "speech.wav", 0.5)
    return folder


@pytest.fixture
def run(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command with valid arguments and `changes` (False: left out); returns exit code, stdout and stderr."""

    def call(**changes: object) -> tuple[int, str, str]:
        options = {
            "image": folder / "portrait.png",
            "audio": folder / "speech.wav",
            "model": folder / "model.safetensors",
            "out": tmp_path / "out.mp4",
            "device": "cpu",
            "square": True,
            **changes,
        }
        arguments: list[str] = []
        for name, value in options.items():
            if value is False:
                continue
            values = [] if value is True else str(value).split() if name == "face_box" else [str(value)]
            arguments += [f"--{name.replace('_', '-')}", *values]
        code = main(arguments)
        return code, *capsys.readouterr()

    return call
