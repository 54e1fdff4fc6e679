"""Plan builders: decide one free unit after the other so that the finished plan meets the budget."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prune_env.budget import Budget
from prune_env.common.arrays import IntArray
from prune_env.plan import Edits
from prune_env.plan.edits import NO_EDITS


class PlanBuilder(ABC):
    """Decides the widths of the free units in forward order.

    Args:
        budget: The budget that the finished plan must meet.

    Attributes:
        budget: The budget; its cost formula includes the edits decided so far.
        number: The index of the free unit to decide next; at the end, the number of free units.
        widths: int64 [free units]: the widths of decided units, the least widths of undecided units.
        previous: The share that the last decision kept, in (0, 1]; 1 before the first decision.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.number = 0
        self.widths: IntArray = budget.least.copy()
        self.previous = 1.0
        self._undecided: IntArray = np.ones_like(self.widths)

    @property
    def finished(self) -> bool:
        """Whether every unit is decided."""
        return self.number == len(self.budget.units)

    @property
    def even(self) -> float:
        """The keep ratio, equal for all undecided units, that would spend the rest of the budget, in [0, 1]."""
        return self.budget.even_ratio(self.widths, self._undecided)

    @property
    def reduced(self) -> float:
        """The share of the dense cost that the decisions so far save, with all undecided units whole, in [0, 1]."""
        widths = np.where(self._undecided == 1, self.budget.channels, self.widths)
        return 1.0 - self.cost(widths) / self.budget.dense

    @property
    def share(self) -> float:
        """The plan's share of the dense cost at the current `widths`, at most 1."""
        return min(1.0, self.cost(self.widths) / self.budget.dense)

    def cost(self, widths: IntArray) -> int:
        """The cost at some widths, int64 [free units], with the edits decided so far."""
        return self.budget.cost(widths)

    def within(self, budget: Budget) -> bool:
        """Whether the current `widths`, with the edits decided so far, meet a budget."""
        return budget.fits(self.widths)

    @property
    @abstractmethod
    def kept(self) -> Mapping[str, Sequence[int] | IntArray]:
        """The kept channels of each free unit, ascending; all channels of undecided units."""

    @property
    def edits(self) -> Edits:
        """The edits decided so far, by layer."""
        return NO_EDITS

    @abstractmethod
    def decide(self, numbers: Sequence[float]) -> None:
        """Decides the next unit.

        Args:
            numbers: The requested numbers, one for each of the granularity's action dimensions. The builder rounds
                and clips them so that the budget stays within reach.
        """

    def decided(self, number: int) -> Mapping[str, Any]:  # noqa: ARG002
        """The entries that the environment adds to ``info`` for a decided unit, besides its width."""
        return {}

    def _close(self, width: int) -> None:
        self.widths[self.number] = width
        self._undecided[self.number] = 0
        self.previous = width / int(self.budget.channels[self.number])
        self.number += 1
