"""Training of selectors: the number of inputs falls, a penalty closes gates, and the choice is frozen."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from prune_env.granularity.group.selected_groups import apply_with_selectors, without_selectors
from prune_env.granularity.group.selectors import RAMP, GroupPrunedConv2d
from prune_env.plan import PruningPlan
from prune_env.surgery import Repair
from prune_env.walk import LayerWalk


class SelectorTraining:
    """Trains all selectors of a network, and of the moving average of its weights; a `Trainable`.

    Args:
        weight: Weight of the mean gate in the loss, 0 or more.
    """

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self._layers: list[GroupPrunedConv2d] = []
        self._averages: list[GroupPrunedConv2d] = []
        self._mean: Callable[[Tensor], Tensor] = lambda value: value

    def network(self, plan: PruningPlan, model: nn.Module, repair: Repair | None) -> nn.Module:
        """The cut network with a selector for each group; see `apply_with_selectors`."""
        return apply_with_selectors(plan, model, repair)

    def attach(self, model: nn.Module, average: nn.Module | None, mean: Callable[[Tensor], Tensor]) -> None:
        """Takes the network in training, the moving average of its weights, and a mean over processes."""
        self._layers = selectors_of(model)
        self._averages = selectors_of(average) if average is not None else []
        self._mean = mean

    def progress(self, share: float) -> None:
        """Prepares the next step after a share of the training, in [0, 1]; freezes selectors at the end of `RAMP`."""
        for layer in (*self._layers, *self._averages):
            layer.progress(share)
        if share < RAMP[1] or self._layers[0].frozen:
            return
        for layer in self._layers:
            layer.means.copy_(self._mean(layer.means))
            layer.freeze()
        for layer, average in zip(self._layers, self._averages, strict=False):
            average.shares.copy_(layer.shares)
            average.frozen = True

    def resume(self, share: float) -> None:
        """Continues from a loaded checkpoint, given the completed share of the training, in [0, 1]."""
        for layer in (*self._layers, *self._averages):
            layer.progress(share)
            layer.frozen = share >= RAMP[1]

    def penalty(self) -> Tensor:
        """The weighted mean gate over the last batch and all selectors, a scalar."""
        return self.weight * torch.stack([layer.penalty() for layer in self._layers]).mean()

    def finish(
        self, trained: nn.Module, plan: PruningPlan, walk: LayerWalk, multiple: int
    ) -> tuple[nn.Module, PruningPlan]:
        """The network without selectors, and the plan with the inputs that they chose; see `without_selectors`."""
        return without_selectors(trained, plan, walk, multiple)


def selectors_of(model: nn.Module) -> list[GroupPrunedConv2d]:
    """The layers of a network that have selectors."""
    return [module for module in model.modules() if isinstance(module, GroupPrunedConv2d)]
