"""The task's section: what the network is for."""

from typing import Any

from pydantic import Field

from prune_env.common.registry import Registry
from prune_env.config.sections import Section


class TaskSection(Section):
    """What the network is for: data, loss and quality follow from it."""

    name: str = Field(
        default="classification",
        min_length=1,
        description="classification (one class for each image), or your own as package.module:class.",
    )


TASKS: Registry[Any] = Registry("task", "task.name")
"""Classes of tasks (`prune_env.tasks.Task`), each made without arguments."""
