"""Tasks: data, loss and quality of a network. Importing this package registers the built-in tasks."""

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
