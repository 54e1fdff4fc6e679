"""The plan builder of granularity stripe: decides how many stripes of each unit stay."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from prune_env.budget import Budget
from prune_env.common.arrays import IntArray
from prune_env.granularity.builder import PlanBuilder
from prune_env.granularity.stripe.edit import StripeEdit
from prune_env.granularity.stripe.ranking import Ranking
from prune_env.plan import Edits
from prune_env.walk import Scores, best_channels

HALVINGS = 12
"""Halvings of the interval in which the even share is sought: to a quarter of a thousandth."""


class StripePlanBuilder(PlanBuilder):
    """Decides the share of each unit's stripes that stays; a unit without stripes loses whole channels.

    Each decision leaves enough of the budget for the undecided units: for their least widths whole. Where the budget is
    too small for that, for ``min_keep`` of their stripes; else for one stripe in each channel of their least widths.

    Args:
        budget: As `PlanBuilder`.
        rankings: The stripes of each free unit; None for a unit that no convolution with stripes writes.
        scores: One score per channel of each unit, for units without stripes.
        min_keep: Least share of a unit's stripes while the budget allows it, in (0, 1].
    """

    def __init__(self, budget: Budget, rankings: Sequence[Ranking | None], scores: Scores, min_keep: float) -> None:
        super().__init__(budget)
        self._rankings = rankings
        self._scores = scores
        self._min_keep = min_keep
        self._kept: dict[str, Sequence[int] | IntArray] = {unit.name: np.arange(unit.channels) for unit in budget.units}
        self._edits: dict[str, StripeEdit] = {}
        rows = {name: row for row, name in enumerate(budget.cost_form.names)}
        self._rows = [[rows[layer] for layer in one.layers] if one is not None else [] for one in rankings]
        self._vectors: IntArray = np.full(len(rows), -1, dtype=np.int64)
        self._even: float | None = None
        self._reserved = self._vectors
        if not budget.fits(self.widths):
            self._reserve()

    @property
    def kept(self) -> Mapping[str, Sequence[int] | IntArray]:
        """The kept channels of each free unit, ascending; all channels of undecided units."""
        return self._kept

    @property
    def edits(self) -> Edits:
        """The stripes so far, by convolution."""
        return self._edits

    def cost(self, widths: IntArray) -> int:
        """The cost at some widths, int64 [free units], with the stripes decided so far."""
        return self.budget.cost(widths, self._vectors)

    def within(self, budget: Budget) -> bool:
        """As `PlanBuilder.within`, with the stripes decided so far."""
        return budget.fits(self.widths, self._vectors)

    @property
    def smallest(self) -> tuple[IntArray, IntArray]:
        """Widths and vectors of the smallest plan: one stripe for each channel of the least widths."""
        return self._placed([self._least(number) for number in range(len(self._rankings))])

    def _least(self, number: int) -> int:
        """The fewest stripes of a unit, or the least width of a unit without stripes."""
        return int(self.budget.least[number]) if self._rankings[number] is None else 1

    def _reserve(self) -> None:
        """Reserves the cost of few stripes for undecided units, where their least widths whole do not fit."""
        numbers = range(len(self._rankings))
        amounts = [self._wanted(number, 0.0) for number in numbers]
        if not self.budget.fits(*self._placed(amounts)):
            amounts = [self._least(number) for number in numbers]
        self._reserved = self._vectors.copy()
        for number, amount in enumerate(amounts):
            self._place(number, amount, self.widths, self._reserved)

    def _placed(self, amounts: Sequence[int]) -> tuple[IntArray, IntArray]:
        """Widths and vectors if as many units, the last ones, keep these amounts of stripes or channels."""
        widths, vectors = self.widths.copy(), self._vectors.copy()
        for number, amount in enumerate(amounts, start=len(self._rankings) - len(amounts)):
            self._place(number, amount, widths, vectors)
        return widths, vectors

    @property
    def even(self) -> float:
        """The share of stripes, equal for all undecided units, that would spend the rest of the budget, in [0, 1]."""
        if self._even is None:
            self._even = self._even_share()
        return self._even

    def _even_share(self) -> float:
        low, high = 0.0, 1.0
        if self._fits_at(high):
            return high
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._fits_at(middle) else (low, middle)
        return low

    def _fits_at(self, share: float) -> bool:
        """Whether the plan meets the budget if all undecided units keep this share."""
        undecided = range(self.number, len(self._rankings))
        return self.budget.fits(*self._placed([self._wanted(number, share) for number in undecided]))

    def _wanted(self, number: int, share: float) -> int:
        """The stripes, or the channels of a unit without stripes, that a share asks for."""
        ranking = self._rankings[number]
        if ranking is None:
            return self.budget.allowed(number, share * int(self.budget.channels[number]))
        return min(max(1, round(max(share, self._min_keep) * ranking.total)), ranking.total)

    def _width(self, number: int, stripes: int) -> int:
        """The smallest allowed width at which the strongest stripes find their channels."""
        ranking, channels = self._rankings[number], int(self.budget.channels[number])
        if ranking is None:
            return stripes
        multiple = self.budget.round_to
        alive = -(-int(ranking.alive[stripes]) // multiple) * multiple
        return min(max(alive, int(self.budget.least[number])), channels)

    def _place(self, number: int, amount: int, widths: IntArray, vectors: IntArray) -> None:
        """Writes a unit's width and its convolutions' stripes into arrays for the cost formula."""
        ranking = self._rankings[number]
        widths[number] = self._width(number, amount)
        if ranking is not None:
            vectors[self._rows[number]] = ranking.counts(amount, int(widths[number]))

    def decide(self, numbers: Sequence[float]) -> None:
        """Decides the next unit: the wanted share of its stripes, or the largest share that fits the budget."""
        (share,) = numbers
        number, ranking = self.number, self._rankings[self.number]
        widths, vectors = self.widths.copy(), np.where(self._vectors < 0, self._reserved, self._vectors)

        def fits(amount: int) -> bool:
            self._place(number, amount, widths, vectors)
            return self.budget.fits(widths, vectors)

        # One stripe for each of the least channels never costs more than the least channels whole.
        step = self.budget.round_to if ranking is None else 1
        amount = largest(self._wanted(number, share), self._least(number), step, fits)
        self._place(number, amount, self.widths, self._vectors)
        width, unit = int(self.widths[number]), self.budget.units[number]
        if ranking is None:
            self._kept[unit.name] = best_channels(self._scores[unit.name], unit, width)
        else:
            self._kept[unit.name], masks = ranking.chosen(amount, width)
            self._edits |= edits_of(ranking, masks, self._kept[unit.name])
        self._close(width)
        self._even = None
        self.previous = amount / (unit.channels if ranking is None else ranking.total)

    def decided(self, number: int) -> Mapping[str, Any]:
        """``stripes``: how many stripes each convolution of a unit keeps, by name."""
        ranking = self._rankings[number]
        names = ranking.layers if ranking is not None else ()
        return {"stripes": {name: int(self._vectors[row]) for name, row in zip(names, self._rows[number], strict=True)}}


def largest(wanted: int, least: int, step: int, fits: Callable[[int], bool]) -> int:
    """The wanted amount if it fits; otherwise a smaller one that fits and whose successor does not."""
    if fits(wanted):
        return wanted
    low, high = least // step, -(-wanted // step)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * step) else (low, middle)
    return max(least, low * step)


def edits_of(ranking: Ranking, masks: Sequence[Any], kept: Sequence[int] | IntArray) -> dict[str, StripeEdit]:
    """The edits of convolutions that lose stripes of filters that stay.

    Args:
        ranking: The unit's stripes.
        masks: For each convolution which stripes stay, bool [filters, kernel positions].
        kept: The unit's channels that stay.
    """
    edits = {}
    for number, (name, mask) in enumerate(zip(ranking.layers, masks, strict=True)):
        filters = np.flatnonzero(np.isin(ranking.writes[number], kept))
        if not mask[filters].all():
            positions = [np.flatnonzero(mask[row]).tolist() for row in filters]
            edits[name] = StripeEdit(filters=filters.tolist(), positions=positions)
    return edits
