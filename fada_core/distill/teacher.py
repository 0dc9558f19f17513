"""The frozen teacher as the student's first source of truth: guided predictions for per-sample scales."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.batches import ClipBatch
from ..models.networks import Networks
from ..models.unet import Conditioning
from ..sampling.schedule import NoiseSchedule

BRANCHES = ((True, True), (False, True), (False, False))  #: (no reference, no audio) of base, ref and audio


class GuidedTeacher:
    """Three branches of every sample in one pass, combined by the rule of `sampling.guidance`.

    Kept out of accelerate's `prepare`: it has no gradient and needs no wrapping.

    Args:
        networks: on the device, frozen.
        schedule: its noise schedule.
    """

    def __init__(self, networks: Networks, schedule: NoiseSchedule) -> None:
        self.networks, self.schedule = networks.eval().requires_grad_(False), schedule

    @torch.no_grad()
    def condition(self, batch: ClipBatch) -> Conditioning:
        """Conditions of all base, then all ref, then all audio rows.

        Portraits and motion frames are read once; with identity tokens, once without and once with the identity.
        """
        networks, count = self.networks, len(batch.latents)
        drops = torch.tensor(BRANCHES, device=networks.device).repeat_interleave(count, dim=0)
        rows = batch.repeat(len(BRANCHES))
        tokens = networks.image_tokens(rows.identity, drops[:, 0])
        kinds = 1 if tokens is None else 2
        seen = None if tokens is None else tokens[: kinds * count]
        features = networks.reference_features(rows.portrait[: kinds * count], rows.motion[: kinds * count], seen)
        parts = {name: value.chunk(kinds) for name, value in features.items()}
        return networks.condition_features(
            {name: torch.cat([part[0], part[-1], part[-1]]) for name, part in parts.items()},
            rows.portrait,
            rows.motion,
            tokens,
            rows.audio,
            drop_reference=drops[:, 0],
            drop_audio=drops[:, 1],
            face_box=rows.face_box,
            masks=rows.masks,
        )

    @torch.no_grad()
    def predict(
        self, x_t: Tensor, t: Tensor, scales: Tensor, batch: ClipBatch, conditioning: Conditioning
    ) -> tuple[Tensor, Tensor]:
        """(guided, audio branch alone): predictions (batch, frames, c, h, w) float32.

        Args:
            x_t: (batch, frames, c, h, w).
            t: timesteps, (batch,).
            scales: ref_cfg and audio_cfg of each sample, (batch, 2); at a corner, guided is that one prediction.
        """
        alpha, sigma = self.schedule.alpha_sigma(t)
        rows = [value.repeat(3, *(1,) * (value.ndim - 1)) for value in (x_t, t, alpha, sigma, batch.portrait)]
        base, ref, audio = self.networks.predict(*rows, conditioning).chunk(3)
        ref_cfg, audio_cfg = scales[:, :, None, None, None, None].unbind(1)
        return (1 - ref_cfg) * base + (ref_cfg - audio_cfg) * ref + audio_cfg * audio, audio
