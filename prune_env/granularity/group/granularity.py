"""Group: channels, and convolutions that fall into groups which read inputs of their own choice (AGSPRL).

AGSPRL (Wei et al., IEEE Access 2022) lets an agent decide a kernel pruning rate for each layer, from which the number
of groups follows (action ``pruning_rate``). With the other actions the agent decides a keep ratio and a group count
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
from prune_env.granularity.actions import KEEP, ActionDimension, linear
from prune_env.granularity.base import (
    Granularity,
    GranularityContext,
    Numbers,
    Series,
    TextTable,
    Trainable,
    register_granularity,
)
from prune_env.granularity.builder import PlanBuilder
from prune_env.granularity.group.builder import GroupPlanBuilder
from prune_env.granularity.group.demonstrations import at_budget, shown_counts
from prune_env.granularity.group.edit import groups_of
from prune_env.granularity.group.grouping import Grouping
from prune_env.granularity.group.kernel_scores import KernelScores, score_kernels
from prune_env.granularity.group.pruning_rate import RatePlanBuilder
from prune_env.granularity.group.selection import SelectorTraining
from prune_env.granularity.group.settings import GroupSettings
from prune_env.granularity.group.tables import inspect_table, report_table
from prune_env.granularity.group.times import Times, faster_counts, time_groups
from prune_env.plan import PruningPlan

RATES = "pruning_rate"


@register_granularity
class Group(Granularity):
    """Channels and groups.

    Attributes:
        grouping: Which convolutions may fall into groups, how many, and with which unit each is decided.
        times: Seconds that each of them takes in how many groups, for a batch that latency is of.
        kernels: One score per kernel of each.
    """

    name = "group"
    Settings = GroupSettings
    supports_latency = False
    makes_edits = True
    measurements_file = "groups.json"
    settings: GroupSettings
    grouping: Grouping
    times: Times
    kernels: KernelScores

    @classmethod
    def action_numbers(cls, action: str) -> int:
        """How many numbers an action has: a rate alone, or a keep ratio and a group count."""
        return 1 if action == RATES else 2

    def prepare(self, context: GranularityContext) -> Self:
        """Finds the convolutions, times them in groups, and scores their kernels."""
        walk, settings = context.scoring.walk, self.settings
        self.grouping = Grouping(walk, settings.max_groups, context.untouched)
        self.times = {}
        if context.measured is not None:
            self.times = read_times(context.measured)
        elif context.timed or settings.only_faster:
            context.on_progress("timing convolutions in groups")
            self.times = time_groups(self.grouping, context.batch())
        if settings.only_faster:
            self.grouping = Grouping(walk, settings.max_groups, context.untouched, faster_counts(self.times))
        context.on_progress(f"scoring kernels by {settings.kernels}")
        names = [found.name for found in self.grouping.convolutions]
        self.kernels = score_kernels(settings.kernels, context.scoring, names)
        self._scores = context.scores
        self._min_keep = context.min_keep
        return self

    def builder(self, budget: Budget) -> PlanBuilder:
        """A plan in the making within a budget.

        Raises:
            BudgetError: If rates are decided, and the budget cannot be met by rates alone.
        """
        about = budget, self.grouping, self._scores, self.kernels
        return RatePlanBuilder(*about, self._min_keep) if self.action == RATES else GroupPlanBuilder(*about)

    def actions(self) -> tuple[ActionDimension, ...]:
        """The share of kernels that stays; or a keep ratio, and a group count from 1 at -1, evenly in logarithms."""
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
        """The setting that scales actions."""
        if self.action == RATES:
            return {"env.min_keep": self._min_keep}
        return {"granularity.max_groups": self.settings.max_groups}

    def reachable(self, budget: Budget) -> tuple[float, float]:
        """The shares of the dense cost that plans can reach: least and most.

        Raises:
            BudgetError: If rates are decided, and the budget is not among them.
        """
        return (self.builder(budget).share, 1.0) if self.action == RATES else budget.reachable

    def demonstrations(self, rule_ratios: Sequence[Numbers], budget: Budget) -> list[Numbers]:
        """The plans of rules without groups, and plans of one keep ratio with all convolutions in as many groups.

        Where rates are decided: the rules' proportions of units as shares of kernels.
        """
        if self.action == RATES:
            return [at_budget(ratios, (), budget, self.builder) for ratios in rule_ratios]
        even = np.ones(len(budget.units))
        ungrouped = [np.column_stack([ratios, np.ones(len(ratios))]) for ratios in rule_ratios]
        counts = shown_counts(self.grouping.most, budget)
        return ungrouped + [at_budget(even, (float(count),), budget, self.builder) for count in counts]

    def demonstration_count(self, rules: int, budget: Budget) -> int:
        """How many demonstrations there are for so many rules."""
        return rules + (0 if self.action == RATES else len(shown_counts(self.grouping.most, budget)))

    def record(self, plan: PruningPlan) -> dict[str, Any]:
        """A plan's groups: how many, how many inputs each reads, and a digest of which."""
        grouped = groups_of(plan)
        if not grouped:
            return {"groups": None, "reads": None, "inputs": None}
        listed = [(name, one.inputs, one.filters) for name, one in sorted(grouped.items())]
        return {
            "groups": {name: one.groups for name, one in grouped.items()},
            "reads": {name: one.reads for name, one in grouped.items()},
            "inputs": hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16],
        }

    def measurements(self) -> dict[str, Any]:
        """The times, the counts allowed, and why other convolutions stay whole."""
        return {
            "times": {name: {str(count): one for count, one in times.items()} for name, times in self.times.items()},
            "allowed": {found.name: sorted(found.counts) for found in self.grouping.convolutions},
            "whole": dict(self.grouping.whole),
        }

    def restore(self, measured: Mapping[str, Any]) -> Self:
        """The granularity with the times that a run has measured.

        Raises:
            RunError: If the record is damaged.
        """
        self.times = read_times(measured)
        return self

    def series(self, record: Mapping[str, Any]) -> Series:
        """``groups``: the group count of every convolution that may fall into groups."""
        counts = record.get("groups") or {}
        return {"groups": {name: int(counts.get(name, 1)) for name in self.times}}

    def tables(self, batch: int, plan: PruningPlan | None = None) -> list[TextTable]:
        """What each convolution takes in how many groups, beside a plan's groups where one is given."""
        if plan is None:
            return [inspect_table(self.grouping, self.times, batch)]
        return [report_table(groups_of(plan), self.times, batch)]

    def trainable(self, plan: PruningPlan) -> Trainable | None:
        """Selectors, where the settings ask for them.

        Raises:
            ConfigError: If no convolution of the plan falls into groups.
        """
        if not self.settings.selectors:
            return None
        if not groups_of(plan):
            raise ConfigError(
                "granularity.selectors: true given, but no convolution of the plan falls into groups. Give false, or "
                "search a plan with granularity.name=group."
            )
        return SelectorTraining(self.settings.selector_penalty)


def read_times(measured: Mapping[str, Any]) -> dict[str, dict[int, float]]:
    """The times in a record of `Group.measurements`.

    Raises:
        RunError: If the record is damaged.
    """
    try:
        return {
            name: {int(count): float(seconds) for count, seconds in times.items()}
            for name, times in measured["times"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"the run's times of groups (groups.json) are damaged ({error!r}). Start a new run.") from None
