"""Synchronisation of lips and sound, measured by SyncNet v2: the library syncnet-python with the user's weights."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from ..errors import FadaError
from ..extras import check_weights, library

SyncNet = Callable[[Path], dict[str, float]]
"""Video with sound -> `sync_c`, `sync_d` and `offset` in frames; empty if no face is found."""


def load_syncnet(weights: Path, detector: Path, device: str) -> SyncNet:
    """Load SyncNet from `syncnet_v2.model` and the face detector `sfd_face.pth`; faces need more than 100 pixels.

    Raises:
        FadaError: the library, the program ffmpeg, or weights are missing.
    """
    made = library("syncnet_python")
    if shutil.which("ffmpeg") is None:
        raise FadaError("SyncNet needs the program ffmpeg; install it, or leave SyncNet's weights out.")
    for path in (weights, detector):
        check_weights(path, "https://www.robots.ox.ac.uk/~vgg/software/lipsync/data/")
    files = {"syncnet_weights": str(weights), "s3fd_weights": str(detector)}
    pipeline = made.SyncNetPipeline(files, device=device)
    return lambda video: scores(pipeline, video)


def scores(pipeline: Any, video: Path) -> dict[str, float]:
    """`sync_c`, `sync_d` and `offset`, each the mean over the face tracks, as LatentSync reports them.

    Empty if the pipeline finds no face in more than 50 consecutive frames.
    """
    with redirect_stdout(sys.stderr):
        offsets, confidences, distances, *_ = pipeline.inference(str(video))
    if not offsets:
        return {}
    found = {"offset": offsets, "sync_c": confidences, "sync_d": distances}
    return {name: sum(map(float, values)) / len(values) for name, values in found.items()}
