"""AGSPRL's mode: a kernel pruning rate is decided of each unit, and groups follow from it."""

from collections.abc import Mapping, Sequence
from math import ceil

from prune_env.budget import Budget
from prune_env.common.errors import BudgetError
from prune_env.granularity.group.builder import GroupPlanBuilder
from prune_env.granularity.group.gathered import GroupSpec, configure_groups
from prune_env.granularity.group.grouping import Groupable, Grouping
from prune_env.granularity.group.kernel_scores import KernelScores
from prune_env.walk import Scores

RATE_STEP = 1.0 / 64.0
"""By how much a pruning rate is raised at a time until the budget is within reach again [our choice]."""


class RatePlanBuilder(GroupPlanBuilder):
    """AGSPRL's mode: what is decided of a unit is the kernel pruning rate of the convolutions decided with it.

    How many groups each has, and how many inputs each group reads, follows (`configure_groups`); units are only cut
    where no group reads them.

    Args:
        budget: As `PlanBuilder`.
        grouping: As `GroupPlanBuilder`.
        scores: As `GroupPlanBuilder`.
        kernels: As `GroupPlanBuilder`.
        least: Least share of a convolution's kernels that stays, in (0, 1].

    Raises:
        BudgetError: If the budget cannot be met by rates alone.
    """

    def __init__(self, budget: Budget, grouping: Grouping, scores: Scores, kernels: KernelScores, least: float) -> None:
        super().__init__(budget, grouping, scores, kernels)
        self.widths = budget.channels.copy()
        self.least = least
        for found in grouping.convolutions:
            self._specs[found.name] = self._configured(found, least)
        self.budget = self._reading({})
        # Rounded up, so that the number in the message is itself in reach.
        lowest = ceil(self.budget.cost(self.widths) / budget.dense * 1e4) / 1e4
        if self.budget.cost(self.widths) > budget.limit:
            raise BudgetError(
                f"budget.keep: {budget.keep} of the dense {budget.metric} given, but with every convolution that may "
                f"fall into groups at its highest pruning rate, {1 - least:.3f}, {lowest:.4f} remain. "
                f"Reachable are {lowest:.4f} to 1. Raise budget.keep, lower env.min_keep, or protect fewer units "
                "(env.protect, sensitivity.*)."
            )

    @property
    def even(self) -> float:
        """The share of kernels that, left to all undecided convolutions alike, would spend the rest of the budget."""
        low, high = self.budget.cost(self.widths), self._cost_undecided_whole()
        if high <= self.budget.limit:
            return 1.0
        return self.least + (1.0 - self.least) * max(0.0, (self.budget.limit - low) / (high - low))

    @property
    def reduced(self) -> float:
        """As `PlanBuilder.reduced`; undecided convolutions are whole, too."""
        return 1.0 - self._cost_undecided_whole() / self.budget.dense

    def _cost_undecided_whole(self) -> int:
        undecided = [found for step in self.grouping.by_step[self.number :] for found in step]
        whole = {found.name: GroupSpec(1, len(self.grouping.kept(found, "in", self._kept))) for found in undecided}
        return self._reading(whole).cost(self.widths)

    def decide(self, numbers: Sequence[float]) -> None:
        """Decides the next unit: the share of the kernels of its convolutions that stays, one less the pruning rate."""
        (keep,) = numbers
        unit = self.budget.units[self.number]
        keep = min(1.0, max(self.least, keep))
        while True:
            specs = {found.name: self._configured(found, keep) for found in self.grouping.by_step[self.number]}
            if keep <= self.least or self._fits(specs, int(self.widths[self.number])):
                break
            keep = max(self.least, keep - RATE_STEP)
        self._settle(specs, len(self._kept[unit.name]))
        self.previous = keep

    def _configured(self, found: Groupable, keep: float) -> GroupSpec:
        return configure_groups(*self._sizes(found, {}), 1.0 - keep, counts=found.counts)

    def _reading(self, specs: Mapping[str, GroupSpec]) -> Budget:
        return self._whole.reading({name: spec.inputs for name, spec in {**self._specs, **specs}.items()})
