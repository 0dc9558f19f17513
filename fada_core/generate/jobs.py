"""A list of jobs, one JSON object a line: shared by processes, one result line for each, gone on with after a stop."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState

from ..errors import FadaError

log = logging.getLogger("fada.jobs")

Job = dict[str, Any]
Accepted = Mapping[str, type | tuple[type, ...]]
"""What a job may say, and of which JSON type it is."""


def read_jobs(path: Path, accepted: Accepted, required: tuple[str, ...]) -> list[Job]:
    """The jobs of a file, blank lines aside.

    Raises:
        FadaError: the file cannot be read, or a line is no object with what is required and only what is accepted.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise FadaError(f"The list of jobs {path} cannot be read ({error.strerror}); check its path.") from error
    jobs = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"Line {number} of {path}"
        try:
            job = json.loads(line)
        except json.JSONDecodeError as error:
            raise FadaError(f"{where} is not JSON ({error.msg}); write one object a line.") from error
        if not isinstance(job, dict):
            raise FadaError(f"{where} is no object; write {{...}} with {', '.join(required)}.")
        for name in required:
            if name not in job:
                raise FadaError(f"{where} does not say {name}; give {', '.join(required)}.")
        for name, value in job.items():
            if name not in accepted:
                raise FadaError(f"{where} has '{name}'; a job may have {', '.join(accepted)}.")
            # To Python, true is a number as well.
            if not isinstance(value, accepted[name]) or (isinstance(value, bool) and accepted[name] is not bool):
                raise FadaError(f"{where} says {name} is {json.dumps(value)}, which is of the wrong type; correct it.")
        jobs.append(job)
    return jobs


def results_path(jobs: Path) -> Path:
    """Where the results of a list are: NAME.results.jsonl beside it."""
    return jobs.with_suffix(".results.jsonl")


def run_jobs(path: Path, jobs: list[Job], work: Callable[[], Callable[[Job], dict[str, Any]]]) -> bool:
    """Do this process's share of the jobs that are not done yet; returns whether all of it succeeded.

    Done is what has a report in the results and whose file `out` is there. A job that ends in a FadaError is written
    down with its message, and the next one is begun. A job that was stopped has no result, and is begun anew.

    Args:
        path: of the list; results and `out` are relative to its folder.
        work: prepares once, if there is anything to do, and returns what makes a job into its report.
    """
    results = results_path(path)
    finished = _finished(results, path.parent)
    state = PartialState()
    share = jobs[state.process_index :: state.num_processes]
    left = [job for job in share if _key(job) not in finished]
    log.info("%d of %d jobs are done already", len(share) - len(left), len(share))
    if not left:
        return True
    make, succeeded = work(), True
    for job in left:
        try:
            result = {"report": make(job)}
        except FadaError as error:
            succeeded, result = False, {"error": str(error)}
            log.error("%s: %s", job["out"], error)
        # One short write to the end of the file: lines of several processes do not mix.
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"job": job} | result) + "\n")
    return succeeded


def _finished(results: Path, folder: Path) -> set[str]:
    done = set()
    for line in results.read_text(encoding="utf-8").splitlines() if results.is_file() else ():
        try:
            result = json.loads(line)
        except json.JSONDecodeError:  # cut off by a crash
            continue
        if "report" in result and (folder / result["job"]["out"]).exists():
            done.add(_key(result["job"]))
    return done


def _key(job: Job) -> str:
    return json.dumps(job, sort_keys=True)
