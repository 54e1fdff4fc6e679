"""The training loss: the task's loss, and the distance to a teacher's outputs."""

from typing import Any

import torch
from torch import Tensor

from prune_env.config.training import DistilledSection, TrainingSection
from prune_env.data import Batch
from prune_env.tasks import Task


def training_loss(
    outputs: Any, batch: Batch, settings: TrainingSection, task: Task, teacher: Any | None = None
) -> Tensor:
    """The mean task loss of a batch; with a teacher, (1 - w) * task loss + w * distance to the teacher's outputs.

    Args:
        outputs: The network's outputs for the batch, in training mode.
        batch: Images and targets.
        settings: Label smoothing; with a teacher, the weight w and the temperature.
        task: Task of the network.
        teacher: The teacher's outputs for the batch; None for no teacher.
    """
    hard = task.loss(outputs, batch, "mean", settings.label_smoothing)
    if teacher is None or not isinstance(settings, DistilledSection):
        return hard
    soft = task.distillation(outputs, teacher, batch, settings.temperature)
    return torch.lerp(hard, soft, settings.distillation)
