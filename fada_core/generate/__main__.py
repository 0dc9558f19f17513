"""Command: make a talking video from a portrait and a recording, or many from a list that several processes share.

python -m fada_core.generate --image portrait.png --audio speech.wav --out talking.mp4
accelerate launch -m fada_core.generate --jobs jobs.jsonl
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from accelerate import PartialState

from ..command import DONE, FAILED, Stop, run_command
from .jobs import read_jobs, run_jobs
from .options import JOB, PATHS, STDIO, GenerateConfig, JobsConfig, Settings, plain
from .video import Report, generate, open_pipeline


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if any(argument.partition("=")[0] == "--jobs" for argument in arguments):
        return run_command(_make, JobsConfig, "generate", arguments)
    return run_command(_make, GenerateConfig, "generate", arguments)


def _make(config: GenerateConfig | JobsConfig) -> int:
    def tell(report: Report) -> None:
        stream = sys.stderr if report.out == STDIO else sys.stdout
        stream.write(f"{json.dumps(asdict(report)) if config.json else _sentence(report)}\n")
        stream.flush()

    where = "their files" if isinstance(config, JobsConfig) else str(config.out)
    with Stop(f"stopped; the clips that were finished, if any, are in {where}") as stop:
        if isinstance(config, JobsConfig):
            return DONE if _do_jobs(config, tell, stop.check) else FAILED
        tell(generate(config, stop.check))
        return DONE


def _do_jobs(config: JobsConfig, tell: Callable[[Report], None], check: Callable[[], None]) -> bool:
    """Do this process's share of a list; returns whether all of its jobs succeeded."""
    folder = config.jobs.parent
    jobs = read_jobs(config.jobs, JOB, ("image", "audio", "out"))
    shared = {f.name: getattr(config, f.name) for f in fields(Settings)}

    def work() -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        state = PartialState()
        pipe = open_pipeline(replace(config, device=str(state.device)) if state.num_processes > 1 else config)

        def make(job: Mapping[str, Any]) -> dict[str, Any]:
            paths = {name: folder / job[name] for name in PATHS if name in job}
            return asdict(generate(GenerateConfig(**{**shared, **job, **paths}), check, pipe))

        return make

    return run_jobs(config.jobs, jobs, plain(config), work, lambda report: tell(Report(**report)))


def _sentence(report: Report) -> str:
    return (
        f"{report.out}: {report.frames} frames at {report.fps:g} fps, {report.nfe_per_clip:g} NFE per clip "
        f"({report.clips} clips), {report.seconds:.1f} s, real-time factor {report.realtime_factor:.2f}, "
        f"peak memory {report.peak_memory_mb:.0f} MB"
    )


if __name__ == "__main__":
    sys.exit(main())
