"""Rewards by name: those of the library, and any ``package.module:callable`` of the user's."""

import inspect
import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rewards.errors import RewardError, suggest
from rewards.imported import import_reward
from rewards.outcome import Outcome
from rewards.settings import Setting, check_settings

Reward = Callable[[Outcome, Outcome], float]
"""(outcome of the plan, outcome of the dense network) -> a finite number; more is better."""

Factory = Callable[..., Reward]


@dataclass(frozen=True)
class _Entry:
    factory: Factory
    settings: dict[str, Setting]

    @property
    def required(self) -> set[str]:
        parameters = inspect.signature(self.factory).parameters.values()
        return {parameter.name for parameter in parameters if parameter.default is parameter.empty}


@dataclass(frozen=True)
class _Checked:
    """A reward whose values are checked, so that a broken one stops the search and does not mislead it."""

    name: str
    reward: Reward

    def __call__(self, outcome: Outcome, baseline: Outcome) -> float:
        value: object = self.reward(outcome, baseline)
        if not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise RewardError(
                f"reward {self.name!r} returned {value!r} ({type(value).__name__}) for {outcome}; "
                "a reward must return a finite number, for example a Python float"
            )
        return float(value)


_REWARDS: dict[str, _Entry] = {}


def register(name: str, **settings: Setting) -> Callable[[Factory], Factory]:
    """Makes a factory of rewards known by name.

    Args:
        name: The name that configs use.
        **settings: What each keyword argument of the factory may be. Those without a default are required.

    Returns:
        A decorator that leaves the factory as it is.
    """

    def add(factory: Factory) -> Factory:
        if name in _REWARDS:
            raise ValueError(f"a reward named {name!r} is registered already")
        _REWARDS[name] = _Entry(factory, settings)
        return factory

    return add


def reward_names() -> tuple[str, ...]:
    """The registered names, sorted."""
    return tuple(sorted(_REWARDS))


def make_reward(name: str, settings: Mapping[str, float] = {}) -> Reward:
    """The reward of that name.

    Args:
        name: A registered name, or ``package.module:callable``, where the callable is itself the reward.
        settings: Numbers for the reward; a user's callable is given them as keyword arguments.

    Returns:
        A function (outcome, baseline) -> float. It raises RewardError where the value is not a finite number.

    Raises:
        RewardError: The name is unknown; a setting is unknown, missing or out of range; or the user's
            callable cannot be imported or called.

    Example:
        >>> from rewards import Outcome, make_reward
        >>> dense = Outcome(quality=0.9, loss=0.3, macs=1000, params=100)
        >>> pruned = Outcome(quality=0.875, loss=0.4, macs=500, params=60)
        >>> make_reward("error")(pruned, dense)
        -0.125
        >>> make_reward("accuracy_guaranteed", {"drop": 0.05})(pruned, dense)
        0.5
    """
    if ":" in name:
        return _Checked(name, import_reward(name, settings))
    if name not in _REWARDS:
        raise RewardError(
            f"unknown reward {name!r}; {suggest(name, _REWARDS)}; "
            "a function of your own is named 'package.module:callable'"
        )
    entry = _REWARDS[name]
    check_settings(name, settings, entry.settings, entry.required)
    return _Checked(name, entry.factory(**settings))
