"""The search space: what a search decides on one network, before any plan is measured."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from prune_env.budget import Budget
from prune_env.budget.latency_model import LatencyModel
from prune_env.config import RunConfig
from prune_env.criteria import ScoringContext
from prune_env.granularity import Granularity
from prune_env.protection.sensitivity import SensitivityReport
from prune_env.rewards import Reward
from prune_env.walk import LayerWalk, Scores


class ScoresOnDemand(Mapping[str, npt.NDArray[np.float64]]):
    """Scores that are computed when the first of them is read, so that nothing is computed for a reader of none.

    Args:
        compute: Returns one score per channel of each unit; called once at most.
    """

    def __init__(self, compute: Callable[[], Scores]) -> None:
        self._compute = compute

    @cached_property
    def _scores(self) -> Scores:
        return self._compute()

    def __getitem__(self, unit: str) -> npt.NDArray[np.float64]:
        return self._scores[unit]

    def __iter__(self) -> Iterator[str]:
        return iter(self._scores)

    def __len__(self) -> int:
        return len(self._scores)

    def __reduce__(self) -> tuple[object, ...]:
        """Sends the scores to another process, not what computes them."""
        return dict, (dict(self._scores),)


@dataclass(frozen=True)
class SearchSpace:
    """A network with a budget: its free units, and how numbers become plans.

    Attributes:
        config: The run's settings; layout and threads are given where times were measured.
        walk: The network's walk, sensitive units protected.
        budget: The cost that a plan may have.
        granularity: The granularity, prepared for the network.
        scores: One score per channel of each unit, computed when they are read.
        context: The network and the images, as criteria receive them.
        reward: Computes the reward of an outcome.
        report: The evidence for the sensitive layers; None if ``sensitivity.enabled`` is off.
        latency: The formula that computes latency from the widths; None if neither budget nor reward needs it.
    """

    config: RunConfig
    walk: LayerWalk
    budget: Budget
    granularity: Granularity
    scores: Scores
    context: ScoringContext
    reward: Reward
    report: SensitivityReport | None
    latency: LatencyModel | None
