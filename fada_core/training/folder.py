"""The folder of a training: locked by one training at a time, and resumed only with the same settings."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from ..atomic import only_worker
from ..errors import FadaError
from ..records import shown

log = logging.getLogger("fada.training")

#: Settings that may differ when a training is resumed. Most do not affect what is learned; `steps` and `explosion` may
#: be decided late, and `clips` and `precision` may depend on the machine.
MAY_CHANGE = frozenset(
    {"steps", "explosion", "save_every", "keep_states", "preview_every", "log_every", "clips", "precision"}
)


def agreed(value: Any, accelerator: Accelerator) -> Any:
    """The main process's value, on all processes; all of them have to call this."""
    return broadcast_object_list([value])[0] if accelerator.num_processes > 1 else value


@contextmanager
def locked(folder: Path, accelerator: Accelerator) -> Iterator[None]:
    """`only_worker` for a training of several processes: the main one takes the lock, all of them raise its error."""
    with ExitStack() as stack:
        problem = None
        if accelerator.is_main_process:
            try:
                stack.enter_context(only_worker(folder))
            except FadaError as error:
                problem = str(error)
        if problem := agreed(problem, accelerator):
            raise FadaError(problem)
        yield


def check_settings(began: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Compare the settings of a saved training with those to resume it with; both are JSON objects, possibly nested.

    Differences in `MAY_CHANGE` are logged.

    Raises:
        FadaError: another setting differs.
    """
    before, after = _flat(began), _flat(now)
    for name in sorted(before.keys() & after.keys()):
        old, new = before[name], after[name]
        if old == new:
            continue
        if name in MAY_CHANGE:
            log.info("%s is now %s; the training in %s was begun with %s", name, shown(new), folder, shown(old))
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
