"""The variants to compare: different ways to compute the same video."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import FadaError
from ..job import Job
from ..media.image import to_uint8
from ..models.networks import Networks
from ..pipeline import Pipeline
from ..sampling.denoise import Callback
from ..settings import COMPUTE, SamplingOptions
from .published import PublishedPipeline, to_host

PUBLISHED = "published"
VARIANTS = {
    PUBLISHED: "as published code samples (`published.py`)",
    **{str(name): says for name, says in COMPUTE.items()},
}


@dataclass(frozen=True, eq=False)
class Variant:
    """A pipeline that samples and decodes, with the function that copies frames to the host."""

    name: str
    pipe: Pipeline | PublishedPipeline
    to_host: Callable[[Tensor], Tensor]  #: (n, 3, h, w) in -1..1 -> (n, h, w, 3) bytes on the CPU
    extra: dict[str, Any] = field(default_factory=dict)  #: further arguments of the pipeline's `sample`

    def sample(self, job: Job, options: SamplingOptions, callback: Callback | None = None) -> Iterator[Tensor]:
        """Latents clip by clip, with the mode, steps and scales of `options`."""
        effort: dict[str, Any] = {"steps": options.steps, "ref_cfg": options.ref_cfg, "audio_cfg": options.audio_cfg}
        return self.pipe.sample(job, options.mode, seed=0, callback=callback, **effort, **self.extra)


def parse_variants(text: str, device_type: str) -> list[str]:
    """Names of variants from a list with commas.

    Raises:
        FadaError: an unknown or repeated name, or "graph" on a device other than CUDA.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in VARIANTS:
            raise FadaError(f"There is no variant '{name}' to compare; choose from {', '.join(VARIANTS)}.")
        if names.count(name) > 1:
            raise FadaError(f"The variant '{name}' is given twice; name each one once.")
    if "graph" in names and device_type != "cuda":
        raise FadaError(f"The variant 'graph' needs a CUDA device, not '{device_type}'; leave it out of --compare.")
    return names


def build_variant(name: str, pipe: Pipeline) -> Variant:
    """The variant `name` of a loaded model; they share weights."""
    if name == "eager":
        return Variant(name, pipe, to_uint8)
    networks = pipe.networks
    weights = [*networks.parameters(), *networks.buffers()]
    if name == PUBLISHED:
        # The convolutions are copied, because published code keeps them in another memory format.
        plain = _copied(networks, [weight for weight in weights if weight.ndim != 4])
        return Variant(name, PublishedPipeline(plain.to(memory_format=torch.contiguous_format), pipe.info), to_host)
    # The modules are copied, around the same weights, so that changes do not affect other variants.
    return Variant(name, Pipeline(_copied(networks, weights), pipe.info), to_uint8, {"compute": name})


def _copied(networks: Networks, shared: list[Tensor]) -> Networks:
    return copy.deepcopy(networks, {id(weight): weight for weight in shared})
