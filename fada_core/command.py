"""Shared by all commands: parsing of options, messages on stderr, and exit statuses.

The exit status is 0 on success; 1 if part of the work failed (results or messages say which); 2 if options or input are
wrong, or nothing could be produced for another reason; 130 after Ctrl-C and 143 after SIGTERM.
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
    """Run a command and return its exit status.

    Results go to stdout; progress, log and error messages ("error: " and one sentence) to stderr.

    Args:
        work: the command itself, called with the options; an int that it returns is the exit status, anything else
            means 0.
        options: a dataclass for tyro, or a function that parses the arguments into options.
        name: of the module, for the help: "generate" for `python -m fada_core.generate`.
        arguments: command-line arguments; default: those of the process.
        description: for the help, in place of the dataclass's docstring.
    """
    _open_streams()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        parsed: Options
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
    except BrokenPipeError:  # nobody reads stdout any more: redirect it, or Python's final flush would fail too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt as stop:
        # `Stop` raises it with a message and the signal's number.
        message, number = stop.args or ("stopped", signal.SIGINT)
        sys.stderr.write(f"{message}\n")
        return 128 + number


def _open_streams() -> None:
    """Make stdout and stderr accept any text: a character that cannot be shown must not end the command."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the parent process
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for the process's life
        elif hasattr(stream, "reconfigure"):  # streams that tests capture have no such method
            stream.reconfigure(errors="backslashreplace")


class Stop:
    """Context manager in which both Ctrl-C and SIGTERM raise KeyboardInterrupt at once.

    A library may swallow an exception that a signal raises inside one of its callbacks; `check` raises it again.

    Args:
        message: shown to the user when the command ends.
    """

    def __init__(self, message: str) -> None:
        self._message = message
        self._number = 0  # of the signal that arrived

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
        """Raise KeyboardInterrupt if a signal has arrived."""
        if self._number:
            raise KeyboardInterrupt(self._message, self._number)
