"""Plans that an agent is shown before it acts: the uniform one, and those by rule from what the probes have shown."""

from agents.rules import EXPONENTS, POWERS, greedy_widths, power_widths
from prune_env.env import PruningEnv
from prune_env.task import PruningTask
from prune_env.unit import IntArray


class Demonstrations:
    """Actions that make given plans, episode after episode; the rest is the agent's.

    Args:
        env: The environment, whose task knows how far the loss rises with each unit; without that nothing is shown.
    """

    def __init__(self, env: PruningEnv) -> None:
        self.env = env
        self._plans: list[IntArray] | None = None

    def __len__(self) -> int:
        return 1 + len(POWERS) + len(EXPONENTS) if self.env.task.probe_keep is not None else 0

    def action(self, episode: int) -> float | None:
        """The action for the unit that the environment is at; None in an episode that is the agent's."""
        if episode >= len(self):
            return None
        if self._plans is None:
            self._plans = _plans(self.env.task)
        return self.env.action_for(int(self._plans[episode][self.env.number]))


def _plans(task: PruningTask) -> list[IntArray]:
    """The best guesses first: they are what a short search ends with."""
    greedy = [greedy_widths(task, power) for power in POWERS]
    power = [power_widths(task, exponent) for exponent in EXPONENTS]
    return [*greedy, *power, task.budget.uniform()]
