"""Plan builders: plans in the making, one free unit decided after the other, within the budget at the end."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prune_env.budget import Budget
from prune_env.common.arrays import IntArray
from prune_env.plan import Edits
from prune_env.plan.edits import NO_EDITS


class PlanBuilder(ABC):
    """Widths of units, decided in forward order.

    Args:
        budget: What the finished plan must meet.

    Attributes:
        budget: The budget, given what is decided.
        number: The free unit that is to be decided; how many there are at the end.
        widths: int64 [free units]: those decided, and the least of the others.
        previous: What was decided of the unit before, in (0, 1]; 1 for the first.
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
        """The keep ratio that, given to all undecided units alike, would spend the rest of the budget, in [0, 1]."""
        return self.budget.even_ratio(self.widths, self._undecided)

    @property
    def reduced(self) -> float:
        """The share of the dense cost that is gone when all undecided units stay whole, in [0, 1]."""
        widths = np.where(self._undecided == 1, self.budget.channels, self.widths)
        return 1.0 - self.budget.cost(widths) / self.budget.dense

    @property
    def share(self) -> float:
        """The share of the dense cost that the plan has so far."""
        return min(1.0, self.budget.cost(self.widths) / self.budget.dense)

    @property
    @abstractmethod
    def kept(self) -> Mapping[str, Sequence[int] | IntArray]:
        """The channels of each free unit that stay, ascending; all of those undecided."""

    @property
    def edits(self) -> Edits:
        """What is done to layers beyond whole channels, by layer."""
        return NO_EDITS

    @abstractmethod
    def decide(self, numbers: Sequence[float]) -> None:
        """Decides the next unit.

        Args:
            numbers: What is asked for, one number for each of the granularity's action dimensions, before rounding
                and clipping; the budget stays within reach.
        """

    def decided(self, number: int) -> Mapping[str, Any]:  # noqa: ARG002
        """What a step of the environment tells of a decided unit beside its width."""
        return {}

    def _close(self, width: int) -> None:
        self.widths[self.number] = width
        self._undecided[self.number] = 0
        self.previous = width / int(self.budget.channels[self.number])
        self.number += 1
