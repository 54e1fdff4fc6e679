"""AGSPRL's mode: the search decides a kernel pruning rate for each unit, and groups follow from the rate."""

from collections.abc import Mapping, Sequence

from prune_env.budget import Budget
from prune_env.granularity.group.builder import GroupPlanBuilder
from prune_env.granularity.group.gathered import GroupSpec, configure_groups
from prune_env.granularity.group.grouping import Groupable, Grouping
from prune_env.granularity.group.kernel_scores import KernelScores
from prune_env.walk import Scores

RATE_STEP = 1.0 / 64.0
"""Step by which a pruning rate rises until the budget is within reach again [our choice]."""


class RatePlanBuilder(GroupPlanBuilder):
    """AGSPRL's mode: decides for each unit the kernel pruning rate of the convolutions decided with it.

    The group count and the inputs of each group follow from the rate (`configure_groups`). A unit loses only channels
    that no group reads, so the entry of an undecided unit in `widths` is its full width.

    Args:
        budget: As `PlanBuilder`.
        grouping: As `GroupPlanBuilder`.
        scores: As `GroupPlanBuilder`.
        kernels: As `GroupPlanBuilder`.
        least: The smallest share of a convolution's kernels that may stay, in (0, 1].

    Raises:
        BudgetError: If the budget cannot be met by rates alone.
    """

    def __init__(self, budget: Budget, grouping: Grouping, scores: Scores, kernels: KernelScores, least: float) -> None:
        super().__init__(budget, grouping, scores, kernels)
        self._tight = False
        self.widths = budget.channels.copy()
        self.least = least
        for convolution in grouping.convolutions:
            self._specs[convolution.name] = self._configured(convolution, least)
        self.budget = self._reading({})
        self.budget.refuse_below(
            f"every convolution that may fall into groups at its highest pruning rate, {1 - least:.3f}", self.widths
        )

    @property
    def even(self) -> float:
        """The share of kernels, equal for all undecided convolutions, that would spend the rest of the budget."""
        whole = self._undecided_whole()
        return min(map(self._even_within, self.budget.all, whole.all))

    def _even_within(self, budget: Budget, whole: Budget) -> float:
        """`even` for one limit, by the costs with undecided convolutions at their least and whole."""
        low, high = budget.cost(self.widths), whole.cost(self.widths)
        if high <= budget.limit:
            return 1.0
        return self.least + (1.0 - self.least) * max(0.0, (budget.limit - low) / (high - low))

    @property
    def reduced(self) -> float:
        """As `PlanBuilder.reduced`, with undecided convolutions whole, too."""
        return 1.0 - self._undecided_whole().cost(self.widths) / self.budget.dense

    def _undecided_whole(self) -> Budget:
        """The budget with undecided convolutions whole."""
        undecided = [convolution for step in self.grouping.by_step[self.number :] for convolution in step]
        whole = {
            convolution.name: GroupSpec(1, len(self.grouping.kept(convolution, "in", self._kept)))
            for convolution in undecided
        }
        return self._reading(whole)

    def decide(self, numbers: Sequence[float]) -> None:
        """Decides the next unit: the share of its convolutions' kernels that stays, 1 minus the pruning rate."""
        (keep,) = numbers
        unit = self.budget.units[self.number]
        keep = min(1.0, max(self.least, keep))
        while True:
            specs = {
                convolution.name: self._configured(convolution, keep)
                for convolution in self.grouping.by_step[self.number]
            }
            if keep <= self.least or self._fits(specs, int(self.widths[self.number])):
                break
            keep = max(self.least, keep - RATE_STEP)
        self._settle(specs, len(self._kept[unit.name]))
        self.previous = keep

    def _configured(self, convolution: Groupable, keep: float) -> GroupSpec:
        return configure_groups(*self._sizes(convolution, {}), 1.0 - keep, counts=convolution.counts)

    def _reads(self, specs: Mapping[str, GroupSpec]) -> dict[str, int]:
        return {name: spec.inputs for name, spec in {**self._specs, **specs}.items()}
