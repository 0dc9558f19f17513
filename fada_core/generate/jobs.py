"""Lists of jobs, one JSON object per line: shared among processes, resumable, with one result line per job."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState

from ..errors import FadaError
from ..media.outputs import UNFINISHED
from ..records import Kind, RecordError, check, parse_json, read_json_lines

log = logging.getLogger("fada.jobs")


@dataclass(frozen=True)
class Job:
    """A line of the list; `problem` says why it cannot be made, if it cannot."""

    line: int
    values: Mapping[str, Any]
    problem: str | None = None

    def result(self, settings: Mapping[str, Any], **outcome: Any) -> dict[str, Any]:
        """The line of this job in the file of results."""
        said = {"job": self.values, "settings": settings} if self.values else {}
        return {"line": self.line} | said | outcome


def read_jobs(path: Path, accepted: Mapping[str, Kind], required: tuple[str, ...]) -> list[Job]:
    """The jobs of a file; for a line that is not a job, the result has a `problem` and no values.

    Args:
        accepted: entries that a job may have.
        required: entries that a job must have.

    Raises:
        FadaError: the file cannot be read, or has no jobs.
    """
    jobs = []
    for line, value in read_json_lines(path, "the list of jobs"):
        try:
            if isinstance(value, RecordError):
                raise value
            check(value, accepted, required, only=True)
        except RecordError as error:
            jobs.append(Job(line, {}, f"Line {line} of '{path.name}' is not a job: {error}; correct it."))
        else:
            jobs.append(Job(line, value))
    if not jobs:
        raise FadaError(f"The list of jobs '{path}' is empty; write one JSON object per line.")
    return _distinct(jobs, path)


def _distinct(jobs: list[Job], path: Path) -> list[Job]:
    """The jobs, with a problem for each whose output would overwrite another job's output or any job's input."""

    def place(name: str) -> str:
        return os.path.normcase(os.path.realpath(path.parent / name))

    read = {place(job.values[name]) for job in jobs for name in ("image", "audio") if name in job.values}
    read |= {place(path.name), place(results_path(path).name)}
    taken: dict[str, int] = {}
    checked = []
    for job in jobs:
        problem = job.problem
        for name in ("out", "sheet"):
            if name in job.values and problem is None:
                target = place(job.values[name])
                if target in taken:
                    problem = f"Line {taken[target]} has the same {name}, '{job.values[name]}'; give each its own."
                elif target in read:
                    problem = f"'{job.values[name]}' is an input of a job and would be overwritten; give another name."
                taken.setdefault(target, job.line)
        checked.append(Job(job.line, job.values, problem))
    return checked


def results_path(jobs: Path) -> Path:
    """The file of results of a list: NAME.results.jsonl in the same folder."""
    return jobs.with_suffix(".results.jsonl")


def run_jobs(
    path: Path,
    jobs: list[Job],
    settings: Mapping[str, Any],
    work: Callable[[], Callable[[Mapping[str, Any]], dict[str, Any]]],
    tell: Callable[[dict[str, Any]], None],
) -> bool:
    """Do this process's share of the jobs that are not done yet; returns whether all of them succeeded.

    A job is done if the results have a report for it with the same settings, and its `out` exists and is complete. If a
    job fails for any reason, its error is added to the results, and the next job starts. A job that was interrupted has
    no result, and starts again from the beginning.

    Args:
        path: of the list; results and `out` are relative to its folder.
        settings: JSON values, the same for all jobs, that affect the videos.
        work: called once, if there is anything to do; loads the model and returns the function that does a job and
            returns its report.
        tell: called with each report after it has been written.

    Raises:
        FadaError: the model cannot be loaded, or the results cannot be written.
    """
    results = results_path(path)
    finished = _finished(results, path.parent)
    state = PartialState()
    share = jobs[state.process_index :: state.num_processes]
    left = [job for job in share if _key(job.values, settings) not in finished]
    log.info("%d of %d jobs are done already", len(share) - len(left), len(share))
    make, succeeded = None, True
    for job in left:
        outcome: dict[str, Any]
        try:
            if job.problem:
                raise FadaError(job.problem)
            make = make or work()
            outcome = {"report": make(job.values)}
        except FadaError as error:
            if make is None and not job.problem:
                raise  # loading the model failed, so no job can be done
            outcome = {"error": str(error)}
            log.error("%s: %s", job.values.get("out", f"line {job.line}"), error)
        except Exception as error:  # an unexpected error in one job must not stop the others
            if make is None:
                raise
            log.exception("%s failed", job.values["out"])
            outcome = {"error": f"An unexpected error occurred ({type(error).__name__}: {error})."}
        _append(results, job.result(settings, **outcome))
        if "report" in outcome:
            tell(outcome["report"])
        succeeded = succeeded and "report" in outcome
    return succeeded


def _append(results: Path, line: Mapping[str, Any]) -> None:
    """Append a line in a single write, so that lines of several processes do not mix; if the last line is incomplete,
    start a new one."""
    try:
        with results.open("ab+") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
            torn = file.read(1) not in (b"", b"\n")
            file.write(b"\n" * torn + json.dumps(line).encode() + b"\n")
    except OSError as error:
        raise FadaError(f"'{results}' cannot be written ({error.strerror}); make room and start again.") from error


def _finished(results: Path, folder: Path) -> set[str]:
    if not results.is_file():
        return set()
    done = set()
    with results.open("rb") as file:
        for line in file:
            try:
                result = parse_json(line)
            except RecordError:  # incomplete, after a crash
                continue
            job = result.get("job") if isinstance(result, dict) else None
            if isinstance(job, dict) and "report" in result and _is_whole(folder, job.get("out")):
                done.add(_key(job, result.get("settings")))
    return done


def _is_whole(folder: Path, out: Any) -> bool:
    return isinstance(out, str) and (folder / out).exists() and not (folder / out / UNFINISHED).exists()


def _key(job: Mapping[str, Any], settings: Any) -> str:
    return json.dumps([job, settings], sort_keys=True)
