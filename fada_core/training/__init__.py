"""The training loop for all stages, with its state on disk, log, sharding and previews."""

from .loop import LoopConfig, Task, train

__all__ = ["LoopConfig", "Task", "train"]
