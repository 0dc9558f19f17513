"""The folder of a training: one training at a time, and only with the settings that it was begun with."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from ..atomic import lock, remove_leftovers
from ..errors import FadaError
from ..records import shown

log = logging.getLogger("fada.training")

#: Settings that a training may go on with changed; what is learned, and from what, does not follow from them, but for
#: `steps` and `explosion`, which may be decided on late, and `clips` and `precision`, which may be the machine's.
MAY_CHANGE = frozenset(
    {"steps", "explosion", "save_every", "keep_states", "preview_every", "log_every", "clips", "precision"}
)


def agreed(value: Any, accelerator: Accelerator) -> Any:
    """The main process' value, on every process; each has to call it."""
    return broadcast_object_list([value])[0] if accelerator.num_processes > 1 else value


@contextmanager
def locked(folder: Path, accelerator: Accelerator) -> Iterator[None]:
    """Within, no other training works in `folder`; what killed ones left there half-written is removed.

    The system lets go of the lock however a process ends.

    Raises:
        FadaError: another training works there, or the folder cannot be made; on every process alike.
    """
    file, problem = None, None
    if accelerator.is_main_process:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / "lock").open("a+")
            file.seek(0)
            owner = file.read(200).strip()
            if lock(file):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}")
                file.flush()
                if left := remove_leftovers(folder):
                    log.info("removed %.0f MB that a stopped training left in %s", left / 1e6, folder)
            else:
                problem = f"Another training works in '{folder}' ({owner}); wait for its end or choose another --out."
        except OSError as error:
            problem = f"'{folder}' cannot be written ({error.strerror}); choose another --out."
    try:
        if problem := agreed(problem, accelerator):
            raise FadaError(problem)
        yield
    finally:
        if file is not None:
            file.close()


def check_settings(began: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Compare the settings of a training on disk with those it is to go on with; both as JSON, nested or not.

    Raises:
        FadaError: one that has to stay is another. Those that may change are logged.
    """
    before, after = _flat(began), _flat(now)
    for name in sorted(before.keys() & after.keys()):
        old, new = before[name], after[name]
        if old == new:
            continue
        if name in MAY_CHANGE:
            log.info("%s is %s now; the training in %s was begun with %s", name, shown(new), folder, shown(old))
        else:
            raise FadaError(
                f"The training in '{folder}' was begun with {name} {shown(old)}, and {shown(new)} is given now; give "
                "the same, or choose another --out."
            )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in json.loads(json.dumps(settings)).items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
