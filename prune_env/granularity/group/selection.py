"""Selectors in a training: fewer inputs step by step, a penalty on open gates, and the choice that stays at the end."""

import torch
from torch import Tensor, nn

from prune_env.granularity.group.selectors import RAMP, GroupPrunedConv2d
from prune_env.recover.workers import Workers


class Selection:
    """All selectors of a network that is trained, and of the moving average of its weights.

    Args:
        model: The network.
        average: Its moving average; None where there is none.
        workers: The processes that share the training.
    """

    def __init__(self, model: nn.Module, average: nn.Module | None, workers: Workers) -> None:
        self._layers = selectors_of(model)
        self._averages = selectors_of(average) if average is not None else []
        self._workers = workers

    def __bool__(self) -> bool:
        return bool(self._layers)

    def progress(self, share: float) -> None:
        """Makes ready for a step after a share of the training, in [0, 1]; once few enough are read, freezes them."""
        for layer in (*self._layers, *self._averages):
            layer.progress(share)
        if share < RAMP[1] or self._layers[0].frozen:
            return
        for layer in self._layers:
            layer.means.copy_(self._workers.mean(layer.means))
            layer.freeze()
        for layer, average in zip(self._layers, self._averages, strict=False):
            average.shares.copy_(layer.shares)
            average.frozen = True

    def resume(self, share: float) -> None:
        """Goes on after a share of the training with what the checkpoint held."""
        for layer in (*self._layers, *self._averages):
            layer.progress(share)
            layer.frozen = share >= RAMP[1]

    def penalty(self) -> Tensor:
        """The mean gate of the last images over all selectors."""
        return torch.stack([layer.penalty() for layer in self._layers]).mean()


def selectors_of(model: nn.Module) -> list[GroupPrunedConv2d]:
    """The layers of a network that have selectors."""
    return [module for module in model.modules() if isinstance(module, GroupPrunedConv2d)]
