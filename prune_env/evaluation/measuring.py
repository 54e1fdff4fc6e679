"""Measures a network with its task's metrics: quality and loss for a search, all metrics for a result."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from prune_env.common.modes import in_eval_mode
from prune_env.data import Batch
from prune_env.tasks import Metric, Task, right_of

StopEarly = Callable[[int, int], bool]
"""Takes the numbers of correct images and of images seen; returns whether to skip the remaining images."""


class Measurement(NamedTuple):
    """Quality in [0, 1], mean loss, and the number of images measured."""

    quality: float
    loss: float
    images: int


def measure(model: nn.Module, batches: Iterable[Batch], task: Task, stop_early: StopEarly | None = None) -> Measurement:
    """Measures a network's quality and loss, the loss in float32.

    Args:
        model: The network, in eval mode.
        batches: Images and targets, on the network's device.
        task: The network's task.
        stop_early: Called after each batch with the numbers of correct images and of images seen; True skips the
            remaining images. Only for a task whose quality counts images (`Metric.counts`).

    Raises:
        ModelError: If the network's outputs do not fit the task.
    """
    quality = task.metrics()[0]
    loss, images = _run(model, batches, task, [quality], stop_early)
    return Measurement(quality.compute(), loss, images)


def measure_all(model: nn.Module, batches: Iterable[Batch], task: Task) -> tuple[dict[str, float], Tensor | None]:
    """Measures a network with all metrics of its task.

    Args:
        model: The network; runs in eval mode, and its own mode is restored.
        batches: Images and targets, on the network's device.
        task: The network's task.

    Returns:
        All metrics by name: the quality first, the mean ``loss`` last. And which images the network gets right, bool
        [images] on the CPU; None if the task's quality does not say so (`right_of`).

    Raises:
        ModelError: If the network's outputs do not fit the task.
    """
    metrics, find = task.metrics(), right_of(task)
    right: list[Tensor] = []

    def hear(outputs: Any, batch: Batch) -> None:
        if find is not None:
            right.append(find(outputs, batch).cpu())

    with in_eval_mode(model):
        loss, _ = _run(model, batches, task, metrics, hear=hear)
    named = {**{metric.name: metric.compute() for metric in metrics}, "loss": loss}
    return named, torch.cat(right) if right else None


def _run(
    model: nn.Module,
    batches: Iterable[Batch],
    task: Task,
    metrics: Sequence[Metric],
    stop_early: StopEarly | None = None,
    hear: Callable[[Any, Batch], None] = lambda _outputs, _batch: None,
) -> tuple[float, int]:
    """Updates the metrics, and calls ``hear`` with each batch; returns the mean loss and the number of images."""
    loss, count = 0.0, 0
    for metric in metrics:
        metric.reset()
    with torch.no_grad():
        for batch in batches:
            outputs = task.forward(model, batch)
            task.check(outputs, batch)
            loss += float(task.loss(outputs, batch, "sum"))
            for metric in metrics:
                metric.update(outputs, batch)
            hear(outputs, batch)
            count += len(batch.images)
            if stop_early is not None and stop_early(round(count * metrics[0].compute()), count):
                break
    return loss / count, count
