"""Racing: stops the evaluation of a plan that can no longer become the best (Maron and Moore, NeurIPS 1993).

The hypergeometric distribution bounds the result on the remaining images exactly, because the images come in random
order and without replacement [our choice; Maron and Moore use Hoeffding's bound]. Therefore the task's quality must be
the share of correct images (`Metric.counts`).
"""

from dataclasses import dataclass, field, replace
from typing import Protocol, Self

from prune_env.evaluation.evaluator import Evaluator
from prune_env.rewards import Outcome, Reward

CONFIDENCE = 0.99
"""Least probability that a stopped plan would not have become the best."""


class RacedTrial(Protocol):
    """The parts of a trial that a race reads."""

    @property
    def proposed_by(self) -> str:
        """Who proposed the plan, such as a search's name or ``probe``; each proposer races only against itself."""

    @property
    def outcome(self) -> Outcome:
        """The plan's outcome."""

    @property
    def reward(self) -> float:
        """The reward of the outcome."""


@dataclass(frozen=True)
class Bound:
    """When to stop measuring a plan: a `StopEarly` of plain numbers, which can be sent to a worker.

    Attributes:
        needed: Correct images that the plan needs; ``images + 1`` if no number suffices.
        images: Size of the reward set.
        looks: How many times the measurement may be stopped before its end.
    """

    needed: int
    images: int
    looks: int

    def __call__(self, correct: int, seen: int) -> bool:
        """Whether the plan will get fewer than `needed` images right, with `CONFIDENCE`."""
        from scipy.stats import hypergeom  # here, because the import takes a second

        if self.needed > self.images:
            return True
        # Divide the error probability among the looks, since each look may be wrong (Bonferroni).
        tail = (1.0 - CONFIDENCE) / max(1, self.looks)
        return bool(hypergeom.cdf(correct, self.images, self.needed, seen) < tail)


@dataclass
class Race:
    """Records trials, and decides when a new plan can no longer beat the best plan of its proposer.

    Attributes:
        reward: The reward function; must not fall as the quality rises, and must not depend on the loss.
        images: Size of the reward set.
        looks: How many times an evaluation may be stopped before its end.
        best: The best reward so far, by proposer.
    """

    reward: Reward
    images: int
    looks: int
    best: dict[str, float] = field(default_factory=dict, init=False)

    @classmethod
    def on(cls, evaluator: Evaluator, reward: Reward) -> Self:
        """Returns a race for the plans of an evaluator, which may stop after every batch."""
        return cls(reward, evaluator.images, len(evaluator.reward) - 1)

    def again(self, evaluator: Evaluator) -> Self:
        """Returns a new race for another search. Clears the evaluator's cache, which depends on the last race."""
        evaluator.forget()
        return replace(self)

    def hear(self, trial: RacedTrial) -> None:
        """Records a trial; ignores rewards that are measured on a part of the reward set."""
        if trial.outcome.complete:
            self.best[trial.proposed_by] = max(trial.reward, self.best.get(trial.proposed_by, trial.reward))

    def rule(self, proposed_by: str, costs: Outcome, baseline: Outcome) -> Bound | None:
        """Returns the rule that stops the evaluation of a plan; None to never stop.

        Probes are never stopped: they measure the loss, and a probe that cuts little is not comparable to a plan.

        Args:
            proposed_by: Who proposes the plan.
            costs: An outcome with the plan's costs; its quality is ignored.
            baseline: The dense network's outcome.
        """
        if proposed_by == "probe" or proposed_by not in self.best:
            return None
        return self.bound(self.needed(self.best[proposed_by], costs, baseline))

    def bound(self, needed: int) -> Bound:
        """Returns the rule that stops the evaluation of a plan that needs this many correct images."""
        return Bound(needed, self.images, self.looks)

    def needed(self, best: float, costs: Outcome, baseline: Outcome) -> int:
        """Returns the least number of correct images that beats the best reward; ``images + 1`` if none does."""
        low, high = 0, self.images + 1
        while low < high:
            middle = (low + high) // 2
            if self.reward(replace(costs, quality=middle / self.images), baseline) > best:
                high = middle
            else:
                low = middle + 1
        return low
