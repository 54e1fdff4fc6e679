"""The budget: which widths a unit may have so that the finished plan meets it, in exact integers."""

import copy
from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
from math import ceil, floor, isqrt, sqrt
from types import MappingProxyType
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from prune_env.budget.cost_form import CostForm, cost_form
from prune_env.common.arrays import IntArray
from prune_env.common.errors import BudgetError
from prune_env.walk import LayerWalk
from prune_env.walk.costs import Metric


class Budget:
    """A limit on a network's cost, and the widths with which the rest of the walk can still meet the limit.

    A budget may come with others of other metrics, `also`. A plan then meets all of them: `fits`, `cap`, `even_ratio`
    and `project` respect every limit; `cost`, `limit` and `dense` are those of this budget's own metric.

    Args:
        walk: The network's walk.
        metric: The cost metric: ``macs``, ``params`` or ``latency``.
        keep: The share of the dense cost that may remain, in (0, 1].
        min_keep: Least keep ratio of a unit, in (0, 1].
        round_to: A width is a multiple of this number, or the unit's full channels.
        formula: The cost formula of a latency budget (`LatencyModel.cost_form`); unused for MACs and parameters.
        beyond_channels: Whether edits can make a plan cheaper than the least widths. If so, the granularity refuses a
            budget out of reach (`Granularity.reachable`), because it alone knows its smallest plan.
        also: The share of the dense cost that may remain, in (0, 1], by metric, for budgets to be met besides.

    Raises:
        BudgetError: If no unit is free, or no plan can meet the budget; the message gives the reachable interval.
    """

    def __init__(
        self,
        walk: LayerWalk,
        metric: Metric | Literal["latency"],
        keep: float,
        min_keep: float = 0.1,
        round_to: int = 1,
        formula: CostForm | None = None,
        beyond_channels: bool = False,
        also: Mapping[Metric, float] = MappingProxyType({}),
    ) -> None:
        self.units = walk.free
        if not self.units:
            reasons = "; ".join(f"{unit.name}: {unit.protected}" for unit in walk.units[:5])
            raise BudgetError(f"Nothing in this network can be pruned: every unit is protected ({reasons}).")
        self.metric = metric
        self.keep = keep
        self.setting = "budget.keep"
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
        # Every limit is refused by the same rule, so the others leave it to this budget.
        self.also: tuple[Budget, ...] = tuple(
            Budget(walk, other, share, min_keep, round_to, beyond_channels=True)._named(f"budget.{other}")
            for other, share in also.items()
        )
        if not beyond_channels:
            self.refuse_below("every free unit at its least width", self.least)

    def _named(self, setting: str) -> Self:
        self.setting = setting
        return self

    def refuse_below(self, words: str, widths: IntArray, vectors: IntArray | None = None) -> None:
        """Refuses a budget that the smallest plan does not meet.

        Args:
            words: What the smallest plan is, for the message.
            widths: The widths of the smallest plan, as `cost`.
            vectors: As `cost`.

        Raises:
            BudgetError: If the smallest plan costs more than the budget; gives the reachable interval.
        """
        for one in self.all:
            if (smallest := one.cost(widths, vectors)) > one.limit:
                lowest = one._lowest(smallest)
                raise BudgetError(
                    f"{one.setting}: {one.keep} of the dense {one.metric} given, but {lowest:.4f} remain with {words}. "
                    f"Reachable are {lowest:.4f} to 1. "
                    f"Raise {one.setting}, lower env.min_keep, or protect fewer units (env.protect, sensitivity.*)."
                )

    def refuse_widths(self, who: str) -> None:
        """Refuses a budget that whole channels cannot meet, for a caller that decides widths alone.

        Args:
            who: The caller, for the message, for example ``agent.name=random``.

        Raises:
            BudgetError: If the least widths cost more than the budget.
        """
        for one in self.all:
            if (smallest := one.cost(one.least)) > one.limit:
                lowest = one._lowest(smallest)
                raise BudgetError(
                    f"{one.setting}: {one.keep} of the dense {one.metric} given, but {who} decides widths alone, and "
                    f"whole channels reach {lowest:.4f} to 1. Raise {one.setting} to {lowest:.4f} or more, lower "
                    "env.min_keep, or choose an agent whose actions decide the edits of layers, too, for example "
                    "agent.name=ddpg."
                )

    def _lowest(self, cost: int) -> float:
        """A cost as a share of the dense cost, rounded up, so that the share in a message is itself reachable."""
        return ceil(cost / self.dense * 1e4) / 1e4

    def _least(self, channels: int, min_keep: float) -> int:
        wanted = max(1, ceil(min_keep * channels - 1e-9))
        return min(channels, -(-wanted // self.round_to) * self.round_to)

    def reading(self, reads: Mapping[str, int]) -> Self:
        """Returns this budget with a fixed number of inputs per vector for some layers; see `CostForm.reading`."""
        other = copy.copy(self)
        other.cost_form = self.cost_form.reading(reads)
        other.also = tuple(one.reading(reads) for one in self.also)
        return other

    def unlimited(self) -> Self:
        """Returns this budget with all of the dense cost as its limit."""
        other = copy.copy(self)
        other.keep, other.limit = 1.0, self.dense
        other.also = ()
        return other

    @property
    def all(self) -> tuple["Budget", ...]:
        """This budget and those to be met besides."""
        return self, *self.also

    def cost(self, widths: IntArray, vectors: IntArray | None = None) -> int:
        """Returns the cost in MACs, parameters, or femtoseconds; arguments as `CostForm.cost`."""
        return self.cost_form.cost(widths, vectors)

    def fits(self, widths: IntArray, vectors: IntArray | None = None) -> bool:
        """Whether a plan meets every limit; arguments as `CostForm.cost`."""
        return all(one.cost(widths, vectors) <= one.limit for one in self.all)

    @property
    def reachable(self) -> tuple[float, float]:
        """The least and the largest share of the dense cost that plans of whole channels can reach."""
        return self.cost(self.least) / self.dense, 1.0

    def allowed(self, number: int, width: float) -> int:
        """Returns the allowed width of free unit ``number`` nearest to ``width``; ignores the budget's limit."""
        channels, least = int(self.channels[number]), int(self.least[number])
        below = floor(width / self.round_to) * self.round_to
        above = min(below + self.round_to, channels)
        nearest = below if width - below <= above - width else above
        return min(max(nearest, least), channels)

    def cap(self, number: int, widths: IntArray) -> int:
        """Returns the largest allowed width of a unit with which the budget can still be met.

        Args:
            number: Index of the free unit to decide.
            widths: int64 [units]: decided units at their widths, undecided units at their least widths.

        Returns:
            An allowed width, at least the unit's least width.
        """
        return min(one._own_cap(number, widths) for one in self.all)

    def _own_cap(self, number: int, widths: IntArray) -> int:
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
        """Returns the keep ratio for all undecided units that would spend the rest of the budget.

        Args:
            widths: int64 [units]; only the decided entries are read.
            undecided: int64 [units], 1 for undecided units, else 0.

        Returns:
            A ratio in [0, 1], before rounding.
        """
        return min(one._own_even_ratio(widths, undecided) for one in self.all)

    def _own_even_ratio(self, widths: IntArray, undecided: IntArray) -> float:
        square, slope, rest = self.cost_form.along(widths * (1 - undecided), self.channels * undecided)
        room = self.limit - rest
        if square + slope <= room:
            return 1.0
        if square == 0:
            return max(0.0, room / slope)
        return max(0.0, (sqrt(max(0.0, slope * slope + 4.0 * square * room)) - slope) / (2 * square))

    def uniform(self) -> IntArray:
        """Returns widths with one common keep ratio that spend the budget, int64 [units]; see `project`."""
        return self.project(self.channels)

    def project(self, wanted: npt.ArrayLike) -> IntArray:
        """Scales widths by one common factor until the budget is spent, to the last width that still fits.

        Args:
            wanted: Widths [units], above 0; only their proportions count.

        Returns:
            Allowed widths, int64 [units], for the largest common factor that meets the budget, `filled`; the least
            widths where only edits can meet it.
        """
        proportions = np.asarray(wanted, dtype=np.float64)
        low, high = 0.0, float((self.channels / proportions).max())
        if self.fits(self._scaled(proportions, high)):
            return self._scaled(proportions, high)
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if self.fits(self._scaled(proportions, middle)) else (low, middle)
        return self.filled(self._scaled(proportions, low), proportions)

    def filled(self, widths: IntArray, wanted: npt.ArrayLike) -> IntArray:
        """Raises widths one by one until no unit can be wider within the budget.

        A common factor changes many units of equal size at once and may leave several per cent of the budget. Here the
        factor rises on, and a unit stops alone when its next width does not fit [our choice].

        Args:
            widths: Allowed widths, int64 [units].
            wanted: Widths [units], above 0; units rise in their proportions, of equal ones the first.

        Returns:
            Allowed widths, int64 [units], nowhere less than ``widths``.
        """
        found, proportions = widths.copy(), np.asarray(wanted, dtype=np.float64)

        def turn(number: int) -> tuple[float, int, int]:
            """The factor at which a unit takes its next width, the unit, and this width."""
            width = int(found[number])
            wider = min(width + self.round_to, int(self.channels[number]))
            return (width + wider) / 2 / proportions[number], number, wider

        turns = [turn(number) for number in range(len(found)) if found[number] < self.channels[number]]
        heapify(turns)
        while turns:
            _, number, wider = heappop(turns)
            narrower, found[number] = found[number], wider
            if not self.fits(found):
                found[number] = narrower  # costs only rise, so this width never fits again
            elif wider < self.channels[number]:
                heappush(turns, turn(number))
        return found

    def random(self, generator: np.random.Generator, spread: float = 0.3) -> IntArray:
        """Draws random widths around the uniform plan's widths, at the budget, int64 [units].

        Args:
            generator: The source of randomness.
            spread: Standard deviation of the widths' logarithms before the scaling to the budget [our choice].
        """
        return self.project(self.channels * np.exp(spread * generator.standard_normal(len(self.units))))

    def _scaled(self, proportions: npt.NDArray[np.float64], factor: float) -> IntArray:
        widths = [self.allowed(number, factor * width) for number, width in enumerate(proportions)]
        return np.array(widths, dtype=np.int64)

    def names(self, widths: Sequence[int] | IntArray) -> dict[str, int]:
        """Returns widths [units] by unit name."""
        return {unit.name: int(width) for unit, width in zip(self.units, widths, strict=True)}


def _limit(dense: int, keep: float) -> int:
    # The factor undoes float rounding: keep = cost / dense must allow that cost.
    return floor(dense * keep * (1 + 1e-12))
