"""The budget: what a width may be so that the finished plan stays within it, in exact integers."""

import copy
from collections.abc import Mapping, Sequence
from math import ceil, floor, isqrt, sqrt
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from prune_env.budget.cost_form import CostForm, cost_form
from prune_env.common.arrays import IntArray
from prune_env.common.errors import BudgetError
from prune_env.walk import LayerWalk
from prune_env.walk.costs import Metric


class Budget:
    """How much may remain, and which widths keep the rest of the walk able to meet it.

    Args:
        walk: The network's walk.
        metric: What is counted, or ``latency``.
        keep: The share of the dense cost that may remain, in (0, 1].
        min_keep: Least keep ratio of a unit, in (0, 1].
        round_to: Widths are multiples of this, or the unit's full channels.
        formula: That of a latency budget (`LatencyModel.cost_form`); MACs and parameters have their own.

    Raises:
        BudgetError: If no plan can meet the budget; the message gives the reachable interval.
    """

    def __init__(
        self,
        walk: LayerWalk,
        metric: Metric | Literal["latency"],
        keep: float,
        min_keep: float = 0.1,
        round_to: int = 1,
        formula: CostForm | None = None,
    ) -> None:
        self.units = walk.free
        if not self.units:
            reasons = "; ".join(f"{unit.name}: {unit.protected}" for unit in walk.units[:5])
            raise BudgetError(f"Nothing in this network can be pruned: every unit is protected ({reasons}).")
        self.metric = metric
        self.keep = keep
        self.round_to = round_to
        if metric == "latency":
            assert formula is not None
            self.cost_form = formula
        else:
            self.cost_form = cost_form(walk, metric)
        self.channels: IntArray = np.array([unit.channels for unit in self.units], dtype=np.int64)
        self.dense = self.cost(self.channels)
        self.limit = _limit(self.dense, keep)
        self.least: IntArray = np.array([self._least(unit.channels, min_keep) for unit in self.units], dtype=np.int64)
        smallest = self.cost(self.least)
        if smallest > self.limit:
            # Rounded up, so that the number in the message is itself in reach.
            lowest = ceil(smallest / self.dense * 1e4) / 1e4
            raise BudgetError(
                f"budget.keep: {keep} of the dense {metric} given, but with every free unit at its least width "
                f"{lowest:.4f} remain. Reachable are {lowest:.4f} to 1. "
                "Raise budget.keep, lower env.min_keep, or protect fewer units (env.protect, sensitivity.*)."
            )

    def _least(self, channels: int, min_keep: float) -> int:
        wanted = max(1, ceil(min_keep * channels - 1e-9))
        return min(channels, -(-wanted // self.round_to) * self.round_to)

    def reading(self, reads: Mapping[str, int]) -> Self:
        """The same budget where each output of some layers reads a given number of inputs; see `CostForm.reading`."""
        other = copy.copy(self)
        other.cost_form = self.cost_form.reading(reads)
        return other

    def with_keep(self, keep: float) -> Self:
        """The same budget with another share of the dense cost that may remain, in (0, 1]."""
        other = copy.copy(self)
        other.keep, other.limit = keep, _limit(self.dense, keep)
        return other

    def cost(self, widths: IntArray) -> int:
        """What the budget counts at the given widths [units]: MACs, parameters, or femtoseconds."""
        return self.cost_form.cost(widths)

    @property
    def reachable(self) -> tuple[float, float]:
        """The shares of the dense cost that plans can reach: least and most."""
        return self.cost(self.least) / self.dense, 1.0

    def allowed(self, number: int, width: float) -> int:
        """The allowed width of free unit ``number`` nearest to ``width``, whatever the budget."""
        channels, least = int(self.channels[number]), int(self.least[number])
        below = floor(width / self.round_to) * self.round_to
        above = min(below + self.round_to, channels)
        nearest = below if width - below <= above - width else above
        return min(max(nearest, least), channels)

    def cap(self, number: int, widths: IntArray) -> int:
        """The largest allowed width of a unit that leaves the budget within reach.

        Args:
            number: The free unit that is being decided.
            widths: int64 [units]: decided units at their widths, undecided ones at their least.

        Returns:
            An allowed width, at least the unit's least.
        """
        channels, least = int(self.channels[number]), int(self.least[number])
        start, direction = widths.copy(), np.zeros_like(widths)
        start[number], direction[number] = 0, 1
        square, slope, rest = self.cost_form.along(start, direction)
        if square * channels * channels + slope * channels + rest <= self.limit:
            return channels
        room = self.limit - rest
        root = isqrt(slope * slope + 4 * square * room)
        width = (root - slope) // (2 * square) if square else room // slope
        return max(least, min(width, channels) // self.round_to * self.round_to)

    def even_ratio(self, widths: IntArray, undecided: IntArray) -> float:
        """The keep ratio that, given to all undecided units alike, would spend the rest of the budget.

        Args:
            widths: int64 [units]; only the decided entries are read.
            undecided: int64 [units] of 0 and 1.

        Returns:
            A ratio in [0, 1], before rounding.
        """
        square, slope, rest = self.cost_form.along(widths * (1 - undecided), self.channels * undecided)
        room = self.limit - rest
        if square + slope <= room:
            return 1.0
        if square == 0:
            return max(0.0, room / slope)
        return max(0.0, (sqrt(max(0.0, slope * slope + 4.0 * square * room)) - slope) / (2 * square))

    def uniform(self) -> IntArray:
        """Widths with one keep ratio for all free units, the largest that meets the budget, int64 [units]."""
        return self.project(self.channels)

    def project(self, wanted: npt.ArrayLike) -> IntArray:
        """Widths in the proportions that are wanted, all made wider or narrower alike until the budget is spent.

        Args:
            wanted: [units], above 0; only their proportions count.

        Returns:
            Allowed widths, int64 [units]: those of the largest common factor that meets the budget.
        """
        proportions = np.asarray(wanted, dtype=np.float64)
        low, high = 0.0, float((self.channels / proportions).max())
        if self.cost(self._scaled(proportions, high)) <= self.limit:
            return self._scaled(proportions, high)
        for _ in range(40):
            middle = (low + high) / 2
            fits = self.cost(self._scaled(proportions, middle)) <= self.limit
            low, high = (middle, high) if fits else (low, middle)
        return self._scaled(proportions, low)

    def random(self, generator: np.random.Generator, spread: float = 0.3) -> IntArray:
        """Widths drawn at random around the uniform plan's, at the budget, int64 [units].

        Args:
            generator: Where the randomness comes from.
            spread: Standard deviation of the widths' logarithms before they are made to meet the budget [our choice].
        """
        return self.project(self.channels * np.exp(spread * generator.standard_normal(len(self.units))))

    def _scaled(self, proportions: npt.NDArray[np.float64], factor: float) -> IntArray:
        widths = [self.allowed(number, factor * width) for number, width in enumerate(proportions)]
        return np.array(widths, dtype=np.int64)

    def names(self, widths: Sequence[int] | IntArray) -> dict[str, int]:
        """Widths [units] by unit name."""
        return {unit.name: int(width) for unit, width in zip(self.units, widths, strict=True)}


def _limit(dense: int, keep: float) -> int:
    # A hair more than the product, so that a share worked out from a whole cost gives that cost back.
    return floor(dense * keep * (1 + 1e-12))
