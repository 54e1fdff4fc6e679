"""The planner: makes the plan of a proposal, in the process of the search and in each worker."""

from dataclasses import dataclass, field

from prune_env.budget import Budget
from prune_env.common.arrays import IntArray
from prune_env.env.proposal import Proposal
from prune_env.granularity import Granularity, PlanBuilder
from prune_env.plan import PlannedBudget, PruningPlan
from prune_env.walk import LayerWalk, Scores


@dataclass(frozen=True)
class Planner:
    """Everything that makes a plan from a proposal; the same proposal gives the same plan everywhere.

    Attributes:
        walk: The network's walk.
        budget: The budget.
        scores: One score per channel of each unit.
        granularity: The granularity, prepared for the network.
        provenance: Facts to record in every plan.
    """

    walk: LayerWalk
    budget: Budget
    scores: Scores
    granularity: Granularity
    provenance: dict[str, str | int | float | None] = field(default_factory=dict)

    def plan(self, proposal: Proposal) -> PruningPlan:
        """The plan of a proposal."""
        if proposal.plan is not None:
            return proposal.plan
        if proposal.widths is not None:
            return self.of_widths(proposal.widths)
        assert proposal.numbers is not None
        action = proposal.action
        granularity = self.granularity if action is None else self.granularity.with_action(action)
        builder = granularity.builder(self.budget)
        for numbers in proposal.numbers.tolist():
            builder.decide(numbers)
        return self.of_builder(builder)

    def of_widths(self, widths: IntArray) -> PruningPlan:
        """The plan that keeps the best-scored channels at these widths, int64 [free units]."""
        share = min(1.0, self.budget.cost(widths) / self.budget.dense)
        return self.walk.plan(self.budget.names(widths), self.scores, self._planned_budget(share), self.provenance)

    def of_builder(self, builder: PlanBuilder) -> PruningPlan:
        """The plan of a finished builder."""
        kept = {name: [int(channel) for channel in channels] for name, channels in builder.kept.items()}
        return self.walk.plan_keeping(kept, builder.edits, self._planned_budget(builder.share), self.provenance)

    def _planned_budget(self, share: float) -> PlannedBudget:
        also = {one.metric: one.keep for one in self.budget.also if one.metric != "latency"}
        return PlannedBudget(metric=self.budget.metric, keep=self.budget.keep, achieved=share, also=also)
