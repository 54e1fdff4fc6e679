"""Demonstrations with groups: the decisions that an agent is shown first, derived from the keep ratios of rules."""

from collections.abc import Callable, Sequence

import numpy as np

from prune_env.budget import Budget
from prune_env.granularity.base import Numbers
from prune_env.granularity.builder import PlanBuilder

COUNTS = (2, 4, 8)
"""Group counts of the demonstrations with one keep ratio for all units; `shown_counts` limits them [our choice]."""

HALVINGS = 12

MakeBuilder = Callable[[Budget], PlanBuilder]


def shown_counts(most: int, budget: Budget) -> list[int]:
    """The group counts to show: at most 1 / keep, because more groups leave budget unspent even at full width."""
    return [count for count in COUNTS if count <= min(most, 1.0 / budget.keep)]


def at_budget(proportions: Numbers, others: Sequence[float], budget: Budget, builder: MakeBuilder) -> Numbers:
    """Decisions with keep ratios in given proportions, scaled by one factor until the budget is spent.

    Args:
        proportions: The proportions of the units' keep ratios (or shares of kernels), [units], above 0.
        others: The remaining numbers of each decision, equal for all units.
        budget: The budget, of MACs or params.
        builder: Makes a plan builder for a budget.

    Returns:
        [units, 1 + others].
    """
    boundless = budget.unlimited()

    def share(factor: float) -> float:
        plan_builder = builder(boundless)
        for keep in proportions:
            plan_builder.decide((min(1.0, factor * float(keep)), *others))
        return plan_builder.share

    low, high = 0.0, 1.0 / float(proportions.min())
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if share(middle) <= budget.keep else (low, middle)
    keeps = np.minimum(1.0, low * proportions)
    return np.column_stack([keeps, *(np.full(len(keeps), other) for other in others)])
