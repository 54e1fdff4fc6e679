"""One operation of a forward pass, as the rules of `prune_env.walk.labels.operations` see it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from prune_env.walk.labels.owners import Owners, Weight
from prune_env.walk.labels.ties import Labels, core


class Notebook(Protocol):
    """Where rules look labels up and write down what they find."""

    labels: Labels
    owners: Owners
    varying: list[tuple[str, int, Tensor]]

    def label_of(self, tensor: Tensor) -> Tensor | None:
        """Returns a tensor's labels, of the tensor's shape; None if it carries none."""
        ...

    def bind(self, module: str, side: str, labels: Tensor) -> None:
        """Says which labels stand at the channels of one side of a module."""
        ...

    def written(self, owner: Weight, channels: int) -> Tensor:
        """Returns the labels that a layer writes."""
        ...

    def count(self, owner: Weight, result: Tensor, positions: int) -> None:
        """Adds the positions at which one call of a layer applies its kernel."""
        ...


@dataclass(frozen=True)
class Call:
    """One ATen operation, after it has run.

    Attributes:
        function: The operation; calling it runs the operation on other tensors.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        result: What it returned.
        module: Dotted name of the innermost module whose forward pass called the operation.
        notes: Where labels are looked up, and ties and holders written down.
    """

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    module: str
    notes: Notebook

    @property
    def labels(self) -> Labels:
        """Where ties and marks go."""
        return self.notes.labels

    def label_of(self, tensor: Tensor) -> Tensor | None:
        """Returns a tensor's labels, of the tensor's shape; None if it carries none."""
        return self.notes.label_of(tensor)

    @property
    def name(self) -> str:
        """The name without its overload, for example ``aten::cat``."""
        return str(self.function.name()).partition(".")[0]

    @property
    def place(self) -> str:
        """The operation and its module, for messages."""
        where = f" in {self.module!r}" if self.module else ""
        return f"{self.name.removeprefix('aten::').rstrip('_')}{where}"

    def of(self, tensor: Tensor) -> Tensor:
        """Returns a tensor's labels; zeros of its shape if it has none."""
        labels = self.label_of(tensor)
        return torch.zeros((), dtype=torch.int64).expand(tensor.shape) if labels is None else labels

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """Returns an argument that may have been given by position or by name."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    def tensors(self) -> list[Tensor]:
        """Returns all tensors among the arguments, also those in lists."""
        return tensors_in([*self.args, *self.kwargs.values()])

    def run_on_labels(self, labels: Tensor) -> Any:
        """Runs the operation on labels in place of its first argument."""
        return self.function(labels, *self.args[1:], **self.kwargs)


def tensors_in(value: Any) -> list[Tensor]:
    """Returns the tensors in arguments of an operation, which nests them in lists at most."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []


def along(labels: Tensor, axis: int) -> Tensor:
    """Returns one label for each index of an axis, int64 [size]: the largest of those that stand there."""
    size = labels.shape[axis]
    labels = core(labels)
    others = [other for other in range(labels.ndim) if other != axis % labels.ndim]
    return (labels.amax(dim=others) if others else labels).expand(size)
