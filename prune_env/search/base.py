"""What a search is: whatever proposes plans for a problem, one trial after the other."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

from prune_env.config import RunConfig
from prune_env.env.problem import PruningProblem
from prune_env.search.policy import Policy

HasBudget = Callable[[], bool]
"""Whether another trial may be made."""


class Search(ABC):
    """Proposes plans and learns from what they turn out to be worth.

    A search is made of a problem and a configuration. It is a function of these and of the outcomes that it sees: an
    interrupted one is resumed by showing it the same outcomes again.

    Args:
        problem: What plans are proposed for.
        config: The run's settings.

    Attributes:
        probes: Whether it looks at how far the loss rises with each unit; one trial a unit.
        needs_probes: Whether it cannot work without them.
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
            problem: What plans are proposed for.
            config: The run's settings.
            episodes: How many plans the search may propose.

        Raises:
            ConfigError: Names the setting.
        """

    @abstractmethod
    def run(self, has_budget: HasBudget) -> None:
        """Tries plans by `PruningProblem.attempt`, under its configured name, until the budget is spent or it is done.

        Args:
            has_budget: Asked before each trial after the probes.
        """

    @property
    def policy(self) -> Policy | None:
        """The policy learned so far; None for a search that learns none that can be replayed."""
        return None

    @property
    def scalars(self) -> Mapping[str, float]:
        """What is worth a curve besides the plans: exploration, losses; by TensorBoard tag."""
        return {}
