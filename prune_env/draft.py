"""Drafts: plans in the making, one free unit decided after the other, such that the finished plan meets the budget."""

from collections.abc import Mapping
from math import ceil, lcm

import numpy as np

from prune_env.budget import Budget
from prune_env.common.arrays import IntArray
from prune_env.common.errors import BudgetError
from prune_env.criteria.kernel_scores import KernelScores
from prune_env.grouping import Groupable, Grouping, nearest_count, planned
from prune_env.plan import PlannedGroups
from prune_env.surgery.groups import GroupSpec, configure_groups
from prune_env.surgery.unread import channels_read
from prune_env.walk import Scores, best_channels
from prune_env.walk.unit import Unit

RATE_STEP = 1.0 / 64.0
"""By how much a pruning rate is raised at a time until the budget is within reach again [our choice]."""


class Draft:
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
        """The share of the dense cost that the draft has."""
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


class GroupDraft(Draft):
    """Widths of units, and with each the groups of the convolutions that are decided with it.

    Each group reads its share of the inputs, those that the kernels' scores say; inputs that no group reads any more
    are cut at once where they come from, so that later units have what this saves.

    Args:
        budget: As `Draft`.
        grouping: What may fall into groups.
        scores: One score per channel of each unit.
        kernels: One score per kernel of each of the convolutions.

    Attributes:
        kept: Channels of each free unit that stay; all of those undecided.
        grouped: The groups so far, by convolution.
    """

    def __init__(self, budget: Budget, grouping: Grouping, scores: Scores, kernels: KernelScores) -> None:
        super().__init__(budget)
        self.grouping = grouping
        self.kept: dict[str, IntArray] = {unit.name: np.arange(unit.channels) for unit in budget.units}
        self.grouped: dict[str, PlannedGroups] = {}
        self._scores = scores
        self._kernels = kernels
        self._whole = budget
        self._specs: dict[str, GroupSpec] = {}
        self._numbers = {unit.name: number for number, unit in enumerate(budget.units)}
        self._convolutions = {found.name: found for found in grouping.convolutions}

    def groups_of(self, number: int) -> dict[str, int]:
        """As `Draft.groups_of`."""
        return {found.name: self._specs[found.name].groups for found in self.grouping.by_step[number]}

    def decide(self, keep: float, groups: float = 1.0) -> None:
        """Decides the next unit.

        Args:
            keep: Its keep ratio, before rounding and clipping.
            groups: Into how many groups its convolutions should fall, 1 or more; each has the count nearest to it that
                divides what it then reads and writes.
        """
        budget, number = self.budget, self.number
        unit, least = budget.units[number], int(budget.least[number])
        width = budget.allowed(number, keep * unit.channels)
        while True:
            specs = {
                found.name: self._share(found, groups, {unit.name: width}) for found in self.grouping.by_step[number]
            }
            # With the least width and whole convolutions it always fits, and groups save.
            if width <= least or self._fits(specs, width):
                break
            width = max(least, (width - 1) // budget.round_to * budget.round_to)
        self._settle(specs, width)

    def _share(self, found: Groupable, groups: float, widths: Mapping[str, int]) -> GroupSpec:
        inputs, outputs = self._sizes(found, widths)
        count = nearest_count(inputs, outputs, groups, found.counts)
        return GroupSpec(count, inputs // count)

    def _sizes(self, found: Groupable, widths: Mapping[str, int]) -> tuple[int, int]:
        """Input and output channels of a convolution, with the widths that are decided and those given."""
        kept = {**self.kept, **{name: self.kept[name][:width] for name, width in widths.items()}}
        inputs, outputs = (len(self.grouping.kept(found, side, kept)) for side in ("in", "out"))
        return inputs, outputs

    def _fits(self, specs: Mapping[str, GroupSpec], width: int) -> bool:
        widths = self.widths.copy()
        widths[self.number] = width
        return self._reading(specs).form.cost(widths) <= self.budget.limit

    def _reading(self, specs: Mapping[str, GroupSpec]) -> Budget:
        """The budget once convolutions fall into more groups."""
        reads = {name: spec.inputs for name, spec in {**self._specs, **specs}.items() if spec.groups > 1}
        return self._whole.reading(reads)

    def _settle(self, specs: Mapping[str, GroupSpec], width: int) -> None:
        unit = self.budget.units[self.number]
        self.kept[unit.name] = np.array(best_channels(self._scores[unit.name], unit, width))
        self._specs.update(specs)
        self._close(width)
        # The last one first: what it does not read changes what those before it write.
        for found in reversed(self.grouping.by_step[self.number - 1]):
            self._group(found)
        for name in list(self.grouped):
            if self._is_whole(self._convolutions[name]):
                del self.grouped[name]
        self.budget = self._reading({})

    def _is_whole(self, found: Groupable) -> bool:
        """Whether a convolution is one group that reads all there is."""
        spec = self._specs[found.name]
        return spec.groups == 1 and spec.inputs >= len(self.grouping.kept(found, "in", self.kept))

    def _group(self, found: Groupable) -> None:
        """Shares out a convolution's filters and inputs, and cuts what it alone would have read."""
        spec = self._specs[found.name]
        ins, outs = (self.grouping.kept(found, side, self.kept) for side in ("in", "out"))
        if self._is_whole(found):
            self.grouped.pop(found.name, None)
            return
        scores = self._kernels[found.name]
        self.grouped[found.name] = planned(scores, spec.groups, spec.inputs, found.reorders, ins, outs)
        for unit, _ in found.reads:
            if unit.name in self.kept:
                self._narrow(unit)

    def _narrow(self, unit: Unit) -> None:
        """Cuts channels of a unit that no group reads, as many as leave what writes them in its groups."""
        kept = self.kept[unit.name]
        read = channels_read(self.grouping.walk.model, unit.members, self.grouped)
        if read is None:
            return
        unread = np.setdiff1d(kept, read, assume_unique=True)
        writers = [
            self._convolutions[one.module] for one in unit.members if one.side == "out" and one.module in self._specs
        ]
        multiple = lcm(self.budget.round_to, *(self._specs[found.name].groups for found in writers))
        width = -(-max(1, len(kept) - len(unread)) // multiple) * multiple
        if width >= len(kept):
            return
        worst = unread[np.argsort(self._scores[unit.name][unread], kind="stable")[: len(kept) - width]]
        self.kept[unit.name] = np.setdiff1d(kept, worst, assume_unique=True)
        self.widths[self._numbers[unit.name]] = width
        for found in writers:
            if found.name in self.grouped:
                self._group(found)


class RateDraft(GroupDraft):
    """AGSPRL's mode: what is decided of a unit is the kernel pruning rate of the convolutions decided with it.

    How many groups each has, and how many inputs each group reads, follows (`configure_groups`); units are only cut
    where no group reads them.

    Args:
        budget: As `Draft`.
        grouping: As `GroupDraft`.
        scores: As `GroupDraft`.
        kernels: As `GroupDraft`.
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
        lowest = ceil(self.budget.form.cost(self.widths) / budget.dense * 1e4) / 1e4
        if self.budget.form.cost(self.widths) > budget.limit:
            raise BudgetError(
                f"budget.keep: {budget.keep} of the dense {budget.metric} given, but with every convolution that may "
                f"fall into groups at its highest pruning rate, {1 - least:.3f}, {lowest:.4f} remain. "
                f"Reachable are {lowest:.4f} to 1. Raise budget.keep, lower env.min_keep, or protect fewer units "
                "(env.protect, sensitivity.*)."
            )

    @property
    def even(self) -> float:
        """The share of kernels that, left to all undecided convolutions alike, would spend the rest of the budget."""
        low, high = self.budget.form.cost(self.widths), self._cost_undecided_whole()
        if high <= self.budget.limit:
            return 1.0
        return self.least + (1.0 - self.least) * max(0.0, (self.budget.limit - low) / (high - low))

    @property
    def reduced(self) -> float:
        """As `Draft.reduced`; undecided convolutions are whole, too."""
        return 1.0 - self._cost_undecided_whole() / self.budget.dense

    def _cost_undecided_whole(self) -> int:
        undecided = [found for step in self.grouping.by_step[self.number :] for found in step]
        whole = {found.name: GroupSpec(1, len(self.grouping.kept(found, "in", self.kept))) for found in undecided}
        return self._reading(whole).form.cost(self.widths)

    def decide(self, keep: float, groups: float = 1.0) -> None:  # noqa: ARG002  (they follow)
        """Decides the next unit: the share of the kernels of its convolutions that stays, one less the pruning rate."""
        unit = self.budget.units[self.number]
        keep = min(1.0, max(self.least, keep))
        while True:
            specs = {found.name: self._configured(found, keep) for found in self.grouping.by_step[self.number]}
            if keep <= self.least or self._fits(specs, int(self.widths[self.number])):
                break
            keep = max(self.least, keep - RATE_STEP)
        self._settle(specs, len(self.kept[unit.name]))
        self.previous = keep

    def _configured(self, found: Groupable, keep: float) -> GroupSpec:
        return configure_groups(*self._sizes(found, {}), 1.0 - keep, counts=found.counts)

    def _reading(self, specs: Mapping[str, GroupSpec]) -> Budget:
        return self._whole.reading({name: spec.inputs for name, spec in {**self._specs, **specs}.items()})
