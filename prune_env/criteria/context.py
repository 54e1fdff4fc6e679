"""What a criterion looks at: the walk, images where there are any, and the network with its batch norms folded."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prune_env.batch_norm.folding import FoldPair, find_fold_pairs, fold
from prune_env.common.arrays import Side
from prune_env.common.errors import ConfigError
from prune_env.common.layers import Convolution
from prune_env.data import Batch, ImageSet, moved
from prune_env.tasks import Task, make_task
from prune_env.walk import LayerWalk, Scores
from prune_env.walk.unit import Member, Unit


@dataclass(frozen=True, eq=False)
class ScoringContext:
    """What a criterion scores, and by what.

    Attributes:
        walk: The network's walk.
        data: Images and targets, none of the reward or test set; None where there are none.
        seed: Of everything random.
        batch_size: Images of a forward pass.
        device: Where the network runs.
        task: What the network is for.
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
            ConfigError: If there are none.
        """
        if self.data is None:
            raise ConfigError("criterion.name: this criterion looks at images, and none are given.")
        return self.data.images

    def batches(self, size: int | None = None) -> Iterator[Batch]:
        """Images, and targets if there are any, on the device; ``size`` at a time, `batch_size` where it is None."""
        assert self.data is not None
        for images, targets in self.data.batches(size or self.batch_size):
            yield Batch(images.to(self.device), moved(targets, self.device))

    def mean_loss(self, batch: Batch) -> Tensor:
        """The `folded` network's mean loss over a batch, a scalar."""
        return self.task.loss(self.task.forward(self.folded, batch), batch, "mean")

    def sampled_loss(self, generator: torch.Generator) -> Callable[[Batch], Tensor]:
        """As `mean_loss`, with targets that the generator draws anew from the network's own prediction."""

        def loss(batch: Batch) -> Tensor:
            outputs = self.task.forward(self.folded, batch)
            return self.task.loss(outputs, self.task.sampled(outputs, batch, generator), "mean")

        return loss

    @cached_property
    def fold_pairs(self) -> tuple[FoldPair, ...]:
        """The convolutions that a batch norm alone reads; none where there is no image to find them with."""
        if self.data is None:
            return ()
        return find_fold_pairs(self.walk.model, self.images[:2])

    @cached_property
    def folded(self) -> nn.Module:
        """A float32 copy in eval mode, each batch norm that alone reads a convolution folded into it.

        Where batch norms follow, the scale of a convolution's own weights means nothing; that of these does. Only the
        weights of convolutions and linear layers have gradients.
        """
        model = copy.deepcopy(self.walk.model).eval().float()
        fold(model, self.fold_pairs)
        model.requires_grad_(False)
        for module in model.modules():
            if isinstance(module, (*Convolution, nn.Linear)):
                module.weight.requires_grad_(True)
        return model.to(self.device)

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """The `folded` network's weights, by module name, of all that writes a unit's channels; in forward order."""
        writing = {producer.module for unit in self.walk.units for producer in self.producers(unit)}
        return {
            name: self.folded.get_submodule(name).get_parameter("weight")
            for name in self.walk.shapes
            if name in writing
        }

    def producers(self, unit: Unit) -> list[Member]:
        """The convolutions and linear layers that write a unit's channels."""
        return self._layers(unit, "out")

    def readers(self, unit: Unit) -> list[Member]:
        """The convolutions and linear layers that read a unit's channels; depthwise ones hand them on, too."""
        return self._layers(unit, "in")

    def _layers(self, unit: Unit, side: Side) -> list[Member]:
        return [
            member
            for member in unit.members
            if member.side == side
            and isinstance(self.walk.model.get_submodule(member.module), (*Convolution, nn.Linear))
        ]

    def summed(self, values: Mapping[str, npt.NDArray[np.float64]]) -> Scores:
        """Scores of units as sums over all that writes them.

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
