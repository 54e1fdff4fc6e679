"""One threshold for the whole network: what is stronger stays (the rule of DTC, Li et al., AI Communications 2023)."""

from collections.abc import Sequence

import numpy as np

from prune_env.common.errors import ConfigError
from prune_env.config import RunConfig
from prune_env.env.problem import PruningProblem
from prune_env.granularity import PlanBuilder
from prune_env.search import Proposal, Search
from prune_env.search.registry import register_search

HIGHEST = 1e4
"""Above any strength relative to a layer's mean."""

HALVINGS = 60


@register_search("thresholds")
class Thresholds(Search):
    """Keeps what is above one threshold, the lowest with which the plan meets the budget: one plan.

    In the published method the threshold is given and the cost follows; the bisection to a budget is our choice.
    """

    @classmethod
    def check(cls, problem: PruningProblem, config: RunConfig, episodes: int) -> None:  # noqa: ARG003
        """Refuses a granularity or a criterion without strengths.

        Raises:
            ConfigError: Names the setting.
        """
        if problem.granularity.shares_above(1.0) is None:
            raise ConfigError(
                "agent.name: thresholds needs strengths of 0 or more, which "
                f"granularity.name={problem.granularity.name} with criterion.name={config.criterion.name} does not "
                "give. Give granularity.name=stripe, or channel with a criterion of norms, such as l1."
            )

    independent = 1

    def __init__(self, problem: PruningProblem, config: RunConfig) -> None:
        super().__init__(problem, config)
        self._asked = False

    def ask(self) -> Proposal | None:
        """Finds the threshold, once."""
        if self._asked:
            return None
        self._asked = True
        shares = shares_above(self.problem, lowest_threshold(self.problem))
        return Proposal(numbers=np.array(shares)[:, None])


def lowest_threshold(problem: PruningProblem) -> float:
    """The lowest threshold whose plan meets the budget; `HIGHEST` if no threshold does."""
    unlimited = problem.budget.unlimited()

    def fits(threshold: float) -> bool:
        return decided(problem.granularity.builder(unlimited), shares_above(problem, threshold)).within(problem.budget)

    low, high = 0.0, HIGHEST
    if fits(low):
        return low
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5 if low > 0 else high / 10.0
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def shares_above(problem: PruningProblem, threshold: float) -> Sequence[float]:
    """The share of each free unit above a threshold."""
    shares = problem.granularity.shares_above(threshold)
    assert shares is not None
    return [float(share) for share in shares]


def decided(builder: PlanBuilder, shares: Sequence[float]) -> PlanBuilder:
    """The builder after it has decided every unit by its share."""
    for share in shares:
        builder.decide([share])
    return builder
