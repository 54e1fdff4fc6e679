"""The protocol of what takes part in a training besides the network's weights: a penalty, a schedule, a choice."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn


class TrainingPart(Protocol):
    """What the training loop calls besides the network: a penalty on the loss, with a schedule.

    A training calls `attach` once, then `progress` before each step and `penalty` in each step. A resumed training
    calls `resume` after `attach`. A checkpoint holds the network's parameters and buffers and nothing else. So whatever
    a part carries from step to step is such a tensor, or follows from the completed share of the training.
    """

    def attach(self, model: nn.Module, average: nn.Module | None, mean: Callable[[Tensor], Tensor]) -> None:
        """Takes the network in training, the moving average of its weights, and a mean over processes."""
        ...

    def progress(self, share: float) -> None:
        """Prepares the next step, given the completed share of the training, in [0, 1]."""
        ...

    def resume(self, share: float) -> None:
        """Continues from a loaded checkpoint, given the completed share of the training, in [0, 1]."""
        ...

    def penalty(self) -> Tensor:
        """The term to add to the loss of the last batch, a scalar."""
        ...
