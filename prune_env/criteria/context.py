"""The input of a criterion: the walk, images if given, and the network with folded batch norms."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prune_env.batch_norm.folding import FoldPair, find_fold_pairs, fold
from prune_env.common.arrays import Side
from prune_env.common.copying import copied
from prune_env.common.errors import ConfigError
from prune_env.common.layers import Convolution
from prune_env.data import Batch, ImageSet, moved
from prune_env.tasks import Task, make_task
from prune_env.walk import LayerWalk, Scores
from prune_env.walk.unit import Member, Unit


@dataclass(frozen=True, eq=False)
class ScoringContext:
    """The network that a criterion scores, and the data and settings for it.

    Attributes:
        walk: The network's walk.
        data: Images and targets, never of the reward or test set; None without images.
        seed: Seed of all random numbers.
        batch_size: Images per forward pass.
        device: The device that the network runs on.
        task: The network's task.
    """

    walk: LayerWalk
    data: ImageSet | None = None
    seed: int = 0
    batch_size: int = 64
    device: str | torch.device = "cpu"
    task: Task = field(default_factory=make_task)

    @property
    def images(self) -> Tensor:
        """The images [N, C, H, W], in memory.

        Raises:
            ConfigError: If the context has no images.
        """
        if self.data is None:
            raise ConfigError("criterion.name: this criterion needs images. Give a ScoringContext with data.")
        return self.data.images

    def batches(self, size: int | None = None) -> Iterator[Batch]:
        """Yields batches of images and targets on the device, of ``size`` images each, or `batch_size` by default."""
        assert self.data is not None
        for images, targets in self.data.batches(size or self.batch_size):
            yield Batch(images.to(self.device), moved(targets, self.device))

    def mean_loss(self, batch: Batch) -> Tensor:
        """Returns the `folded` network's mean loss over a batch, a scalar."""
        return self.task.loss(self.task.forward(self.folded, batch), batch, "mean")

    def sampled_loss(self, generator: torch.Generator) -> Callable[[Batch], Tensor]:
        """Returns a loss like `mean_loss` whose targets are drawn from the network's own prediction at each call."""

        def loss(batch: Batch) -> Tensor:
            outputs = self.task.forward(self.folded, batch)
            return self.task.loss(outputs, self.task.sampled(outputs, batch, generator), "mean")

        return loss

    @cached_property
    def fold_pairs(self) -> tuple[FoldPair, ...]:
        """The convolutions whose output only a batch norm reads; empty without images, which the proof needs."""
        if self.data is None:
            return ()
        return find_fold_pairs(self.walk.model, self.images[:2])

    @cached_property
    def folded(self) -> nn.Module:
        """A float32 copy of the network in eval mode, on the device, with the batch norms of `fold_pairs` folded.

        A batch norm undoes the scale of the convolution before it, so only folded weights have a meaningful scale. Only
        the weights of convolutions and linear layers require gradients.
        """
        model = copied(self.walk.model).eval().float()
        fold(model, self.fold_pairs)
        model.requires_grad_(False)
        for module in model.modules():
            if isinstance(module, (*Convolution, nn.Linear)):
                module.weight.requires_grad_(True)
        return model.to(self.device)

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """The `folded` network's weights of all layers that write a unit, by module name, in forward order."""
        writing = {producer.module for unit in self.walk.units for producer in self.producers(unit)}
        return {
            name: self.folded.get_submodule(name).get_parameter("weight")
            for name in self.walk.shapes
            if name in writing
        }

    def producers(self, unit: Unit) -> list[Member]:
        """Returns the convolutions and linear layers that write a unit's channels."""
        return self._layers(unit, "out")

    def readers(self, unit: Unit) -> list[Member]:
        """Returns the convolutions and linear layers that read a unit's channels, depthwise convolutions included."""
        return self._layers(unit, "in")

    def _layers(self, unit: Unit, side: Side) -> list[Member]:
        return [
            member
            for member in unit.members
            if member.side == side
            and member.module in self.walk.shapes
            and isinstance(self.walk.model.get_submodule(member.module), (*Convolution, nn.Linear))
        ]

    def summed(self, values: Mapping[str, npt.NDArray[np.float64]]) -> Scores:
        """Sums values over all layers that write a unit.

        Args:
            values: For each producing module, float64 [output channels].

        Returns:
            For each unit, float64 [channels].
        """
        return {
            unit.name: sum(
                (values[producer.module][producer.index].sum(axis=1) for producer in self.producers(unit)),
                np.zeros(unit.channels),
            )
            for unit in self.walk.units
        }
