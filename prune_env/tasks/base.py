"""What a task is: it says what the network is for, and nobody else knows.

A new task is a new file here and its registration. Evaluation, criteria, recovery, run folders and reports know a task
by this protocol alone.
"""

from collections.abc import Hashable, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from prune_env.config.sections import DataSection, ModelSection
from prune_env.config.task import TASKS, TaskSection
from prune_env.data import Batch, ImageSource

Reduction = Literal["none", "mean", "sum"]
"""How the losses of a batch's images become one tensor, as in torch: one value an image, their mean, or their sum."""


class Metric(Protocol):
    """A number that says how good outputs are: `reset`, then `update` for each batch, then `compute`.

    Attributes:
        name: The key in files and TensorBoard tags: ``test_NAME`` in a result row, ``search/NAME`` in TensorBoard.
        title: The heading in tables.
        format: The number in tables: ``.2%`` for a share.
        counts: Whether the number is the share of images that are right, each of which is right or wrong. Racing
            needs that of the quality.
    """

    name: str
    title: str
    format: str
    counts: bool

    def reset(self) -> None:
        """Forgets all batches."""

    def update(self, outputs: Any, batch: Batch) -> None:
        """Takes one more batch.

        Args:
            outputs: What `Task.forward` gave for the batch in eval mode.
            batch: The batch.
        """

    def compute(self) -> float:
        """The number over all batches since `reset`."""


class Task(Protocol):
    """What a network is for: its data, its loss, and what counts as good.

    A task's network takes images [N, C, H, W]. In eval mode it needs nothing else, so that tracing, recalibration,
    scores and timings run it on images alone. Only the task looks into outputs and targets. A task holds no state: one
    is as good as another of the same class.

    Attributes:
        name: As in ``task.name``.
        draws: How many random numbers `augment` needs for an image.
    """

    name: str
    draws: int

    def load(self, settings: DataSection) -> ImageSource:
        """Opens the data set that the settings name.

        Raises:
            DataError: If there is none, or its files are missing or damaged.
        """

    def stratum(self, target: Any) -> Hashable:
        """What a subset is balanced by: the class that an image counts for. All values can be sorted together.

        Args:
            target: One image's element of `ImageSource.targets`.
        """

    def build_model(self, settings: ModelSection, source: ImageSource, image: Tensor) -> nn.Module:
        """Builds the network that the settings name, and loads its weights.

        Args:
            settings: Name, weights and arguments.
            source: The data that the network is for.
            image: One image [1, C, H, W], on which the network is tried.

        Raises:
            ModelError: If there is no such network, or the network does not give what the task needs.
            WeightsError: If the weights are missing, damaged or made for another network.
        """

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        """The network's outputs for a batch.

        In training mode a network may also look at the targets, and give a dict of losses.
        """

    def check(self, outputs: Any, batch: Batch) -> None:
        """Refuses outputs that are not of a network for this task; may wait for a GPU.

        Raises:
            ModelError: What was found, and what is needed.
        """

    def loss(self, outputs: Any, batch: Batch, reduction: Reduction = "none", smoothing: float = 0.0) -> Tensor:
        """The loss of each image, >= 0, in float32.

        Args:
            outputs: What `forward` gave for the batch.
            batch: The batch.
            reduction: ``none`` gives one value an image [n], ``mean`` and ``sum`` a scalar.
            smoothing: Share of a target that is spread over all classes, in [0, 1), in training.
        """

    def sampled(self, outputs: Any, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch with targets drawn from the network's own prediction.

        Raises:
            ConfigError: If the task's predictions are no distribution to draw from.
            EvaluationError: If an output is not a finite number.
        """

    def distillation(self, student: Any, teacher: Any, batch: Batch, temperature: float) -> Tensor:
        """How far a student's outputs are from a teacher's, a scalar >= 0.

        Args:
            student: What `forward` gave for the batch in training mode.
            teacher: What `forward` gave for the batch in eval mode.
            batch: The batch.
            temperature: Softens both outputs, above 0. The size of the gradients should not depend on it.

        Raises:
            ConfigError: If the task has no distillation.
        """

    def augment(self, batch: Batch, draws: Tensor, name: str) -> Batch:
        """The batch with its images varied, and its targets with them.

        Args:
            batch: The batch.
            draws: Uniform in [0, 1), float [n, `draws`].
            name: How, as ``finetune.augment`` names it.
        """

    def metrics(self) -> Sequence[Metric]:
        """New metrics. The first is the quality, in [0, 1], higher is better."""


def register_task(task: type[Task]) -> type[Task]:
    """Makes a task known under its ``name``.

    Raises:
        ValueError: If the name is taken.
    """
    TASKS.add(task.name, task)
    return task


def make_task(settings: TaskSection | None = None) -> Task:
    """The task that a configuration names; the default one where there are no settings.

    Raises:
        ConfigError: If there is no such task; offers the nearest.
    """
    settings = settings or TaskSection()
    found: Task = TASKS.find(settings.name)()
    return found


def quality_of(task: Task) -> Metric:
    """The metric that is the task's quality."""
    return task.metrics()[0]
