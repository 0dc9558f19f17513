"""What a training writes down: means of its loss terms every few steps, as CSV and, where installed, tensorboard."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor


class TrainingLog:
    """`log.csv` in `folder`, one row every few steps, means over these steps and over all processes.

    A resumed training goes on after step `first`: rows of steps that were lost are removed.
    """

    def __init__(self, folder: Path, first: int, accelerator: Accelerator) -> None:
        self.path, self.accelerator = folder / "log.csv", accelerator
        self.sums: dict[str, Tensor] = {}
        self.count = 0
        if accelerator.is_main_process and self.path.exists():
            header, *rows = self.path.read_text().splitlines()
            kept = [row for row in rows if int(row.split(",")[0]) <= first]
            self.path.write_text("\n".join([header, *kept]) + "\n")

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
        """Add a step's scalar terms; `write` ends the interval (on every process alike)."""
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
            new = not self.path.exists()
            with self.path.open("a", newline="") as file:
                writer = csv.DictWriter(file, list(row))
                if new:
                    writer.writeheader()
                writer.writerow({n: f"{v:.9g}" if isinstance(v, float) else v for n, v in row.items()})
            if self.writer is not None:
                for name, value in row.items():
                    self.writer.add_scalar(name, value, step)
        self.sums, self.count = {}, 0
