"""The log of a training: means of its loss terms over intervals, as CSV and, if installed, for tensorboard."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from ..atomic import whole_file
from ..errors import FadaError

log = logging.getLogger("fada.training")


class TrainingLog:
    """Context manager that writes `log.csv` in `folder`: one row per interval, with means over its steps and over all
    processes.

    When a training is resumed after step `first`, incomplete rows and rows of later steps are removed. A log that is
    damaged or has other columns is renamed, and a new one is started.
    """

    def __init__(self, folder: Path, first: int, accelerator: Accelerator) -> None:
        self.path, self.first, self.accelerator = folder / "log.csv", first, accelerator
        self.sums: dict[str, Tensor] = {}
        self.count = 0
        self.begun = False

    def __enter__(self) -> TrainingLog:
        self.writer = None
        if self.accelerator.is_main_process:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                pass
            else:
                self.writer = SummaryWriter(self.path.parent / "tensorboard")
        return self

    def __exit__(self, *_: object) -> None:
        if self.writer is not None:
            self.writer.close()

    def add(self, step: int, rate: float, terms: dict[str, Tensor], write: bool) -> None:
        """Add the scalar loss terms of a step. All processes have to call this with the same `write`.

        Args:
            rate: learning rate.
            write: end the interval and write its row.

        Raises:
            FadaError: the disk is full, or the folder cannot be written.
        """
        for name, value in terms.items():
            value = value.detach().float()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.count += 1
        if not write:
            return
        means = torch.stack(list(self.sums.values())) / self.count
        means = self.accelerator.reduce(means, "mean").tolist()
        if self.accelerator.is_main_process:
            row = {"step": step, "learning_rate": rate, **dict(zip(self.sums, means, strict=True))}
            try:
                if not self.begun:
                    self._begin(list(row))
                with self.path.open("a", newline="", encoding="utf-8") as file:
                    csv.writer(file).writerow(f"{v:.9g}" if isinstance(v, float) else v for v in row.values())
            except OSError as error:
                raise FadaError(
                    f"'{self.path}' cannot be written ({error.strerror}); make room, and start again to resume from "
                    "the last state."
                ) from error
            if self.writer is not None:
                for name, value in row.items():
                    self.writer.add_scalar(name, value, step)
        self.sums, self.count = {}, 0

    def _begin(self, columns: list[str]) -> None:
        """Make a file with these columns; of an existing one, keep the complete rows of steps up to `first`."""
        rows: list[list[str]] = []
        if self.path.exists():
            header, *found = self.path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
            if header.split(",") == columns:
                rows = [row for row in (line.split(",") for line in found) if self._kept(row, len(columns))]
            elif header or found:
                aside = self.path.with_name(f"log-until-{self.first:08d}.csv")
                self.path.replace(aside)
                log.warning("%s has other columns or is damaged; renamed to %s", self.path, aside.name)
        with whole_file(self.path) as partial:
            partial.write_text("".join(",".join(row) + "\n" for row in [columns, *rows]), encoding="utf-8")
        self.begun = True

    def _kept(self, row: list[str], columns: int) -> bool:
        return len(row) == columns and all(map(_is_float, row)) and float(row[0]) <= self.first


def _is_float(entry: str) -> bool:
    try:
        float(entry)
    except ValueError:
        return False
    return True
