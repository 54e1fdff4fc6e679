"""The base class of searches: a search is asked for plans and told their outcomes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from prune_env.config import RunConfig
from prune_env.env.problem import PruningProblem
from prune_env.env.proposal import Proposal
from prune_env.env.trial import Trial
from prune_env.search.policy import Policy


class Search(ABC):
    """Proposes plans and learns from their outcomes.

    The loop calls `ask` and `tell`, both in the order of the proposals. Proposal i is asked for when exactly the
    outcomes 0 .. i - ``search.lag`` have been told, however many workers measure the plans and whichever is first.
    With a lag of 1, each outcome is told before the next proposal.

    A search must depend only on the problem, the configuration and what it is told: then an interrupted search is
    resumed by telling it the recorded outcomes, and any number of workers gives the same plans.

    Args:
        problem: The problem to propose plans for. The search tries no plan by itself.
        config: The run's settings.

    Attributes:
        probes: Whether the search uses probes, which measure the rise of the loss with each unit; one trial per unit.
            They are measured before the first `ask`.
        needs_probes: Whether the search cannot work without probes.
        takes_policy: Whether the search reads ``agent.policy``.
        needs_policy: Whether the search cannot work without ``agent.policy``.
        rivals: Names of searches by rules whose best plans stand beside the result, besides the uniform plan.
    """

    probes: ClassVar[bool] = False
    needs_probes: ClassVar[bool] = False
    takes_policy: ClassVar[bool] = False
    needs_policy: ClassVar[bool] = False
    rivals: ClassVar[tuple[str, ...]] = ()

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

    @property
    def independent(self) -> float:
        """How many proposals, counted from the first, depend on no outcome; ``math.inf`` for all.

        They are measured at once, whatever the lag. All of them are told before the first proposal that depends.
        """
        return 0

    @abstractmethod
    def ask(self) -> Proposal | None:
        """The next proposal; None if nothing is left to propose."""

    def tell(self, proposal: Proposal, trial: Trial) -> None:  # noqa: B027  (a rule learns nothing)
        """Learns from the outcome of a proposal.

        The outcome of the last evaluation is not told: no proposal follows that could depend on it.

        Args:
            proposal: What `ask` returned.
            trial: The plan, its outcome and its reward.
        """

    @property
    def policy(self) -> Policy | None:
        """The policy learned so far; None if the search learns no policy that can be replayed."""
        return None

    @property
    def scalars(self) -> Mapping[str, float]:
        """Further values to plot, such as exploration and losses, by TensorBoard tag."""
        return {}
