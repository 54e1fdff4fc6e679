"""Demonstrations with groups: what an agent is shown first, made from the keep ratios of rules."""

from collections.abc import Callable, Sequence

import numpy as np

from prune_env.budget import Budget
from prune_env.granularity.base import Numbers
from prune_env.granularity.builder import PlanBuilder

COUNTS = (2, 4, 8)
"""Group counts that an agent is shown, in plans of one keep ratio, as far as the budget needs them [our choice]."""

HALVINGS = 12

MakeBuilder = Callable[[Budget], PlanBuilder]


def shown_counts(most: int, budget: Budget) -> list[int]:
    """The group counts that are shown: with more, even the widest network would leave some of the budget unspent."""
    return [count for count in COUNTS if count <= min(most, 1.0 / budget.keep)]


def at_budget(proportions: Numbers, others: Sequence[float], budget: Budget, builder: MakeBuilder) -> Numbers:
    """What is asked of each unit in given proportions, all more or less alike until the budget is spent.

    Args:
        proportions: Of what is kept of each unit, [units], above 0.
        others: The numbers beside it that each unit is decided with.
        budget: The budget, of MACs or params.
        builder: Makes a plan builder.

    Returns:
        [units, 1 + others].
    """
    boundless = budget.with_keep(1.0)

    def share(factor: float) -> float:
        made = builder(boundless)
        for keep in proportions:
            made.decide((min(1.0, factor * float(keep)), *others))
        return made.share

    low, high = 0.0, 1.0 / float(proportions.min())
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if share(middle) <= budget.keep else (low, middle)
    keeps = np.minimum(1.0, low * proportions)
    return np.column_stack([keeps, *(np.full(len(keeps), other) for other in others)])
