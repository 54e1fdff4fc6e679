"""Plans that an agent is shown before it acts: the uniform one, and some that follow the units' sensitivity."""

from collections.abc import Sequence

from agents.rules import power_widths
from prune_env.env import PruningEnv
from prune_env.unit import IntArray


class Demonstrations:
    """Actions that make given plans, episode after episode; the rest is the agent's.

    Args:
        env: The environment, whose task knows how far the loss rises with each unit; without that nothing is shown.
        exponents: One plan by `power_widths` for each, after the uniform one; none shows nothing.
    """

    def __init__(self, env: PruningEnv, exponents: Sequence[float]) -> None:
        self.env = env
        self.exponents = tuple(exponents) if env.task.probe_keep is not None else ()
        self._shown: dict[int, IntArray] = {}

    def __len__(self) -> int:
        return 1 + len(self.exponents) if self.exponents else 0

    def action(self, episode: int) -> float | None:
        """The action for the unit that the environment is at; None in an episode that is the agent's."""
        if episode >= len(self):
            return None
        if episode not in self._shown:
            task = self.env.task
            self._shown[episode] = power_widths(task, self.exponents[episode - 1] if episode else 0.0)
        return self.env.action_for(int(self._shown[episode][self.env.number]))
