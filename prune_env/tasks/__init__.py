"""Tasks: what the network is for. Importing this package registers those that come with the library."""

from prune_env.tasks.base import Metric, Reduction, Task, make_task, quality_of, register_task
from prune_env.tasks.classification import Classification

__all__ = [
    "Classification",
    "Metric",
    "Reduction",
    "Task",
    "make_task",
    "quality_of",
    "register_task",
]
