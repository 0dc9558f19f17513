"""Node: sample the latents of the video, clip by clip."""

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
    """Inputs that only the modes with guidance have."""
    return [
        io.Boolean.Input(
            "batch_branches",
            default=True,
            optional=True,
            tooltip="Compute the predictions of guidance in one batch. Off: a third of the memory, slower, same "
            "result. Tip: turn it off if memory runs out.",
            **advanced(io.Boolean.Input),
        ),
        io.Float.Input(
            "guidance_from",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.05,
            optional=True,
            tooltip="Lower end of the part of the schedule, from 0 (clean) to 1 (noise), in which the two scales "
            "apply. Tip: with 0.2 the last steps have no guidance and take one evaluation each.",
            **advanced(io.Float.Input),
        ),
        io.Float.Input(
            "guidance_to",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.05,
            optional=True,
            tooltip="Upper end of the part of the schedule in which the two scales apply; 1 is noise, where sampling "
            "starts.",
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
            description="Samples the video's latents by diffusion. They are small, however long the audio is.",
            inputs=[
                ModelType.Input("model", tooltip="From FADA Load Model; the one that encoded the condition."),
                ConditionType.Input("cond", tooltip="From FADA Encode."),
                io.DynamicCombo.Input(
                    "mode",
                    options=[
                        io.DynamicCombo.Option(name, _guided_inputs() if name in GUIDED else [])
                        for name in [AUTO, *MODES]
                    ],
                    tooltip="auto: the model's default. teacher: all steps with full guidance, needs a teacher's "
                    "checkpoint. balanced and fast: few steps with 4 and 12 times fewer evaluations, need the "
                    "checkpoint of a distilled student. Tip: try balanced if fast looks soft.",
                ),
                io.Int.Input(
                    "steps",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="Denoising steps per clip. 0: the model's default (the paper's teacher: 25). Tip: 10 are "
                    "enough for a first look.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Seed of the initial noise. The same seed on the same machine gives the same video.",
                ),
                io.Float.Input(
                    "audio_cfg",
                    default=0.0,
                    min=low,
                    max=high,
                    step=0.1,
                    tooltip="How strongly the speech guides the lips. 0: the model's default (the paper: 6.5). 1: no "
                    "guidance. Tip: raise it if the mouth moves too little.",
                ),
                io.Float.Input(
                    "ref_cfg",
                    default=0.0,
                    min=low,
                    max=high,
                    step=0.1,
                    tooltip="How strongly the portrait guides the picture. 0: the model's default (the paper: 2.0). "
                    "1: no guidance. Tip: lower it if colours get harsh.",
                ),
                io.Combo.Input(
                    "solver",
                    options=list(SOLVERS),
                    default="ddim",
                    tooltip="The solver. ddim: the paper's. Tip: dpm++ and unipc need fewer steps for the same "
                    "quality.",
                ),
                io.Combo.Input(
                    "compute",
                    options=[AUTO, *(way for way in COMPUTE if way != "graph")],  # auto uses "graph" where possible
                    default="auto",
                    optional=True,
                    tooltip="How the networks run. compile: the first clip takes a minute or two longer, all others "
                    "are faster. auto: compile for long videos; for others a CUDA graph if there is CUDA. Tip: compile "
                    "pays off if you make many videos with one model.",
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
        # ComfyUI always passes the mode; it has no name if that will come from another node.
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
        # If any of these changes, so does the video. A weak reference does not keep the model in memory.
        settings = (weakref.ref(model), name, batched, interval, steps, seed, audio_cfg, ref_cfg, solver)
        progress = cond.progress
        if progress.settings != settings:
            progress.settings, progress.clips, progress.latent = settings, [], None
        if progress.latent is not None:
            logging.info("FADA Sampler reuses %d frames of an earlier run.", cond.job.frames)
            return io.NodeOutput(progress.latent, ui=progress.shown)
        chosen = model.pipeline.modes[0] if name == AUTO else name
        pipeline = model.for_sampling(3 if chosen in GUIDED and batched else 1)
        after = None
        if progress.clips:
            after = torch.cat(progress.clips)
            logging.info(
                "FADA Sampler resumes after %d of %d frames of a run that was stopped.",
                len(after),
                cond.job.frames,
            )
        try:
            with ClipPreview(pipeline) as preview:
                clips = pipeline.sample(
                    cond.job,
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
            pipeline.release()  # ComfyUI does not manage this memory
        progress.latent = to_latent(pipeline, latents, cond.audio)
        progress.clips = []
        if cls.hidden is not None:  # None outside of ComfyUI
            PromptServer.instance.send_progress_text(_summary(pipeline.stats), cls.hidden.unique_id)
        return io.NodeOutput(progress.latent, ui=progress.shown)


def _mode(mode: dict[str, Any] | str | None) -> tuple[str, bool, tuple[float, float]]:
    """Mode, batch_branches and guidance interval from the mode and its inputs as ComfyUI passes them.

    For graphs from the API, inputs of the mode that were left out are missing or None; an unknown mode is missing.

    Raises:
        FadaError: there is no such mode.
    """
    given = mode if isinstance(mode, dict) else {"mode": mode}
    name = given.get("mode")
    if name not in (AUTO, *MODES):
        raise FadaError(f"mode is missing, or not one of {', '.join((AUTO, *MODES))}; choose one of these.")
    defaults = {"batch_branches": True, "guidance_from": 0.0, "guidance_to": 1.0}
    batched, low, high = (default if given.get(key) is None else given[key] for key, default in defaults.items())
    return name, batched, (low, high)


def _summary(stats: Stats) -> str:
    """The text that the node shows when it has finished."""
    return (
        f"{stats.frames} frames in {stats.seconds:.1f} s ({stats.frames / stats.seconds:.1f}/s), "
        f"{stats.nfe_per_clip} NFE per clip"
    )
