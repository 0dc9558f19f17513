"""What every training shares: the loop, its state on disk, and the signals that end it cleanly."""

from .loop import LoopConfig, Task, train

__all__ = ["LoopConfig", "Task", "train"]
