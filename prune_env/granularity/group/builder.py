"""Widths and group counts: plans in the making whose convolutions fall into groups."""

from collections.abc import Mapping, Sequence
from math import lcm
from typing import Any

import numpy as np

from prune_env.budget import Budget
from prune_env.common.arrays import IntArray
from prune_env.granularity.builder import PlanBuilder
from prune_env.granularity.group.edit import GroupEdit
from prune_env.granularity.group.gathered import GroupSpec
from prune_env.granularity.group.grouping import Groupable, Grouping, nearest_count, planned
from prune_env.granularity.group.kernel_scores import KernelScores
from prune_env.granularity.group.unread import channels_read
from prune_env.plan import Edits
from prune_env.walk import Scores, best_channels
from prune_env.walk.unit import Unit


class GroupPlanBuilder(PlanBuilder):
    """Widths of units, and with each the groups of the convolutions that are decided with it.

    Each group reads its share of the inputs, those that the kernels' scores say; inputs that no group reads any more
    are cut at once where they come from, so that later units have what this saves.

    Args:
        budget: As `PlanBuilder`.
        grouping: What may fall into groups.
        scores: One score per channel of each unit.
        kernels: One score per kernel of each of the convolutions.

    Attributes:
        grouped: The groups so far, by convolution.
    """

    def __init__(self, budget: Budget, grouping: Grouping, scores: Scores, kernels: KernelScores) -> None:
        super().__init__(budget)
        self.grouping = grouping
        self._kept: dict[str, IntArray] = {unit.name: np.arange(unit.channels) for unit in budget.units}
        self.grouped: dict[str, GroupEdit] = {}
        self._scores = scores
        self._kernels = kernels
        self._whole = budget
        self._specs: dict[str, GroupSpec] = {}
        self._numbers = {unit.name: number for number, unit in enumerate(budget.units)}
        self._convolutions = {found.name: found for found in grouping.convolutions}

    @property
    def kept(self) -> Mapping[str, IntArray]:
        """The channels of each free unit that stay, ascending; all of those undecided."""
        return self._kept

    @property
    def edits(self) -> Edits:
        """The groups so far, by convolution."""
        return self.grouped

    def decided(self, number: int) -> Mapping[str, Any]:
        """``groups``: the group counts of the convolutions that were decided with a unit, by name."""
        return {"groups": {found.name: self._specs[found.name].groups for found in self.grouping.by_step[number]}}

    def decide(self, numbers: Sequence[float]) -> None:
        """Decides the next unit.

        Args:
            numbers: Its keep ratio, and into how many groups its convolutions should fall, 1 or more; each convolution
                gets the nearest count that divides what it then reads and writes.
        """
        keep, groups = numbers
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
        kept = {**self._kept, **{name: self._kept[name][:width] for name, width in widths.items()}}
        inputs, outputs = (len(self.grouping.kept(found, side, kept)) for side in ("in", "out"))
        return inputs, outputs

    def _fits(self, specs: Mapping[str, GroupSpec], width: int) -> bool:
        widths = self.widths.copy()
        widths[self.number] = width
        return self._reading(specs).cost(widths) <= self.budget.limit

    def _reading(self, specs: Mapping[str, GroupSpec]) -> Budget:
        """The budget once convolutions fall into more groups."""
        reads = {name: spec.inputs for name, spec in {**self._specs, **specs}.items() if spec.groups > 1}
        return self._whole.reading(reads)

    def _settle(self, specs: Mapping[str, GroupSpec], width: int) -> None:
        unit = self.budget.units[self.number]
        self._kept[unit.name] = np.array(best_channels(self._scores[unit.name], unit, width))
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
        return spec.groups == 1 and spec.inputs >= len(self.grouping.kept(found, "in", self._kept))

    def _group(self, found: Groupable) -> None:
        """Shares out a convolution's filters and inputs, and cuts what it alone would have read."""
        spec = self._specs[found.name]
        ins, outs = (self.grouping.kept(found, side, self._kept) for side in ("in", "out"))
        if self._is_whole(found):
            self.grouped.pop(found.name, None)
            return
        scores = self._kernels[found.name]
        self.grouped[found.name] = planned(scores, spec.groups, spec.inputs, found.reorders, ins, outs)
        for unit, _ in found.reads:
            if unit.name in self._kept:
                self._narrow(unit)

    def _narrow(self, unit: Unit) -> None:
        """Cuts channels of a unit that no group reads, as many as leave what writes them in its groups."""
        kept = self._kept[unit.name]
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
        self._kept[unit.name] = np.setdiff1d(kept, worst, assume_unique=True)
        self.widths[self._numbers[unit.name]] = width
        for found in writers:
            if found.name in self.grouped:
                self._group(found)
