"""Whole channels: each unit keeps its best-scored channels."""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from prune_env.budget import Budget
from prune_env.granularity.base import Granularity, GranularityContext, register_granularity
from prune_env.granularity.builder import PlanBuilder
from prune_env.walk import Scores, best_channels


class ChannelPlanBuilder(PlanBuilder):
    """Decides how many channels of each unit stay.

    Args:
        budget: The budget that the finished plan must meet.
        scores: One score per channel of each unit.
    """

    def __init__(self, budget: Budget, scores: Scores) -> None:
        super().__init__(budget)
        self._scores = scores

    @property
    def kept(self) -> Mapping[str, Sequence[int]]:
        """The best-scored channels of each free unit, ascending; all channels of undecided units."""
        decided = zip(self.budget.units[: self.number], self.widths, strict=False)
        widths = {unit.name: int(width) for unit, width in decided}
        return {
            unit.name: best_channels(self._scores[unit.name], unit, widths.get(unit.name, unit.channels))
            for unit in self.budget.units
        }

    def decide(self, numbers: Sequence[float]) -> None:
        """Decides the next unit: the allowed width nearest to the keep ratio, or the largest that fits the budget."""
        (keep,) = numbers
        wanted = self.budget.allowed(self.number, keep * int(self.budget.channels[self.number]))
        self._close(min(wanted, self.budget.cap(self.number, self.widths)))


@register_granularity
class Channel(Granularity):
    """Whole channels only."""

    name = "channel"

    def prepare(self, context: GranularityContext) -> Self:
        """Stores the scores."""
        self._scores, self._free = context.scores, context.scoring.walk.free
        return self

    def shares_above(self, threshold: float) -> npt.NDArray[np.float64] | None:
        """The share of each free unit's channels whose score, relative to the unit's mean, is above a threshold."""
        scores = [np.asarray(self._scores[unit.name]) for unit in self._free]
        if any(one.min() < 0 for one in scores):
            return None
        return np.array([np.mean(one > threshold * max(float(one.mean()), 1e-30)) for one in scores])

    def builder(self, budget: Budget) -> PlanBuilder:
        """A new plan builder for a budget."""
        return ChannelPlanBuilder(budget, self._scores)
