"""The protocol of tasks: a task defines the data, the loss and the quality of a network.

A new task is one new file and its registration. Evaluation, criteria, recovery, run folders and reports use only this
protocol.
"""

from collections.abc import Hashable, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from prune_env.config.sections import DataSection, ModelSection
from prune_env.config.task import TASKS, TaskSection
from prune_env.data import Batch, ImageSource

Reduction = Literal["none", "mean", "sum"]
"""How to reduce the losses of a batch's images, as in torch: not at all, to the mean, or to the sum."""


class Metric(Protocol):
    """A number that measures outputs. Call `reset`, then `update` for each batch, then `compute`.

    Attributes:
        name: The key in files and TensorBoard tags: ``test_NAME`` in a result row, ``search/NAME`` in TensorBoard.
        title: The heading in tables.
        format: The number's format in tables, such as ``.2%`` for a share.
        counts: Whether the number is the share of correct images, where each image is either right or wrong. Racing
            needs such a quality.
    """

    name: str
    title: str
    format: str
    counts: bool

    def reset(self) -> None:
        """Removes all batches."""

    def update(self, outputs: Any, batch: Batch) -> None:
        """Adds one batch.

        Args:
            outputs: The result of `Task.forward` for the batch in eval mode.
            batch: The batch.
        """

    def compute(self) -> float:
        """Returns the number over all batches since `reset`."""


class Task(Protocol):
    """The data, the loss and the quality of a network.

    A task's network takes images [N, C, H, W]. In eval mode it must need nothing else, because tracing, recalibration,
    scores and timings run the network on images alone. Only the task reads outputs and targets. A task has no state:
    all instances of a class are equal.

    Attributes:
        name: The task's value of ``task.name``.
        draws: Random numbers that `augment` needs per image.
    """

    name: str
    draws: int

    def load(self, settings: DataSection) -> ImageSource:
        """Opens the data set that the settings name.

        Raises:
            DataError: If there is no such data set, or its files are missing or damaged.
        """

    def stratum(self, target: Any) -> Hashable:
        """Returns the class of an image for balanced subsets. All values must be sortable together.

        Args:
            target: One image's element of `ImageSource.targets`.
        """

    def build_model(self, settings: ModelSection, source: ImageSource, image: Tensor) -> nn.Module:
        """Builds the network that the settings name, and loads its weights.

        Args:
            settings: Name, weights and arguments.
            source: The data set of the network.
            image: One image [1, C, H, W] to test the network with.

        Raises:
            ModelError: If there is no such network, or the network's outputs do not fit the task.
            WeightsError: If the weights are missing, damaged or made for another network.
        """

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        """Returns the network's outputs for a batch.

        In training mode the network may also read the targets and return a dict of losses.
        """

    def check(self, outputs: Any, batch: Batch) -> None:
        """Refuses outputs that do not fit the task; may wait for a GPU.

        Raises:
            ModelError: Names the given and the required outputs.
        """

    def loss(self, outputs: Any, batch: Batch, reduction: Reduction = "none", smoothing: float = 0.0) -> Tensor:
        """Returns the loss of each image, >= 0, in float32.

        Args:
            outputs: The result of `forward` for the batch.
            batch: The batch.
            reduction: ``none`` returns one value per image [n], ``mean`` and ``sum`` a scalar.
            smoothing: Share of a target that label smoothing spreads over all classes, in [0, 1); for training.
        """

    def sampled(self, outputs: Any, batch: Batch, generator: torch.Generator) -> Batch:
        """Returns the batch with targets drawn from the network's own prediction.

        Raises:
            ConfigError: If the task's predictions are not a probability distribution.
            EvaluationError: If an output is not a finite number.
        """

    def distillation(self, student: Any, teacher: Any, batch: Batch, temperature: float) -> Tensor:
        """Returns the distance of a student's outputs from a teacher's outputs, a scalar >= 0.

        Args:
            student: The result of the student's `forward` for the batch in training mode.
            teacher: The result of the teacher's `forward` for the batch in eval mode.
            batch: The batch.
            temperature: Softens both outputs, above 0. Should not affect the size of the gradients.

        Raises:
            ConfigError: If the task has no distillation.
        """

    def augment(self, batch: Batch, draws: Tensor, name: str) -> Batch:
        """Returns the batch with augmented images, and targets to match.

        Args:
            batch: The batch.
            draws: Uniform in [0, 1), float [n, `draws`].
            name: The augmentation, a value of ``finetune.augment``.
        """

    def metrics(self) -> Sequence[Metric]:
        """Returns new metrics. The first metric is the quality, in [0, 1], higher is better."""


def register_task(task: type[Task]) -> type[Task]:
    """Registers a task under its ``name``.

    Raises:
        ValueError: If the name is taken.
    """
    TASKS.add(task.name, task)
    return task


def make_task(settings: TaskSection | None = None) -> Task:
    """Makes the task that the settings name; without settings, the default task.

    Raises:
        ConfigError: If there is no such task; offers the nearest name.
    """
    settings = settings or TaskSection()
    task: Task = TASKS.find(settings.name)()
    return task


def quality_of(task: Task) -> Metric:
    """Returns a new metric for the task's quality."""
    return task.metrics()[0]
