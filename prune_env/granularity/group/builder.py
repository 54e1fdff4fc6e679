"""The plan builder of granularity group: decides widths and group counts."""

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

HALVINGS = 12
"""Halvings of the interval in which the even ratio is sought: to a quarter of a thousandth."""


class GroupPlanBuilder(PlanBuilder):
    """Decides the width of each unit, and with each unit the groups of its convolutions (`Grouping.by_step`).

    Each group reads its share of the inputs, chosen by the kernels' scores. Channels that no group reads any more are
    cut at once, so that later units can spend the saved cost. Each decision leaves enough of the budget for the
    undecided units: for their least widths whole, and where the budget is too small for that, for their least widths
    with every convolution in its largest group count.

    Args:
        budget: As `PlanBuilder`.
        grouping: The convolutions that may be grouped.
        scores: One score per channel of each unit.
        kernels: One score per kernel of each convolution that may be grouped.

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
        self._convolutions = {convolution.name: convolution for convolution in grouping.convolutions}
        self._even: float | None = None
        self._tight = not budget.fits(self.widths)

    @property
    def kept(self) -> Mapping[str, IntArray]:
        """The kept channels of each free unit, ascending; all channels of undecided units."""
        return self._kept

    @property
    def even(self) -> float:
        """The keep ratio, equal for all undecided units, that would spend the rest of the budget, in [0, 1].

        Where the budget needs groups, every undecided convolution counts in its largest group count.
        """
        if not self._tight:
            return super().even
        if self._even is None:
            self._even = self._even_ratio()
        return self._even

    def _even_ratio(self) -> float:
        low, high = 0.0, 1.0
        if self._fits_at(high):
            return high
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._fits_at(middle) else (low, middle)
        return low

    def _fits_at(self, ratio: float) -> bool:
        budget, widths = self.grouped_at(ratio)
        return budget.fits(widths)

    def grouped_at(self, ratio: float) -> tuple[Budget, IntArray]:
        """The budget and the widths if undecided units keep this ratio, with convolutions in the largest group counts.

        A ratio of 0 gives the smallest plan.
        """
        widths = self.widths.copy()
        for number in range(self.number, len(widths)):
            widths[number] = self.budget.allowed(number, ratio * int(self.budget.channels[number]))
        return self._reading(self._reserved(self.number, widths)), widths

    def _reserved(self, start: int, widths: IntArray) -> dict[str, GroupSpec]:
        """The largest group counts of the convolutions that are decided with the units from ``start`` on."""
        names = {unit.name: int(width) for unit, width in zip(self.budget.units, widths, strict=True)}
        undecided = [convolution for step in self.grouping.by_step[start:] for convolution in step]
        return {one.name: self._share(one, float(self.grouping.most), names) for one in undecided}

    @property
    def edits(self) -> Edits:
        """The groups so far, by convolution."""
        return self.grouped

    def decided(self, number: int) -> Mapping[str, Any]:
        """``groups``: the group counts, by name, of the convolutions that were decided with a unit."""
        return {
            "groups": {
                convolution.name: self._specs[convolution.name].groups for convolution in self.grouping.by_step[number]
            }
        }

    def decide(self, numbers: Sequence[float]) -> None:
        """Decides the next unit.

        Args:
            numbers: The unit's keep ratio, and the group count for its convolutions, 1 or more. Each convolution gets
                the nearest allowed count that divides the inputs and outputs it keeps.
        """
        keep, groups = numbers
        budget, number = self.budget, self.number
        unit, least = budget.units[number], int(budget.least[number])
        width = budget.allowed(number, keep * unit.channels)
        while True:
            specs = {
                convolution.name: self._share(convolution, groups, {unit.name: width})
                for convolution in self.grouping.by_step[number]
            }
            if self._fits(specs, width):
                break
            if width > least:
                width = max(least, (width - 1) // budget.round_to * budget.round_to)
            elif self._tight and groups < self.grouping.most:
                groups = min(2.0 * groups, float(self.grouping.most))
            else:
                # The least width always fits, with ungrouped convolutions or else with the largest group counts.
                break
        self._settle(specs, width)

    def _share(self, convolution: Groupable, groups: float, widths: Mapping[str, int]) -> GroupSpec:
        inputs, outputs = self._sizes(convolution, widths)
        count = nearest_count(inputs, outputs, groups, convolution.counts)
        return GroupSpec(count, inputs // count)

    def _sizes(self, convolution: Groupable, widths: Mapping[str, int]) -> tuple[int, int]:
        """Input and output channels of a convolution at the decided widths, replaced by ``widths`` where given."""
        kept = {**self._kept, **{name: self._kept[name][:width] for name, width in widths.items()}}
        inputs, outputs = (len(self.grouping.kept(convolution, side, kept)) for side in ("in", "out"))
        return inputs, outputs

    def _fits(self, specs: Mapping[str, GroupSpec], width: int) -> bool:
        widths = self.widths.copy()
        widths[self.number] = width
        reserved = self._reserved(self.number + 1, widths) if self._tight else {}
        return self._reading({**reserved, **specs}).fits(widths)

    def within(self, budget: Budget) -> bool:
        """As `PlanBuilder.within`, with the groups decided so far."""
        return budget.reading(self._reads({})).fits(self.widths)

    def _reading(self, specs: Mapping[str, GroupSpec]) -> Budget:
        """The budget with the groups decided so far and with ``specs``."""
        return self._whole.reading(self._reads(specs))

    def _reads(self, specs: Mapping[str, GroupSpec]) -> dict[str, int]:
        """The inputs of each group, by convolution that falls into groups."""
        return {name: spec.inputs for name, spec in {**self._specs, **specs}.items() if spec.groups > 1}

    def _settle(self, specs: Mapping[str, GroupSpec], width: int) -> None:
        unit = self.budget.units[self.number]
        self._kept[unit.name] = np.array(best_channels(self._scores[unit.name], unit, width))
        self._specs.update(specs)
        self._close(width)
        self._even = None
        # Consumers first: inputs that they drop shrink their producers.
        for convolution in reversed(self.grouping.by_step[self.number - 1]):
            self._group(convolution)
        for name in list(self.grouped):
            if self._is_whole(self._convolutions[name]):
                del self.grouped[name]
        self.budget = self._reading({})

    def _is_whole(self, convolution: Groupable) -> bool:
        """Whether a convolution is one group that reads all kept inputs."""
        spec = self._specs[convolution.name]
        return spec.groups == 1 and spec.inputs >= len(self.grouping.kept(convolution, "in", self._kept))

    def _group(self, convolution: Groupable) -> None:
        """Assigns a convolution's filters and inputs to its groups, then cuts channels that no group reads any more."""
        spec = self._specs[convolution.name]
        ins, outs = (self.grouping.kept(convolution, side, self._kept) for side in ("in", "out"))
        if self._is_whole(convolution):
            self.grouped.pop(convolution.name, None)
            return
        scores = self._kernels[convolution.name]
        self.grouped[convolution.name] = planned(scores, spec.groups, spec.inputs, convolution.reorders, ins, outs)
        for unit, _ in convolution.reads:
            if unit.name in self._kept:
                self._narrow(unit)

    def _narrow(self, unit: Unit) -> None:
        """Cuts unread channels of a unit to a width that `round_to` and its producers' group counts divide."""
        kept = self._kept[unit.name]
        read = channels_read(self.grouping.walk.model, unit.members, self.grouped)
        if read is None:
            return
        unread = np.setdiff1d(kept, read, assume_unique=True)
        # What is reserved for undecided convolutions must stay possible.
        specs = {**(self._reserved(self.number, self.widths) if self._tight else {}), **self._specs}
        writers = [
            self._convolutions[member.module]
            for member in unit.members
            if member.side == "out" and member.module in specs
        ]
        multiple = lcm(self.budget.round_to, *(specs[convolution.name].groups for convolution in writers))
        width = -(-max(1, len(kept) - len(unread)) // multiple) * multiple
        if width >= len(kept):
            return
        worst = unread[np.argsort(self._scores[unit.name][unread], kind="stable")[: len(kept) - width]]
        self._kept[unit.name] = np.setdiff1d(kept, worst, assume_unique=True)
        self.widths[self._numbers[unit.name]] = width
        for convolution in writers:
            if convolution.name in self.grouped:
                self._group(convolution)
