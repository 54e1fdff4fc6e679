"""The task's section."""

from typing import Annotated, Any

from pydantic import Field

from prune_env.common.registry import Registry, class_with
from prune_env.config.sections import Section
from prune_env.config.trust import OWN_CODE


class TaskSection(Section):
    """The task, which defines data, loss and quality."""

    name: Annotated[str, OWN_CODE] = Field(
        default="classification",
        min_length=1,
        description="classification (one class for each image), detection (boxes around objects), or your own as "
        "package.module:class.",
    )


TASKS: Registry[Any] = Registry(
    "task",
    "task.name",
    adopt=class_with("task.name", "prune_env.tasks.Task", "name", "load", "build_model", "forward", "loss", "metrics"),
    home="prune_env.tasks",
)
"""Classes of tasks (`prune_env.tasks.Task`), each made without arguments."""
