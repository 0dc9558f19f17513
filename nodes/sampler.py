"""Node: diffusion, clip by clip."""

from __future__ import annotations

import logging
import weakref
from typing import Any

import torch
from comfy_api.latest import io
from server import PromptServer

from ..fada_core.errors import FadaError
from ..fada_core.pipeline import Stats
from ..fada_core.settings import COMPUTE, GUIDED, MODES, SCALE_RANGE, SOLVERS
from .model import FadaModel
from .preview import ClipPreview
from .types import CATEGORY, ConditionType, FadaCondition, ModelType, advanced, aliases, connected, refused, to_latent

AUTO = "auto"


def _guided_inputs() -> list[io.Input]:
    """What only these modes have."""
    return [
        io.Boolean.Input(
            "batch_branches",
            default=True,
            optional=True,
            tooltip="Compute the predictions that guidance compares at once. Off: a third of the memory, "
            "slower, same result. Tip: turn it off when memory runs out.",
            **advanced(io.Boolean.Input),
        ),
        io.Float.Input(
            "guidance_from",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.05,
            optional=True,
            tooltip="Where in the schedule, from 0 (clean) to 1 (noise), the two scales begin to apply. Tip: "
            "0.2 leaves the last steps unguided, one evaluation each.",
            **advanced(io.Float.Input),
        ),
        io.Float.Input(
            "guidance_to",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.05,
            optional=True,
            tooltip="Up to where in the schedule the two scales apply; 1 is where the work begins, in noise.",
            **advanced(io.Float.Input),
        ),
    ]


