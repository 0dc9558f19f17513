"""A list of jobs, one JSON object a line: shared by processes, one result line for each, gone on with after a stop."""

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
    """A line of the list: what it says, or why it says nothing that could be made."""

    line: int
    values: Mapping[str, Any]
    problem: str | None = None

    def result(self, settings: Mapping[str, Any], **outcome: Any) -> dict[str, Any]:
        """The line of the results."""
        said = {"job": self.values, "settings": settings} if self.values else {}
        return {"line": self.line} | said | outcome


def read_jobs(path: Path, accepted: Mapping[str, Kind], required: tuple[str, ...]) -> list[Job]:
    """The jobs of a file; a line that is none has a problem in place of values.

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
            jobs.append(Job(line, {}, f"Line {line} of '{path.name}' is no job: {error}; correct it."))
        else:
            jobs.append(Job(line, value))
    if not jobs:
        raise FadaError(f"The list of jobs '{path}' is empty; write one JSON object a line.")
    return _distinct(jobs, path)


def _distinct(jobs: list[Job], path: Path) -> list[Job]:
    """The jobs, with a problem for each whose results would replace another's, or what another one reads."""

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
                    problem = f"'{job.values[name]}' is what a job reads, and would be overwritten; give another name."
                taken.setdefault(target, job.line)
        checked.append(Job(job.line, job.values, problem))
    return checked


def results_path(jobs: Path) -> Path:
    """Where the results of a list are: NAME.results.jsonl beside it."""
    return jobs.with_suffix(".results.jsonl")


def run_jobs(
    path: Path,
    jobs: list[Job],
    settings: Mapping[str, Any],
    work: Callable[[], Callable[[Mapping[str, Any]], dict[str, Any]]],
    tell: Callable[[dict[str, Any]], None],
) -> bool:
    """Do this process's share of the jobs that are not done yet; returns whether all of it succeeded.

    Done is what has a report in the results for the same settings, and whose `out` is there as a whole. A job that
    fails, however it does, is written down with its error, and the next one is begun. A job that was stopped has no
    result, and is begun anew.

    Args:
        path: of the list; results and `out` are relative to its folder.
        settings: plain JSON, the same for all jobs: what makes the videos other ones.
        work: prepares once, if there is anything to do, and returns what makes a job into its report.
        tell: called with each report, once it is written down.
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
                raise  # the model, without which there is no job
            outcome = {"error": str(error)}
            log.error("%s: %s", job.values.get("out", f"line {job.line}"), error)
        except Exception as error:  # one job must not end the others, whatever is wrong with it
            if make is None:
                raise
            log.exception("%s failed", job.values["out"])
            outcome = {"error": f"It failed in a way that was not foreseen ({type(error).__name__}: {error})."}
        _append(results, job.result(settings, **outcome))
        if "report" in outcome:
            tell(outcome["report"])
        succeeded = succeeded and "report" in outcome
    return succeeded


def _append(results: Path, line: Mapping[str, Any]) -> None:
    """One write to the end of the file: lines of several processes do not mix, and a torn one swallows no other."""
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
            except RecordError:  # cut off by a crash
                continue
            job = result.get("job") if isinstance(result, dict) else None
            if isinstance(job, dict) and "report" in result and _is_whole(folder, job.get("out")):
                done.add(_key(job, result.get("settings")))
    return done


def _is_whole(folder: Path, out: Any) -> bool:
    return isinstance(out, str) and (folder / out).exists() and not (folder / out / UNFINISHED).exists()


def _key(job: Mapping[str, Any], settings: Any) -> str:
    return json.dumps([job, settings], sort_keys=True)
