"""Tasks: data, loss and quality of a network. Importing this package registers the built-in tasks."""

from prune_env.tasks.base import (
    Core,
    Metric,
    Reduction,
    Task,
    chance_of,
    core_of,
    draws_pictures,
    make_task,
    pictures_of,
    quality_of,
    register_task,
    right_of,
    suspicions_of,
)
from prune_env.tasks.classification import Classification
from prune_env.tasks.detection import Detection

__all__ = [
    "Classification",
    "Core",
    "Detection",
    "Metric",
    "Reduction",
    "Task",
    "chance_of",
    "core_of",
    "draws_pictures",
    "make_task",
    "pictures_of",
    "quality_of",
    "register_task",
    "right_of",
    "suspicions_of",
]
