"""Evaluation on real footage: clips of a manifest, and the field's measures from weights that the user has.

FID (Heusel et al. 1706.08500) takes the Inception features of torch-fidelity, FVD (Unterthiner et al. 1812.01717) those
of cd-fvd (I3D, or VideoMAE v2 after Ge et al. 2404.12391), Sync-C and Sync-D are the confidence and distance of
syncnet-python's SyncNet. None of these libraries is required, none of their weights is downloaded.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..data.manifest import ManifestSet
from ..data.samples import BadClipError
from ..data.sync import SyncNet, load_syncnet
from ..errors import FadaError
from ..extras import check_weights, library
from ..face.detect import Detector, load_detector
from ..face.identity import identity_embedding
from ..face.region import find_face
from ..media.audio import SAMPLE_RATE
from ..media.image import to_uint8
from ..media.video import VideoWriter
from .cases import POOLS, Case, EvaluationSet
from .frechet import CLIP_LENGTH, Features

log = logging.getLogger("fada.evaluate")

_BATCH = 16


@dataclass(frozen=True)
class FootageConfig:
    """Real footage instead of avatars; a measure whose weights are not given is left out."""

    manifest: Path | None = None
    """A .jsonl manifest: its pool high is the closed set, its pool moderate the open one."""
    split: str = "test"
    """Entries of the manifest that are used."""
    inception: Path | None = None
    """For FID: Inception weights as torch-fidelity takes them (weights-inception-2015-12-05-6726825d.pth)."""
    fvd: Path | None = None
    """For FVD: weights as cd-fvd takes them (i3d_pretrained_400.pt, or vit_g_hybrid_pt_1200e_ssv2_ft.pth)."""
    fvd_model: Literal["i3d", "videomae"] = "i3d"
    syncnet: Path | None = None
    """For Sync-C and Sync-D: syncnet_v2.model; needs --s3fd, too."""
    s3fd: Path | None = None
    """The face detector of the same: sfd_face.pth."""
    face_model: Path | None = None
    """A face detector, as `fada_core.generate` takes it, for portraits, and for models that are told where the face is
    (default: they are told the middle of the picture)."""
    identity_model: Path | None = None
    """An ArcFace network as .onnx, for models that take an identity embedding (default: zeros)."""


@dataclass(frozen=True, eq=False)
class FootageCases:
    """The first `count` usable clips of a manifest, `seconds` of each; the portrait is a clip's first frame."""

    clips: ManifestSet
    count: int
    seconds: float
    sync: SyncNet | None
    detector: Detector | None
    identity_model: Path | None

    def __iter__(self) -> Iterator[Case]:
        return islice(self._usable(), self.count)

    def _usable(self) -> Iterator[Case]:
        fps = self.clips.fps
        for index in range(len(self.clips)):
            try:
                clip = self.clips.fetch(index)
            except BadClipError as error:
                log.warning("left out %s: %s", error.id, error)
                continue
            frames = clip.frames[: round(self.seconds * fps)].float() / 127.5 - 1
            if len(frames) < CLIP_LENGTH:
                log.warning("left out %s: it has fewer than %d frames", self.clips.key(index)[0], CLIP_LENGTH)
                continue
            waveform = clip.waveform[: int(len(frames) / fps * SAMPLE_RATE)]  # never a frame more
            measure = partial(sync_scores, waveform=waveform, fps=fps, sync=self.sync)
            image = clip.portrait[None].float() / 127.5 - 1
            # The clips are cut already: the square stays the whole picture, as it is for the truth.
            region = replace(
                find_face(image, detector=self.detector, required=False), left=0, top=0, side=self.clips.size
            )
            identity = None if self.identity_model is None else identity_embedding(image, region, self.identity_model)
            yield Case(image[0], waveform, frames, measure, region, identity)


def footage_set(
    name: str, config: FootageConfig, count: int, seconds: float, size: int, fps: float, device: torch.device
) -> EvaluationSet:
    """The set `name` of a manifest, with the measures whose weights are given.

    Raises:
        FadaError: no such manifest or clips, weights that are missing or no weights, or a library that is missing.
    """
    features: dict[str, Features] = {}
    if config.inception is not None:
        features["fid"] = inception_features(config.inception, device)
    if config.fvd is not None:
        features["fvd"] = fvd_features(config.fvd, config.fvd_model, device)
    sync = None
    if config.syncnet is not None or config.s3fd is not None:
        if config.syncnet is None or config.s3fd is None:
            raise FadaError("Sync-C and Sync-D need two files of weights; give both --syncnet and --s3fd.")
        sync = load_syncnet(config.syncnet, config.s3fd, str(device))
    for given, measure, option in (
        (config.inception, "FID", "--inception"),
        (config.fvd, "FVD", "--fvd"),
        (sync, "Sync-C and Sync-D", "--syncnet and --s3fd"),
    ):
        if given is None:
            log.warning("%s will be left out; give its weights with %s.", measure, option)
    clips = ManifestSet(config.manifest or "", size, fps, (POOLS[name],), config.split)
    count = min(count, len(clips))
    detector = None if config.face_model is None else load_detector(config.face_model)
    cases = FootageCases(clips, count, seconds, sync, detector, config.identity_model)
    return EvaluationSet(name, count, cases, features)


def inception_features(weights: Path, device: torch.device) -> Features:
    """2048 numbers for each frame, (n, 2048): Inception's last pooling, of torch-fidelity."""
    found = library("torch_fidelity")
    check_weights(weights, "--inception")
    with redirect_stdout(sys.stderr):
        options = {"feature_extractor_weights_path": str(weights)}
        network = found.FeatureExtractorInceptionV3("inception", ["2048"], **options).to(device)

    @torch.inference_mode()
    def features(frames: Tensor) -> Tensor:
        pixels = to_uint8(frames).permute(0, 3, 1, 2)
        return torch.cat([network(part.to(device))[0].cpu() for part in pixels.split(_BATCH)])

    return features


def fvd_features(weights: Path, model: Literal["i3d", "videomae"], device: torch.device) -> Features:
    """One row for each whole stretch of `CLIP_LENGTH` frames, (m, d), of cd-fvd; of one such stretch at least."""
    found = library("cdfvd.fvd")
    check_weights(weights, "--fvd")
    with redirect_stdout(sys.stderr):
        scorer = found.cdfvd(model, ckpt_path=str(weights), device=str(device))

    def features(frames: Tensor) -> Tensor:
        whole = len(frames) // CLIP_LENGTH
        stretches = to_uint8(frames)[: whole * CLIP_LENGTH].unflatten(0, (whole, CLIP_LENGTH)).numpy()
        rows = found.FeatureStats(capture_all=True)
        scorer.feature_fn(rows, scorer.model, stretches, device=str(device))
        return rows.get_all_torch()

    return features


def sync_scores(frames: Tensor, waveform: Tensor, fps: float, sync: SyncNet | None) -> dict[str, float]:
    """sync_c, sync_d and sync_offset of a clip, as `data.sync` measures a video; empty without `sync`."""
    if sync is None:
        return {}
    height, width = frames.shape[2:]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        with VideoWriter(path, width, height, fps, waveform) as writer:
            writer.write(frames)
        found = sync(path)
    return {"sync_offset" if name == "offset" else name: value for name, value in found.items()}
