"""The audio projection's training task: predict the mouth from speech alone, and the utterances to train it on.

Hallo's audio features come from wav2vec2, which is pretrained on speech. Ours are mel bands, so the projection is
pretrained here: from each frame's audio tokens, a linear layer, discarded afterwards, predicts measures of the mouth
and the face units. Utterances without pictures, and training steps on them, cost a fraction of those of rendered clips,
so the teacher need not spend its steps on distinguishing vowels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from ..atomic import whole_file
from ..avatars import Pool, utter
from ..avatars.assets import UNITS
from ..config import ModelConfig
from ..data.avatars import HELD_OUT_SEED
from ..models.audio import build_audio_encoder
from ..models.audio.projection import AudioProjection, window_features

POOLS: tuple[Pool, ...] = ("high", "moderate")
HEARD = [i for i, name in enumerate(UNITS) if name.startswith(("jaw", "mouth", "tongue", "cheek"))]
"""Indices of the face units that depend on speech, unlike those of eyelids and brows."""
MEASURES = ("openness", "width", "rounding")
HELD_OUT = 4  #: number of files with utterances of held-out seeds
FRAMES = 16  #: frames of a sample, all from one utterance
LOUDER, TILT = 0.25, 0.15
"""Augmentation of a sample's features: standard deviations of the level (0.25: 9 dB) and of the tilt over the bands."""
LEAST_DEVIATION = 0.02  #: smallest divisor of a target, so that units that hardly move are not amplified


@dataclass(frozen=True)
class Utterances:
    """`count` utterances of `seconds` per pool, and held-out ones, as audio features and targets of the mouth.

    They are stored in `folder`, `shard` utterances per file; `count` is rounded up to whole files.
    """

    folder: Path
    count: int
    seconds: float
    config: ModelConfig
    shard: int = 50

    @property
    def held_out(self) -> int:
        """Number of held-out utterances, which are the last ones of `load` and not used for training."""
        return HELD_OUT * self.shard

    def _jobs(self) -> list[tuple[Path, Pool, int]]:
        """File, pool and first seed of each file; the held-out ones come last."""
        apart = (HELD_OUT_SEED + i * self.shard for i in range(HELD_OUT // len(POOLS)))
        seeds = [*range(0, self.count, self.shard), *apart]
        return [(self.folder / f"{pool}-{seed:07d}.safetensors", pool, seed) for seed in seeds for pool in POOLS]

    def make(self, workers: int) -> None:
        """Synthesise the missing files in `workers` processes. It may be interrupted; the next call resumes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        missing = [(self, *job) for job in self._jobs() if not job[0].exists()]
        if not missing:
            return
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
            jobs = pool.map(_make, missing)
            for _ in tqdm(jobs, total=len(missing), desc="speaking", mininterval=5):
                pass

    def load(self) -> tuple[Tensor, Tensor]:
        """Features (utterances, frames, layers, dim) and targets (utterances, frames, k); held-out ones last.

        The targets are `MEASURES`, in 0..1, then the face units `HEARD`.
        """
        parts = [load_file(path) for path, *_ in self._jobs()]
        features, targets = (torch.cat([part[name] for part in parts]).float() for name in ("features", "targets"))
        return features, targets


def _one_thread() -> None:
    torch.set_num_threads(1)


def _make(job: tuple[Utterances, Path, Pool, int]) -> None:
    data, path, pool, first = job
    config = data.config
    encoder = build_audio_encoder(config.audio)
    features, targets = [], []
    for seed in range(first, first + data.shard):
        spoken = utter(seed, pool, data.seconds, fps=config.fps)
        act = spoken.performance
        measures = torch.stack([torch.from_numpy(act.mouth[name]) for name in MEASURES], 1)
        units = torch.from_numpy(act.motion.units[1:, HEARD])
        targets.append(torch.cat([measures.float(), units.float()], 1))
        features.append(encoder.encode(torch.from_numpy(spoken.waveform), len(units), config.fps))
    tensors = {"features": torch.stack(features).half(), "targets": torch.stack(targets).half()}
    with whole_file(path, shared=True) as partial:
        save_file(tensors, partial)


class _Reader(nn.Module):
    """Predicts the targets (n, frames, k) from the audio tokens of windows (n, frames, window, layers, dim)."""

    def __init__(self, projection: AudioProjection, config: ModelConfig, targets: int) -> None:
        super().__init__()
        self.projection = projection
        self.readout = nn.Linear(config.condition.audio_tokens * config.unet.audio_token_dim, targets)

    def forward(self, windows: Tensor) -> Tensor:
        return self.readout(self.projection(windows).flatten(2))


class SpeechTask:
    """Mean squared error of the mouth's measures and face units, each normalised to zero mean and unit deviation."""

    def __init__(self, projection: AudioProjection, config: ModelConfig, data: Utterances, batch: int) -> None:
        self.config, self.batch = config, batch
        self.features, targets = data.load()
        self.known = len(targets) - data.held_out
        self.mean = targets[: self.known].mean((0, 1))
        self.deviation = targets[: self.known].std((0, 1)).clamp(min=LEAST_DEVIATION)
        self.targets = (targets - self.mean) / self.deviation
        self.module: nn.Module = _Reader(projection, config, targets.shape[-1])

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.module.parameters())}]

    def settings(self) -> dict[str, Any]:
        return {"utterances": self.known}

    def describe(self) -> str:
        return "random utterances"

    def _sample(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Windows (FRAMES, window, layers, dim) with random level and spectral tilt, and their targets (FRAMES, k)."""
        index = int(torch.randint(self.known, (), generator=generator))
        features = self.features[index]
        rows = torch.randperm(len(features), generator=generator)[:FRAMES]
        windows = window_features(features, self.config.condition.audio_window, rows)
        louder, tilt = torch.randn(2, generator=generator)
        bands = torch.linspace(-1, 1, self.config.audio.mels).repeat(windows.shape[-1] // self.config.audio.mels)
        return windows + LOUDER * louder + TILT * tilt * bands, self.targets[index, rows]

    def losses(self, module: nn.Module, step: int, generators: list[torch.Generator]) -> dict[str, Tensor]:
        device = next(module.parameters()).device
        windows, targets = (torch.stack(part).to(device) for part in zip(*map(self._sample, generators), strict=True))
        return {"loss": (module(windows).float() - targets).square().mean()}

    def preview(self, folder: Path, step: int) -> None:
        """Write `held-out-STEP.json`: Pearson's r of predictions and targets over the held-out utterances, by name."""
        device = next(self.module.parameters()).device
        names: Sequence[str] = (*MEASURES, *(UNITS[i] for i in HEARD))
        read = [
            self.module(window_features(features, self.config.condition.audio_window)[None].to(device))[0].float().cpu()
            for features in self.features[self.known :]
        ]
        values = torch.stack([torch.cat(read), self.targets[self.known :].flatten(0, 1)])
        values = values - values.mean(1, keepdim=True)
        r = (values[0] * values[1]).sum(0) / (values.square().sum(1).prod(0).sqrt() + 1e-6)
        found = {name: round(float(value), 3) for name, value in zip(names, r, strict=True)}
        with whole_file(folder / f"held-out-{step:06d}.json") as partial:
            partial.write_text(json.dumps(found, indent=1), encoding="utf-8")
