"""Replay as a search: the plan of a policy that another search learned, or a plan itself, without learning."""

import math
from pathlib import Path

from prune_env.common.errors import BudgetError
from prune_env.config import RunConfig
from prune_env.env import PruningEnv
from prune_env.env.fitting import check_units
from prune_env.env.problem import PruningProblem
from prune_env.plan import PruningPlan
from prune_env.search import Proposal, Search
from prune_env.search.policy import Policy, load_plan_or_policy
from prune_env.search.registry import register_search


@register_search("replay")
class Replay(Search):
    """The plan that the policy of agent.policy proposes, or the plan of this file: one plan."""

    probes = takes_policy = needs_policy = True
    rivals = ("greedy",)
    independent = math.inf

    @classmethod
    def check(cls, problem: PruningProblem, config: RunConfig, episodes: int) -> None:  # noqa: ARG003
        """Refuses a policy for another granularity or limits, and a plan that does not fit or costs too much.

        Raises:
            ConfigError: Names the setting that the policy was trained with.
            PlanError: If the plan is for another network.
            BudgetError: If the plan costs more than the budget.
        """
        learned = _learned(config)
        if isinstance(learned, Policy):
            learned.check(config)
            return
        learned.apply(problem.walk.model)
        check_units(learned, problem.walk)
        budget, costs = problem.budget, problem.walk.costs(learned.widths, learned.by_layer)
        cost = {"macs": costs.macs, "params": costs.params}.get(budget.metric, 0)
        if cost > budget.limit:
            share = cost / budget.dense
            raise BudgetError(
                f"budget.keep: {budget.keep} given, but the plan of agent.policy keeps {share:.4f} of the "
                f"{budget.metric}. Give budget.keep={math.ceil(1e4 * share) / 1e4}."
            )

    def __init__(self, problem: PruningProblem, config: RunConfig) -> None:
        super().__init__(problem, config)
        self._learned = _learned(config)
        self._asked = False

    def ask(self) -> Proposal | None:
        """The plan, once."""
        if self._asked:
            return None
        self._asked = True
        if isinstance(self._learned, PruningPlan):
            costs = self.problem.walk.costs(self._learned.widths, self._learned.by_layer)
            return Proposal(plan=self._learned.model_copy(update={"costs": costs}))
        action = self._learned.action
        return self._learned.propose(PruningEnv(problem=self.problem, action=action, proposed_by="replay"))

    @property
    def policy(self) -> Policy | None:
        """The policy that is replayed; None for a plan."""
        return None if isinstance(self._learned, PruningPlan) else self._learned


def _learned(config: RunConfig) -> PruningPlan | Policy:
    return load_plan_or_policy(Path(str(config.agent.policy)))
