"""The base class of searches: a search proposes plans for a problem, one trial after the other."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

from prune_env.config import RunConfig
from prune_env.env.problem import PruningProblem
from prune_env.search.policy import Policy

HasBudget = Callable[[], bool]
"""Returns whether another trial is allowed."""


class Search(ABC):
    """Proposes plans and learns from their outcomes.

    A search must depend only on the problem, the configuration and the outcomes of its trials: an interrupted search is
    resumed by replaying the recorded outcomes.

    Args:
        problem: The problem to propose plans for.
        config: The run's settings.

    Attributes:
        probes: Whether the search uses probes, which measure the rise of the loss with each unit; one trial per unit.
        needs_probes: Whether the search cannot work without probes.
    """

    probes: ClassVar[bool] = False
    needs_probes: ClassVar[bool] = False

    def __init__(self, problem: PruningProblem, config: RunConfig) -> None:
        self.problem = problem
        self.config = config

    @classmethod  # noqa: B027  (nothing to check is the usual case)
    def check(cls, problem: PruningProblem, config: RunConfig, episodes: int) -> None:
        """Refuses settings with which the search cannot work, before any time is spent.

        Args:
            problem: The problem to propose plans for.
            config: The run's settings.
            episodes: How many plans the search may propose.

        Raises:
            ConfigError: Names the setting.
        """

    @abstractmethod
    def run(self, has_budget: HasBudget) -> None:
        """Tries plans with `PruningProblem.attempt` under the configured name, until budget or plans run out.

        Args:
            has_budget: Asked before each trial after the probes.
        """

    @property
    def policy(self) -> Policy | None:
        """The policy learned so far; None if the search learns no policy that can be replayed."""
        return None

    @property
    def scalars(self) -> Mapping[str, float]:
        """Further values to plot, such as exploration and losses, by TensorBoard tag."""
        return {}
