"""Plans that an agent is shown before it acts: the uniform one, and those by rule from what the probes have shown."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from agents.rules import RULE_PLANS, rule_plans
from prune_env.budget import Budget
from prune_env.env import PruningEnv
from prune_env.env.observation import FloatArray
from prune_env.env.problem import PruningProblem

COUNTS = (2, 4, 8)
"""Group counts that an agent is shown, in plans of one keep ratio, as far as the budget needs them [our choice]."""

HALVINGS = 12


class Shown(NamedTuple):
    """One plan to be shown.

    Attributes:
        keep: What is asked of each free unit: its keep ratio, or the share of kernels where rates are decided, [units].
        groups: Into how many groups its convolutions should fall.
    """

    keep: npt.NDArray[np.float64]
    groups: int = 1


def how_many(problem: PruningProblem, episodes: int, action: str) -> int:
    """Plans that an agent is shown: half of the episodes at most, so that it also acts; none without probes."""
    if problem.probe_keep is None:
        return 0
    return min(RULE_PLANS + len(_counts(problem, action)), episodes // 2)


def shown_plans(problem: PruningProblem, action: str) -> list[Shown]:
    """The plans that an agent is shown, all within the budget.

    Those of the rules; where rates are decided, with the rules' proportions of units; where group counts are, also
    plans of one keep ratio with all convolutions in as many groups, as wide as these allow.

    Args:
        problem: The problem; its units are probed if they were not yet.
        action: What an action means, as ``env.action``.
    """
    ratios = [widths / problem.budget.channels for widths in rule_plans(problem)]
    if action == "pruning_rate":
        return [_at_budget(problem, action, keep, 1) for keep in ratios]
    even = np.ones(len(problem.budget.units))
    return [Shown(keep) for keep in ratios] + [
        _at_budget(problem, action, even, count) for count in _counts(problem, action)
    ]


def _counts(problem: PruningProblem, action: str) -> list[int]:
    if problem.groups is None or action == "pruning_rate":
        return []
    # With more groups than that even the widest network would leave some of the budget unspent.
    return [count for count in COUNTS if count <= min(problem.groups.grouping.most, 1.0 / problem.budget.keep)]


def _at_budget(problem: PruningProblem, action: str, proportions: npt.NDArray[np.float64], groups: int) -> Shown:
    """What is asked in these proportions, all more or less alike until the budget is spent."""
    budget = problem.budget
    assert budget.metric != "latency"  # which knows no groups
    boundless = Budget(problem.walk, budget.metric, 1.0, problem.min_keep, budget.round_to)

    def share(factor: float) -> float:
        builder = problem.builder(action, boundless)
        for keep in proportions:
            builder.decide(min(1.0, factor * float(keep)), groups)
        return builder.share

    low, high = 0.0, 1.0 / float(proportions.min())
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if share(middle) <= budget.keep else (low, middle)
    return Shown(np.minimum(1.0, low * proportions), groups)


class Demonstrations:
    """Actions that make given plans, episode after episode; the rest is the agent's.

    Args:
        env: The environment, whose problem knows how far the loss rises with each unit; without that nothing is shown.
        episodes: How many the search has.
    """

    def __init__(self, env: PruningEnv, episodes: int) -> None:
        self.env = env
        self.episodes = episodes
        self._plans: list[Shown] | None = None

    def __len__(self) -> int:
        return how_many(self.env.problem, self.episodes, self.env.action)

    def action(self, episode: int) -> FloatArray | None:
        """The action for the unit that the environment is at; None in an episode that is the agent's."""
        if episode >= len(self):
            return None
        if self._plans is None:
            self._plans = shown_plans(self.env.problem, self.env.action)
        plan = self._plans[episode]
        return self.env.action_for(float(plan.keep[self.env.number]), plan.groups)
