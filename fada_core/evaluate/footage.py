"""Evaluation on real footage: clips of a manifest, and standard metrics with weights that the user provides.

FID (Heusel et al. 1706.08500) uses the Inception features of torch-fidelity, FVD (Unterthiner et al. 1812.01717) those
of cd-fvd (I3D, or VideoMAE v2 after Ge et al. 2404.12391). Sync-C and Sync-D are the confidence and distance of
syncnet-python's SyncNet. These libraries are optional, and their weights are never downloaded.
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
from ..media.image import from_uint8, to_uint8
from ..media.video import VideoWriter
from .cases import POOLS, Case, EvaluationSet
from .frechet import CLIP_LENGTH, Features

log = logging.getLogger("fada.evaluate")

_BATCH = 16


@dataclass(frozen=True)
class FootageConfig:
    """Real footage instead of avatars; metrics whose weights are not given are left out."""

    manifest: Path | None = None
    """A .jsonl manifest: its pool high is the closed set, its pool moderate the open set."""
    split: str = "test"
    """Split of the manifest to use."""
    inception: Path | None = None
    """Inception weights of torch-fidelity for FID (weights-inception-2015-12-05-6726825d.pth)."""
    fvd: Path | None = None
    """Weights of cd-fvd for FVD (i3d_pretrained_400.pt, or vit_g_hybrid_pt_1200e_ssv2_ft.pth)."""
    fvd_model: Literal["i3d", "videomae"] = "i3d"
    syncnet: Path | None = None
    """syncnet_v2.model for Sync-C and Sync-D; needs --s3fd, too."""
    s3fd: Path | None = None
    """sfd_face.pth, SyncNet's face detector."""
    face_model: Path | None = None
    """Model file of a face detector, as for `fada_core.generate` (default: for --portraits and --peers the project's
    own finder; in footage the face is assumed to be in the centre)."""
    identity_model: Path | None = None
    """An ArcFace network as .onnx, for models that take an identity embedding (default: zeros)."""


@dataclass(frozen=True, eq=False)
class FootageCases:
    """The first `count` usable clips of a manifest, up to `seconds` of each, with the first frame as the portrait."""

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
            frames = from_uint8(clip.frames[: round(self.seconds * fps)])
            if len(frames) < CLIP_LENGTH:
                log.warning("left out %s: it has fewer than %d frames", self.clips.key(index)[0], CLIP_LENGTH)
                continue
            waveform = clip.waveform[: int(len(frames) / fps * SAMPLE_RATE)]  # rounded down, so that no frame is added
            measure = partial(sync_scores, waveform=waveform, fps=fps, sync=self.sync)
            image = from_uint8(clip.portrait[None])
            # The clips are already cropped: the square stays the whole picture, as in the ground truth.
            region = replace(
                find_face(image, detector=self.detector, required=False), left=0, top=0, side=self.clips.size
            )
            identity = None if self.identity_model is None else identity_embedding(image, region, self.identity_model)
            yield Case(image[0], waveform, frames, measure, region, identity)


def footage_set(
    name: str, config: FootageConfig, count: int, seconds: float, size: int, fps: float, device: torch.device
) -> EvaluationSet:
    """The set `name` of a manifest, with the metrics whose weights are given.

    Raises:
        FadaError: the manifest, its clips, a library or a file of weights is missing, or a file has no weights.
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
    """Features (n, 2048) of each frame from torch-fidelity: Inception's last pooling layer."""
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
    """Features (m, d) of each complete stretch of `CLIP_LENGTH` frames from cd-fvd; there must be at least one."""
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
    """sync_c, sync_d and sync_offset of a clip, as measured by `data.sync`; empty without `sync`."""
    if sync is None:
        return {}
    height, width = frames.shape[2:]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        with VideoWriter(path, width, height, fps, waveform) as writer:
            writer.write(frames)
        found = sync(path)
    return {"sync_offset" if name == "offset" else name: value for name, value in found.items()}
