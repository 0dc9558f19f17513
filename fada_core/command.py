"""What all commands share: options from the command line, messages on stderr, and how they end.

The exit status is 0 when all was done; 1 when a part of the work failed, as results or messages say; 2 when options or
input are wrong, or for another reason nothing could be made; 130 after Ctrl-C and 143 after SIGTERM.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TypeVar

import tyro

from .errors import FadaError

DONE, FAILED, REFUSED = 0, 1, 2  #: exit status

Options = TypeVar("Options")


def run_command(
    work: Callable[[Options], object],
    options: type[Options] | Callable[[Sequence[str]], Options],
    name: str,
    arguments: Sequence[str] | None = None,
    *,
    description: str | None = None,
) -> int:
    """Run a command, and return its exit status.

    Results go to stdout, everything else to stderr: progress, log, and a mistake's one sentence after "error: ".

    Args:
        work: does it; returns the exit status, or else anything but an int for 0.
        options: a dataclass for tyro, or what makes options of the arguments.
        name: of the module, for the help: "generate" for `python -m fada_core.generate`.
        arguments: default those of the process.
        description: for the help, in place of the dataclass's own.
    """
    _open_streams()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if isinstance(options, type):
            parsed = tyro.cli(
                options,
                args=arguments,
                prog=f"python -m fada_core.{name}",
                description=description,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
        else:
            parsed = options(arguments)
        status = work(parsed)
        sys.stdout.flush()
        return status if isinstance(status, int) else DONE
    except FadaError as error:
        sys.stderr.write(f"error: {error}\n")
        return REFUSED
    except MemoryError:
        sys.stderr.write("error: The memory of the machine is full; use a smaller model or shorter input.\n")
        return REFUSED
    except BrokenPipeError:  # nobody reads stdout any more: not even Python's own last flush may be tried
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt as stop:
        # Raised by `Stop`, it has a message and the signal's number.
        message, number = stop.args or ("stopped", signal.SIGINT)
        sys.stderr.write(f"{message}\n")
        return 128 + number


def _open_streams() -> None:
    """Make both streams take every text, as what cannot be shown must not end the work."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by who started the command
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for the process's life
        elif hasattr(stream, "reconfigure"):  # not that of a test
            stream.reconfigure(errors="backslashreplace")


class Stop:
    """Ctrl-C and SIGTERM end the work the same way: by KeyboardInterrupt, at once; a context manager.

    An exception that a signal raises inside a library's callback can be swallowed there; `check` raises it again.

    Args:
        message: for the user, once the work has ended.
    """

    def __init__(self, message: str) -> None:
        self._message = message
        self._number = 0  # of the signal that came

    def __enter__(self) -> Stop:
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._number = number
        self.check()

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal has come."""
        if self._number:
            raise KeyboardInterrupt(self._message, self._number)
