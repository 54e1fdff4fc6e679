"""Plans that an agent is shown before it acts: the uniform one, and those by rule from what the probes have shown."""

from agents.rules import RULE_PLANS, rule_plans
from prune_env.env import PruningEnv
from prune_env.env.observation import FloatArray
from prune_env.env.problem import PruningProblem
from prune_env.granularity.base import Granularity, Numbers


def demonstration_count(problem: PruningProblem, granularity: Granularity, episodes: int) -> int:
    """Plans that an agent is shown: half of the episodes at most, so that it also acts; none without probes."""
    if problem.probe_keep is None:
        return 0
    return min(granularity.demonstration_count(RULE_PLANS, problem.budget), episodes // 2)


class Demonstrations:
    """Actions that make given plans, episode after episode; the rest is the agent's.

    Args:
        env: The environment; nothing is shown if its problem does not know how far the loss rises with each unit.
        episodes: How many the search has.
    """

    def __init__(self, env: PruningEnv, episodes: int) -> None:
        self.env = env
        self.episodes = episodes
        self._shown: list[Numbers] | None = None

    def __len__(self) -> int:
        return demonstration_count(self.env.problem, self.env.granularity, self.episodes)

    def action(self, episode: int) -> FloatArray | None:
        """The action for the unit that the environment is at; None in an episode that is the agent's."""
        if episode >= len(self):
            return None
        if self._shown is None:
            budget = self.env.problem.budget
            ratios = [widths / budget.channels for widths in rule_plans(self.env.problem)]
            self._shown = self.env.granularity.demonstrations(ratios, budget)
        return self.env.action_for(self._shown[episode][self.env.number].tolist())
