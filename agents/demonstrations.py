"""Plans that an agent is shown before it acts: the uniform one, and those by rule from what the probes have shown."""

from agents.rules import GUESSES, guesses
from prune_env.env import PruningEnv
from prune_env.observation import FloatArray
from prune_env.task import PruningTask
from prune_env.unit import IntArray


def how_many(task: PruningTask, episodes: int, action: str) -> int:
    """Plans that an agent is shown: half of the episodes at most, so that it also acts; none without probes.

    They are widths, so none are shown to an agent that decides on pruning rates.
    """
    if task.probe_keep is None or action == "pruning_rate":
        return 0
    return min(GUESSES, episodes // 2)


class Demonstrations:
    """Actions that make given plans, episode after episode; the rest is the agent's.

    Args:
        env: The environment, whose task knows how far the loss rises with each unit; without that nothing is shown.
        episodes: How many the search has.
    """

    def __init__(self, env: PruningEnv, episodes: int) -> None:
        self.env = env
        self.episodes = episodes
        self._plans: list[IntArray] | None = None

    def __len__(self) -> int:
        return how_many(self.env.task, self.episodes, self.env.action)

    def action(self, episode: int) -> FloatArray | None:
        """The action for the unit that the environment is at; None in an episode that is the agent's."""
        if episode >= len(self):
            return None
        if self._plans is None:
            self._plans = guesses(self.env.task)
        return self.env.action_for(int(self._plans[episode][self.env.number]))
