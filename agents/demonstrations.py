"""Demonstrations: a policy's plan, plans of rules on probes, and the uniform plan, replayed before an agent acts."""

from prune_env.agents.rules import RULE_PLANS, rule_plans
from prune_env.env import PruningEnv
from prune_env.env.observation import FloatArray
from prune_env.env.problem import PruningProblem
from prune_env.granularity.base import Granularity, Numbers
from prune_env.search.policy import Policy


def demonstration_count(problem: PruningProblem, granularity: Granularity, episodes: int) -> int:
    """Number of demonstrations: at most half of the episodes, so that the agent also acts; 0 without probes."""
    if problem.probe_keep is None:
        return 0
    return min(granularity.demonstration_count(RULE_PLANS, problem.budget), episodes // 2)


class Demonstrations:
    """Actions that build the demonstrated plans, one plan per episode; the agent decides all later episodes.

    Args:
        env: The environment; without probes in its problem there are no demonstrations.
        episodes: Number of episodes in the search.
        policy: The policy whose plan comes first; None for none.
        rules: Whether the plans of the rules and the uniform plan are demonstrated.
    """

    def __init__(self, env: PruningEnv, episodes: int, policy: Policy | None = None, rules: bool = True) -> None:
        self.env = env
        self.policy = policy
        self.before = 0 if policy is None else 1
        self.count = demonstration_count(env.problem, env.granularity, episodes) if rules else 0
        self._decisions: list[Numbers] | None = None

    def __len__(self) -> int:
        return self.before + self.count

    def action(self, episode: int) -> FloatArray | None:
        """The action for the environment's current unit; None in an episode that the agent decides."""
        if episode >= len(self):
            return None
        if self.policy is not None and episode == 0:
            return self.policy.act(self.env.observation())
        if self._decisions is None:
            budget = self.env.problem.budget
            ratios = [widths / budget.channels for widths in rule_plans(self.env.problem)]
            self._decisions = self.env.granularity.demonstrations(ratios, budget)
        return self.env.action_for(self._decisions[episode - self.before][self.env.number].tolist())
