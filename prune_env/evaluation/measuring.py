"""How good a network is, by its task: quality and loss for a search, every metric for a result."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import nn

from prune_env.common.modes import in_eval_mode
from prune_env.data import Batch
from prune_env.tasks import Metric, Task

StopEarly = Callable[[int, int], bool]
"""Told how many images were right and how many seen, says whether the rest need not be looked at."""


class Measurement(NamedTuple):
    """Quality in [0, 1], mean loss, and the number of images that they are over."""

    quality: float
    loss: float
    images: int


def measure(model: nn.Module, batches: Iterable[Batch], task: Task, stop_early: StopEarly | None = None) -> Measurement:
    """A network's quality and loss, the loss in float32.

    Args:
        model: The network, in eval mode.
        batches: Images and targets, on the network's device.
        task: What the network is for.
        stop_early: Asked after each batch, with the images that were right and those seen; True leaves the rest. Only
            for a task whose quality counts images (`Metric.counts`).

    Raises:
        ModelError: If the network's outputs are not those of a network for the task.
    """
    quality = task.metrics()[0]
    loss, images = _run(model, batches, task, [quality], stop_early)
    return Measurement(quality.compute(), loss, images)


def measure_all(model: nn.Module, batches: Iterable[Batch], task: Task) -> dict[str, float]:
    """Every metric of a network by its name, the quality first, and at the end the mean ``loss``.

    Args:
        model: The network; it runs in eval mode and keeps its own.
        batches: Images and targets, on the network's device.
        task: What the network is for.

    Raises:
        ModelError: If the network's outputs are not those of a network for the task.
    """
    metrics = task.metrics()
    with in_eval_mode(model):
        loss, _ = _run(model, batches, task, metrics)
    return {**{metric.name: metric.compute() for metric in metrics}, "loss": loss}


def _run(
    model: nn.Module,
    batches: Iterable[Batch],
    task: Task,
    metrics: Sequence[Metric],
    stop_early: StopEarly | None = None,
) -> tuple[float, int]:
    """Feeds the metrics; returns the mean loss and the number of images."""
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
            count += len(batch.images)
            if stop_early is not None and stop_early(round(count * metrics[0].compute()), count):
                break
    return loss / count, count
