"""The protocol of tasks: a task defines the data, the loss and the quality of a network.

A new task is one new file and its registration. Evaluation, criteria, recovery, run folders and reports use only this
protocol.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prune_env.config.sections import DataSection, ModelSection
from prune_env.config.task import TASKS, TaskSection
from prune_env.data import Batch, ImageSource, Targets

Reduction = Literal["none", "mean", "sum"]
"""How to reduce the losses of a batch's images, as in torch: not at all, to the mean, or to the sum."""


class Metric(Protocol):
    """A number that measures outputs. Call `reset`, then `update` for each batch, then `compute`.

    A quality that counts images may say which ones (see `right_of`): ``right(outputs, batch) -> bool tensor [n]``.

    Attributes:
        name: The key in files and TensorBoard tags: ``test_NAME`` in a result row, ``rollout/NAME`` in TensorBoard.
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


@dataclass(frozen=True)
class Core:
    """The part of a network up to its decisions: an exported file can hold it, because shapes depend on no value.

    Attributes:
        module: Takes images [N, C, H, W] of the size that it was made for; returns one tensor for each of ``outputs``.
        outputs: Names of the tensors.
        title: What the part is, for the heading of its latency.
        decode: Makes the whole network's output from the part's.
        files: Texts by file name that explain to other programs how to decode.
    """

    module: nn.Module
    outputs: tuple[str, ...]
    title: str
    decode: Callable[[Sequence[Tensor]], Any]
    files: Mapping[str, str] = field(default_factory=dict)


class Task(Protocol):
    """The data, the loss and the quality of a network.

    A task's network takes images [N, C, H, W]. In eval mode it must need nothing else, because tracing, recalibration,
    scores and timings run the network on images alone. Only the task reads outputs and targets. A task has no state:
    all instances of a class are equal.

    Four methods are optional (see `core_of`, `pictures_of`, `chance_of` and `suspicions_of`): ``chance(targets) ->
    float``, ``core(model, images) -> Core | None``, ``pictures(source, batch, outputs) -> list[uint8 array [height,
    width, 3]]`` and ``suspicions(model, batches) -> list[str]``.

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

        If an image may hold objects of several classes, returns the frozenset of these classes: subsets then have each
        class in as large a share of their images as the data set.

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


def right_of(task: Task) -> Callable[[Any, Batch], Tensor] | None:
    """Returns what tells the right images of a batch, bool [n]; None if the task's quality does not say which.

    Two networks are then compared image by image (`prune_env.evaluation.pairs`), which needs fewer images than to
    compare two shares.
    """
    quality = quality_of(task)
    right: Callable[[Any, Batch], Tensor] | None = getattr(quality, "right", None) if quality.counts else None
    return right


def core_of(task: Task, model: nn.Module, images: Tensor) -> Core | None:
    """Returns the part of a network up to its decisions; None if the whole network can be exported.

    Args:
        task: The task; without a method ``core`` the result is None.
        model: The network, in eval mode.
        images: Images [N, C, H, W] of the size that the part is for.

    Raises:
        ModelError: If the network decides within, so that there is no such part.
    """
    find: Callable[[nn.Module, Tensor], Core | None] | None = getattr(task, "core", None)
    return None if find is None else find(model, images)


def draws_pictures(task: Task) -> bool:
    """Whether a task has pictures (see `pictures_of`)."""
    return hasattr(task, "pictures")


def pictures_of(task: Task, source: ImageSource, batch: Batch, outputs: Any) -> list[NDArray[np.uint8]]:
    """Returns a picture of each image with its targets and outputs, uint8 [height, width, 3], all of one size.

    Args:
        task: The task; without a method ``pictures`` the list is empty.
        source: The data set of the batch.
        batch: The batch.
        outputs: The result of `Task.forward` for the batch in eval mode.
    """
    draw: Callable[[ImageSource, Batch, Any], list[NDArray[np.uint8]]] | None = getattr(task, "pictures", None)
    return [] if draw is None else draw(source, batch, outputs)


def chance_of(task: Task, targets: Targets) -> float:
    """Returns the quality of the best answer that does not depend on the image, in [0, 1].

    Args:
        task: The task; without a method ``chance`` the result is 0.
        targets: The targets of the measured images.
    """
    find: Callable[[Targets], float] | None = getattr(task, "chance", None)
    return 0.0 if find is None else find(targets)


def suspicions_of(task: Task, model: nn.Module, batches: Sequence[Batch]) -> list[str]:
    """Returns what a network whose quality is near chance does wrong, in words.

    Args:
        task: The task; without a method ``suspicions`` the list is empty.
        model: The network, in eval mode.
        batches: Images and targets, on the network's device.
    """
    find: Callable[[nn.Module, Sequence[Batch]], list[str]] | None = getattr(task, "suspicions", None)
    return [] if find is None else find(model, batches)
