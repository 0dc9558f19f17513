"""What a training writes down: means of its loss terms every few steps, as CSV and, where installed, tensorboard."""

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
    """`log.csv` in `folder`, one row every few steps, means over these steps and over all processes.

    A resumed training goes on after step `first`: rows of steps that were lost, or that were written in part, are
    removed. A log of other columns, or one that cannot be read, is put aside, and a new one is begun.
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
        """Add a step's scalar terms; `write` ends the interval (on every process alike).

        Raises:
            FadaError: the disk is full, or the folder cannot be written to.
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
                    f"'{self.path}' cannot be written ({error.strerror}); make room, and start again to go on from "
                    "the last state."
                ) from error
            if self.writer is not None:
                for name, value in row.items():
                    self.writer.add_scalar(name, value, step)
        self.sums, self.count = {}, 0

    def _begin(self, columns: list[str]) -> None:
        """Leave a file with these columns and only whole rows of the steps up to `first`."""
        rows: list[list[str]] = []
        if self.path.exists():
            header, *found = self.path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
            if header.split(",") == columns:
                rows = [row for row in (line.split(",") for line in found) if self._kept(row, len(columns))]
            elif header or found:
                aside = self.path.with_name(f"log-until-{self.first:08d}.csv")
                self.path.replace(aside)
                log.warning("%s has other columns or is damaged; it is %s now", self.path, aside.name)
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
