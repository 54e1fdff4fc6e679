"""Racing: a plan that can no longer become the best is not looked at to the end (Maron and Moore, NeurIPS 1993).

What is left of the reward set is bounded by the hypergeometric distribution, exactly, since the images come in random
order and without replacement [our choice; Maron and Moore use Hoeffding's bound]. So the task's quality must be the
share of images that are right (`Metric.counts`).
"""

from dataclasses import dataclass

from scipy.stats import hypergeom

from prune_env.evaluation.measuring import StopEarly
from rewards import Outcome, Reward

CONFIDENCE = 0.99
"""A plan that is given up would not have been the best, with this probability at least."""


@dataclass(frozen=True)
class Race:
    """Whether a plan may still beat the best one so far.

    Attributes:
        reward: What an outcome is worth; must not fall where quality rises, nor look at the loss.
        baseline: The dense network's outcome.
        images: Size of the reward set.
        looks: How many times a plan is looked at before the end.
    """

    reward: Reward
    baseline: Outcome
    images: int
    looks: int

    def against(self, best: float, macs: int, params: int, latency: float | None = None) -> StopEarly:
        """What says when to leave a network of this cost, given the best reward so far."""
        needed = self.needed(best, macs, params, latency)
        return lambda correct, seen: self.is_lost(needed, correct, seen)

    def needed(self, best: float, macs: int, params: int, latency: float | None = None) -> int:
        """How many images a network of this cost must get right to beat the best; one more than all if it cannot."""
        low, high = 0, self.images + 1
        while low < high:
            middle = (low + high) // 2
            if (
                self.reward(Outcome(middle / self.images, self.baseline.loss, macs, params, latency), self.baseline)
                > best
            ):
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
