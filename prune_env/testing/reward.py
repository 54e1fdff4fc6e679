"""Whether a reward keeps the promises that searches rely on."""

import math
import numbers
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations, product

from prune_env.common.randomness import global_randomness
from prune_env.rewards import (
    Outcome,
    Reward,
    make_reward,
    needs_latency,
    own_reward,
    ranks_as_quality,
    rises_with_quality,
)
from prune_env.testing.promises import explained, require

DENSE = Outcome(quality=0.9, loss=0.3, macs=1_000_000, params=10_000, latency=0.1)
QUALITIES = (0.0, 0.1, 0.895, 0.9, 1.0)
LOSSES = (0.0, 0.3, 20.0)
KEEPS = (0.001, 0.5, 1.0)


def check_reward(reward: str | Reward, settings: Mapping[str, float] | None = None) -> None:
    """Checks that a reward keeps its promises, on outcomes from the worst to the best; takes no time.

    A reward is a finite number for any outcome, and a function of the two outcomes alone. It looks at the latency only
    where it says ``needs_latency``. Where it says ``ranks_as_quality``, it orders plans as their quality does. Where it
    says ``rises_with_quality``, it ignores the loss and never falls where the quality rises at the same costs.

    Args:
        reward: A registered name, ``package.module:callable``, or the function itself.
        settings: The reward's settings; a function takes them as keyword arguments.

    Raises:
        AssertionError: Says which promise is broken, and for which outcome.
        RewardError: If there is no such reward, or its settings do not fit.

    Example:
        >>> from prune_env.testing import check_reward
        >>> check_reward("budget_penalty", {"keep": 0.5})
        >>> check_reward(lambda outcome, dense: 1.0 / outcome.quality)
        Traceback (most recent call last):
        ...
        AssertionError: reward '<lambda>' fails for Outcome(quality=0.0, ...: ZeroDivisionError: float division by zero
    """
    name = reward if isinstance(reward, str) else getattr(reward, "__qualname__", repr(reward))
    if isinstance(reward, str):
        reward = make_reward(reward, settings or {})
    elif settings:
        reward = own_reward(name, reward, settings)
    _Check(f"reward {name!r}", reward).run()


@dataclass(frozen=True)
class _Check:
    what: str
    reward: Reward

    def run(self) -> None:
        timed = needs_latency(self.reward)
        baseline = DENSE if timed else replace(DENSE, latency=None)
        outcomes = list(_outcomes(timed))
        values = [self._value(outcome, baseline) for outcome in outcomes]
        for outcome, value in reversed(list(zip(outcomes, values, strict=True))):
            again = self._value(outcome, baseline, noise=1)
            require(
                again == value,
                f"{self.what} is {value} for {outcome}, and {again} the second time. It must be a function of the two "
                "outcomes alone.",
            )
        if not timed:
            self._check_latency(outcomes, values)
        if ranks_as_quality(self.reward):
            self._check_order(outcomes, values)
        if rises_with_quality(self.reward):
            self._check_rise(outcomes, values)

    def _check_latency(self, outcomes: list[Outcome], values: list[float]) -> None:
        for outcome, value in zip(outcomes, values, strict=True):
            other = self._value(replace(outcome, latency=0.01), DENSE)
            require(
                other == value,
                f"{self.what} is {value} for {outcome}, and {other} with a latency, which is measured only where "
                "something asks for it. Say needs_latency=True.",
            )

    def _check_order(self, outcomes: list[Outcome], values: list[float]) -> None:
        for (one, its), (other, others) in combinations(zip(outcomes, values, strict=True), 2):
            alike = (one.quality > other.quality) - (one.quality < other.quality) == (its > others) - (its < others)
            require(
                alike,
                f"{self.what} is {its} for {one}, and {others} for {other}, and says ranks_as_quality=True. It must be "
                "greater where the quality is greater, and equal where the quality is equal.",
            )

    def _check_rise(self, outcomes: list[Outcome], values: list[float]) -> None:
        for (one, its), (other, others) in combinations(zip(outcomes, values, strict=True), 2):
            comparable = one.macs == other.macs
            alike = its == others if one.quality == other.quality else (its <= others) == (one.quality < other.quality)
            require(
                not comparable or alike or its == others,
                f"{self.what} is {its} for {one}, and {others} for {other}, and says rises_with_quality=True. It must "
                "ignore the loss, and never fall where the quality rises and the costs are the same.",
            )

    def _value(self, outcome: Outcome, baseline: Outcome, noise: int = 0) -> float:
        """The reward while the global generators are seeded by ``noise``."""
        without = "" if outcome.latency is not None else "; a reward that looks at the latency says needs_latency=True"
        with explained(f"{self.what} fails for {outcome}{without}"), global_randomness(noise):
            value: object = self.reward(outcome, baseline)
        number = isinstance(value, numbers.Real) and math.isfinite(value)
        require(number, f"{self.what} is {value!r} for {outcome}. It must be a finite number.")
        assert isinstance(value, numbers.Real)
        return float(value)


def _outcomes(timed: bool) -> Iterator[Outcome]:
    for quality, loss, keep in product(QUALITIES, LOSSES, KEEPS):
        latency = keep * 0.1 if timed else None
        yield Outcome(quality, loss, max(1, round(keep * DENSE.macs)), max(1, round(keep * DENSE.params)), latency)
