"""Whole channels: plans in the making, one free unit decided after the other."""

import numpy as np

from prune_env.budget import Budget
from prune_env.common.arrays import IntArray


class PlanBuilder:
    """Widths of units, decided in forward order.

    Args:
        budget: What the finished plan must meet.

    Attributes:
        budget: The budget, given what is decided.
        number: The free unit that is to be decided; how many there are at the end.
        widths: int64 [free units]: those decided, and the least of the others.
        previous: The keep ratio of the unit that was decided last; 1 before.
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
        return 1.0 - self.budget.form.cost(widths) / self.budget.dense

    @property
    def share(self) -> float:
        """The share of the dense cost that the builder has."""
        return min(1.0, self.budget.form.cost(self.widths) / self.budget.dense)

    def groups_of(self, number: int) -> dict[str, int]:  # noqa: ARG002  (here nothing falls into groups)
        """The group counts of the convolutions that were decided with a unit, by name."""
        return {}

    def decide(self, keep: float, groups: float = 1.0) -> None:  # noqa: ARG002  (here nothing falls into groups)
        """Decides the next unit: the allowed width nearest to a keep ratio, or as much as the budget leaves."""
        wanted = self.budget.allowed(self.number, keep * int(self.budget.channels[self.number]))
        self._close(min(wanted, self.budget.cap(self.number, self.widths)))

    def _close(self, width: int) -> None:
        self.widths[self.number] = width
        self._undecided[self.number] = 0
        self.previous = width / int(self.budget.channels[self.number])
        self.number += 1