class FADASampler(io.ComfyNode):
    """FADA_MODEL, FADA_COND -> LATENT."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        low, high = SCALE_RANGE
        return io.Schema(
            node_id="FADASampler",
            display_name="FADA Sampler (Lip Sync)",
            category=CATEGORY,
            **aliases("talking head", "talking portrait", "lipsync", "audio driven", "avatar", "hallo", "KSampler"),
            description="Makes the video's latents by diffusion. They are small, however long the audio is.",
            inputs=[
                ModelType.Input("model", tooltip="From FADA Load Model; the one that encoded the condition."),
                ConditionType.Input("cond", tooltip="From FADA Encode."),
                io.DynamicCombo.Input(
                    "mode",
                    options=[
                        io.DynamicCombo.Option(name, _guided_inputs() if name in GUIDED else [])
                        for name in [AUTO, *MODES]
                    ],
                    tooltip="auto: what the model is made for. teacher: all steps with full guidance, for a teacher's "
                    "checkpoint. balanced and fast: few steps, 4 and 12 times fewer evaluations, need a distilled "
                    "student's checkpoint. Tip: try balanced where fast looks soft.",
                ),
                io.Int.Input(
                    "steps",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="Denoising steps for each clip. 0: the model's own number (the paper's teacher: 25). Tip: "
                    "10 are enough for a first look.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Of the start noise. The same seed on the same machine gives the same video.",
                ),
                io.Float.Input(
                    "audio_cfg",
                    default=0.0,
                    min=low,
                    max=high,
                    step=0.1,
                    tooltip="How strongly the speech guides the lips. 0: the model's own value (the paper: 6.5). 1: no "
                    "guidance. Tip: raise it if the mouth moves too little.",
                ),
                io.Float.Input(
                    "ref_cfg",
                    default=0.0,
                    min=low,
                    max=high,
                    step=0.1,
                    tooltip="How strongly the portrait guides the picture. 0: the model's own value (the paper: 2.0). "
                    "1: no guidance. Tip: lower it if colours get harsh.",
                ),
                io.Combo.Input(
                    "solver",
                    options=list(SOLVERS),
                    default="ddim",
                    tooltip="How a step is taken. ddim: the paper's. Tip: dpm++ and unipc need fewer steps for the "
                    "same picture.",
                ),
                io.Combo.Input(
                    "compute",
                    options=[AUTO, *(way for way in COMPUTE if way != "graph")],  # auto takes it where it can
                    default="auto",
                    optional=True,
                    tooltip="How the networks run. compile: the first clip takes a minute or two longer, all others "
                    "less. auto: compiled for long videos, else recorded once and replayed where there is CUDA. Tip: "
                    "compile pays if you make many videos with one model.",
                    **advanced(io.Combo.Input),
                ),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="latent", tooltip="The whole video, with its sound: for FADA Video Combine or Decode."
                )
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, model: Any = None, cond: Any = None, mode: dict[str, Any] | None = None) -> bool | str:
        # ComfyUI hands the mode over in any case, without its name where that comes from another node.
        if mode and mode.get("mode") is not None:
            try:
                _mode(mode)
            except FadaError as error:
                return str(error)
        return refused(model=model, cond=cond)

    @classmethod
    def execute(
        cls,
        model: FadaModel,
        cond: FadaCondition,
        steps: int,
        seed: int,
        audio_cfg: float,
        ref_cfg: float,
        solver: str,
        mode: dict[str, Any] | str | None = None,
        compute: str = "auto",
    ) -> io.NodeOutput:
        connected(model=model, cond=cond)
        name, batched, interval = _mode(mode)
        # Any of them changed: the video is another one. The model shall not stay in memory for this.
        settings = (weakref.ref(model), name, batched, interval, steps, seed, audio_cfg, ref_cfg, solver)
        progress = cond.progress
        if progress.settings != settings:
            progress.settings, progress.clips, progress.latent = settings, [], None
        if progress.latent is not None:
            logging.info("FADA Sampler takes over %d frames, which an earlier run has finished.", cond.condition.frames)
            return io.NodeOutput(progress.latent, ui=progress.shown)
        chosen = model.pipeline.modes[0] if name == AUTO else name
        pipeline = model.for_sampling(3 if chosen in GUIDED and batched else 1)
        after = None
        if progress.clips:
            after = torch.cat(progress.clips)
            logging.info(
                "FADA Sampler goes on after %d of %d frames, which are left of a run that was stopped.",
                len(after),
                cond.condition.frames,
            )
        try:
            with ClipPreview(pipeline) as preview:
                clips = pipeline.sample(
                    cond.condition,
                    chosen,
                    seed=seed,
                    callback=preview,
                    after=after,
                    steps=steps or None,
                    ref_cfg=ref_cfg or None,
                    audio_cfg=audio_cfg or None,
                    solver=solver,
                    guidance_interval=interval,
                    batch_branches=batched,
                    compute=compute,
                )
                while (clip := model.stoppable(lambda: next(clips, None))) is not None:
                    progress.clips.append(clip.cpu())
            latents = torch.cat(progress.clips)
            progress.shown = preview.finished(latents)
        finally:
            pipeline.release()  # memory that ComfyUI knows nothing of
        progress.latent = to_latent(pipeline, latents, cond.audio)
        progress.clips = []
        if cls.hidden is not None:  # of the ComfyUI that runs this
            PromptServer.instance.send_progress_text(_summary(pipeline.stats), cls.hidden.unique_id)
        return io.NodeOutput(progress.latent, ui=progress.shown)


def _mode(mode: dict[str, Any] | str | None) -> tuple[str, bool, tuple[float, float]]:
    """Mode, whether branches are batched, and the guidance interval, of what ComfyUI makes of the mode's inputs.

    Through the API a mode comes without inputs that were left out, or with None for them; an unknown one not at all.

    Raises:
        FadaError: no such mode.
    """
    given = mode if isinstance(mode, dict) else {"mode": mode}
    name = given.get("mode")
    if name not in (AUTO, *MODES):
        raise FadaError(f"mode is missing, or not one of {', '.join((AUTO, *MODES))}; choose one of these.")
    defaults = {"batch_branches": True, "guidance_from": 0.0, "guidance_to": 1.0}
    batched, low, high = (default if given.get(key) is None else given[key] for key, default in defaults.items())
    return name, batched, (low, high)


def _summary(stats: Stats) -> str:
    """What the node shows when it is done."""
    return (
        f"{stats.frames} frames in {stats.seconds:.1f} s: {stats.frames / stats.seconds:.1f} frames/s, "
        f"{stats.nfe_per_clip} NFE a clip"
    )
