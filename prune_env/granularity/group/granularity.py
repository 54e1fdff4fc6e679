"""Granularity group: channels, and convolutions split into groups that each read selected inputs (AGSPRL).

In AGSPRL (Wei et al., IEEE Access 2022) an agent decides a kernel pruning rate for each layer, and the number of groups
follows from the rate (action ``pruning_rate``). With the other actions the agent decides a keep ratio and a group count
[our choice].
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from math import log
from typing import Any, Self

import numpy as np

from prune_env.budget import Budget
from prune_env.common.errors import ConfigError, RunError
from prune_env.common.text import shorten
from prune_env.granularity.actions import KEEP, ActionDimension, linear
from prune_env.granularity.base import (
    Granularity,
    GranularityContext,
    GranularityMeasurements,
    Numbers,
    Series,
    TextTable,
    Trainable,
    register_granularity,
)
from prune_env.granularity.group.builder import GroupPlanBuilder
from prune_env.granularity.group.demonstrations import at_budget, shown_counts
from prune_env.granularity.group.edit import groups_of
from prune_env.granularity.group.grouping import Grouping
from prune_env.granularity.group.kernel_scores import KernelScores, score_kernels
from prune_env.granularity.group.pruning_rate import RatePlanBuilder
from prune_env.granularity.group.selection import SelectorTraining
from prune_env.granularity.group.settings import GroupSettings
from prune_env.granularity.group.tables import inspect_table, report_table
from prune_env.granularity.group.times import GroupMeasurements, Times, faster_counts, time_groups
from prune_env.granularity.recorded import counts_in
from prune_env.plan import PruningPlan

RATES = "pruning_rate"


@register_granularity
class Group(Granularity):
    """Channels, and convolutions that are split into groups with inputs of their choice (system E, AGSPRL).

    Attributes:
        grouping: The convolutions that may be grouped, their allowed group counts, and the unit each is decided with.
        times: Seconds of each convolution's forward pass on the timed batch, by group count.
        kernels: One score per kernel of each convolution.
    """

    name = "group"
    Settings = GroupSettings
    supports_latency = False
    makes_edits = True
    beyond_channels = True
    Measurements = GroupMeasurements
    settings: GroupSettings
    grouping: Grouping
    times: Times
    kernels: KernelScores

    @classmethod
    def action_numbers(cls, action: str) -> int:
        """How many numbers an action has: 1 for a pruning rate, 2 for a keep ratio and a group count."""
        return 1 if action == RATES else 2

    def prepare(self, context: GranularityContext) -> Self:
        """Finds the convolutions that may be grouped, times them in groups, and scores their kernels."""
        walk, settings = context.scoring.walk, self.settings
        self.grouping = Grouping(walk, settings.max_groups, context.untouched)
        self.times = {}
        if context.measured is not None:
            self.times = self._times_in(context.measured)
        elif context.timed or settings.only_faster:
            context.on_progress("timing convolutions in groups")
            self.times = time_groups(self.grouping, context.batch())
        if settings.only_faster:
            self.grouping = Grouping(walk, settings.max_groups, context.untouched, faster_counts(self.times))
        context.on_progress(f"scoring kernels by {settings.kernels}")
        names = [convolution.name for convolution in self.grouping.convolutions]
        self.kernels = score_kernels(settings.kernels, context.scoring, names)
        self._scores = context.scores
        self._min_keep = context.min_keep
        return self

    def builder(self, budget: Budget) -> GroupPlanBuilder:
        """A new plan builder for a budget.

        Raises:
            BudgetError: If the action is ``pruning_rate`` and rates alone cannot meet the budget.
        """
        if self.action == RATES:
            return RatePlanBuilder(budget, self.grouping, self._scores, self.kernels, self._min_keep)
        return GroupPlanBuilder(budget, self.grouping, self._scores, self.kernels)

    def actions(self) -> tuple[ActionDimension, ...]:
        """The share of kernels that stays; or a keep ratio and a group count, on a logarithmic scale from 1 at -1."""
        if self.action == RATES:
            return (linear("share of kernels", 1.0, self._min_keep),)
        most = self.grouping.most
        count = ActionDimension(
            "group count",
            lambda action, _even: most ** ((action + 1.0) / 2.0),
            lambda number, _even: 2.0 * log(number) / max(log(most), 1e-9) - 1.0,
        )
        return KEEP[self.action], count

    def limits(self) -> Mapping[str, float]:
        """The setting that scales actions, by key."""
        if self.action == RATES:
            return {"env.min_keep": self._min_keep}
        return {"granularity.max_groups": self.settings.max_groups}

    def reachable(self, budget: Budget) -> tuple[float, float]:
        """The smallest and the largest share of the dense cost that a plan can reach.

        Raises:
            BudgetError: If the budget is below the smallest.
        """
        builder = self.builder(budget)
        if isinstance(builder, RatePlanBuilder):
            return builder.share, 1.0
        words = "every free unit at its least width and every convolution in its largest group count"
        smallest, widths = builder.grouped_at(0.0)
        smallest.refuse_below(words, widths)
        return smallest.cost(widths) / budget.dense, 1.0

    def demonstrations(self, rule_ratios: Sequence[Numbers], budget: Budget) -> list[Numbers]:
        """The rules' plans without groups, then plans with one keep ratio and one group count for all units.

        With action ``pruning_rate``: the rules' keep ratios, scaled to the budget, as shares of kernels.
        """
        if self.action == RATES:
            return [at_budget(ratios, (), budget, self.builder) for ratios in rule_ratios]
        even = np.ones(len(budget.units))
        ungrouped = [np.column_stack([ratios, np.ones(len(ratios))]) for ratios in rule_ratios]
        counts = shown_counts(self.grouping.most, budget)
        return ungrouped + [at_budget(even, (float(count),), budget, self.builder) for count in counts]

    def demonstration_count(self, rules: int, budget: Budget) -> int:
        """How many demonstrations `demonstrations` makes from this many rules."""
        return rules + (0 if self.action == RATES else len(shown_counts(self.grouping.most, budget)))

    def record(self, plan: PruningPlan) -> dict[str, Any]:
        """For each convolution its group count and inputs per group; a digest of all groups' inputs and filters."""
        grouped = groups_of(plan)
        if not grouped:
            return {"groups": None, "reads": None, "inputs": None}
        listed = [(name, edit.inputs, edit.filters) for name, edit in sorted(grouped.items())]
        return {
            "groups": {name: edit.groups for name, edit in grouped.items()},
            "reads": {name: edit.reads for name, edit in grouped.items()},
            "inputs": hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16],
        }

    def _times_in(self, measured: GranularityMeasurements) -> Times:
        """The times of a run.

        Raises:
            RunError: If they are of other convolutions.
        """
        assert isinstance(measured, GroupMeasurements)
        wanted = {convolution.name for convolution in self.grouping.convolutions}
        if measured.times and (other := sorted(wanted ^ measured.times.keys())):
            what = "lacks" if other[0] in wanted else "has, for a layer that cannot be grouped,"
            raise RunError(f"The run's groups.json {what} the times of {shorten(repr(other[0]))}. {measured.remedy}")
        return measured.times

    def measurements(self) -> GroupMeasurements:
        """The times, the allowed group counts, and the reasons why other layers stay whole."""
        return GroupMeasurements(
            times={name: dict(times) for name, times in self.times.items()},
            allowed={convolution.name: sorted(convolution.counts) for convolution in self.grouping.convolutions},
            whole=dict(self.grouping.whole),
        )

    def restore(self, measured: GranularityMeasurements) -> Self:
        """Takes the times that a run has measured."""
        assert isinstance(measured, GroupMeasurements)
        self.times = measured.times
        return self

    def series(self, record: Mapping[str, Any]) -> Series:
        """``groups``: the group count of every convolution that may be grouped.

        Raises:
            RunError: If the record is damaged.
        """
        counts = counts_in("groups", record.get("groups", {}))
        return {"groups": {name: counts.get(name, 1) for name in self.times}}

    def tables(self, batch: int, plan: PruningPlan | None = None) -> list[TextTable]:
        """The time of each convolution by group count; with a plan, also the plan's groups."""
        if plan is None:
            return [inspect_table(self.grouping, self.times, batch)]
        return [report_table(groups_of(plan), self.times, batch)]

    def trainable(self, plan: PruningPlan) -> Trainable | None:
        """The training of selectors, if ``granularity.selectors`` is true.

        Raises:
            ConfigError: If the plan groups no convolution.
        """
        if not self.settings.selectors:
            return None
        if not groups_of(plan):
            raise ConfigError(
                "granularity.selectors: true given, but no convolution of the plan falls into groups. Give false, or "
                "search a plan with granularity.name=group."
            )
        return SelectorTraining(self.settings.selector_penalty)
