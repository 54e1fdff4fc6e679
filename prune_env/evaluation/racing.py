"""Racing: a plan that can no longer become the best is not looked at to the end (Maron and Moore, NeurIPS 1993).

What is left of the reward set is bounded by the hypergeometric distribution, exactly, since the images come in random
order and without replacement [our choice; Maron and Moore use Hoeffding's bound]. So the task's quality must be the
share of images that are right (`Metric.counts`).
"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, Self

from scipy.stats import hypergeom

from prune_env.evaluation.evaluator import Evaluator
from prune_env.evaluation.measuring import StopEarly
from rewards import Outcome, Reward

CONFIDENCE = 0.99
"""A plan that is given up would not have been the best, with this probability at least."""


class RacedTrial(Protocol):
    """What a race hears of a trial."""

    @property
    def proposed_by(self) -> str:
        """Who proposed the plan; those who propose race each for themselves."""

    @property
    def outcome(self) -> Outcome:
        """What was measured."""

    @property
    def reward(self) -> float:
        """What the outcome is worth."""


@dataclass
class Race:
    """Hears trials, and says of the next plan when it can no longer beat the best of whoever proposes it.

    Attributes:
        reward: What an outcome is worth; must not fall where quality rises, nor look at the loss.
        images: Size of the reward set.
        looks: How many times a plan is looked at before the end.
        best: The best reward so far, by who proposed it.
    """

    reward: Reward
    images: int
    looks: int
    best: dict[str, float] = field(default_factory=dict, init=False)

    @classmethod
    def on(cls, evaluator: Evaluator, reward: Reward) -> Self:
        """A race of plans that an evaluator measures: it looks at each after every batch."""
        return cls(reward, evaluator.images, len(evaluator.reward) - 1)

    def again(self, evaluator: Evaluator) -> Self:
        """A new race for another search; the evaluator forgets its plans: what it saw of them the last race decided."""
        evaluator.forget()
        return replace(self)

    def hear(self, trial: RacedTrial) -> None:
        """Takes note of a trial; a reward of a part of the images is no best one."""
        if trial.outcome.complete:
            self.best[trial.proposed_by] = max(trial.reward, self.best.get(trial.proposed_by, trial.reward))

    def rule(self, proposed_by: str, costs: Outcome, baseline: Outcome) -> StopEarly | None:
        """When to leave a plan; None for never.

        Probes are looked at to the end: they are for the loss, and one that cuts little tells nothing of plans.

        Args:
            proposed_by: Who proposes the plan.
            costs: An outcome with the plan's costs, whatever its quality.
            baseline: The dense network's outcome.
        """
        if proposed_by == "probe" or proposed_by not in self.best:
            return None
        return partial(self.is_lost, self.needed(self.best[proposed_by], costs, baseline))

    def needed(self, best: float, costs: Outcome, baseline: Outcome) -> int:
        """How many images a network of this cost must get right to beat the best; one more than all if it cannot."""
        low, high = 0, self.images + 1
        while low < high:
            middle = (low + high) // 2
            if self.reward(replace(costs, quality=middle / self.images), baseline) > best:
                high = middle
            else:
                low = middle + 1
        return low

    def is_lost(self, needed: int, correct: int, seen: int) -> bool:
        """Whether so few images are right that the plan will not get as many right as it needs, with confidence."""
        if needed > self.images:
            return True
        # Several looks are several chances to be wrong.
        tail = (1.0 - CONFIDENCE) / max(1, self.looks)
        return bool(hypergeom.cdf(correct, self.images, needed, seen) < tail)
