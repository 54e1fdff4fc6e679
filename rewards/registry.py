"""Rewards by name: the library's, and the user's own as ``package.module:callable``."""

import inspect
import math
import numbers
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from prune_env.rewards.errors import RewardError, suggest
from prune_env.rewards.imported import import_callable, with_settings
from prune_env.rewards.outcome import Outcome
from prune_env.rewards.settings import Setting, check_settings

Reward = Callable[[Outcome, Outcome], float]
"""(outcome of the plan, outcome of the dense network) -> a finite number; higher is better."""

Factory = Callable[..., Reward]


@dataclass(frozen=True)
class _Entry:
    factory: Factory
    settings: dict[str, Setting]
    needs_latency: bool
    ranks_as_quality: bool
    rises_with_quality: bool

    @property
    def required(self) -> set[str]:
        parameters = inspect.signature(self.factory).parameters.values()
        return {parameter.name for parameter in parameters if parameter.default is parameter.empty}


@dataclass(frozen=True)
class _Checked:
    """A reward with checked values, so that a broken reward stops the search instead of misleading it."""

    name: str
    reward: Reward
    needs_latency: bool
    ranks_as_quality: bool
    rises_with_quality: bool

    def __call__(self, outcome: Outcome, baseline: Outcome) -> float:
        value: object = self.reward(outcome, baseline)
        if not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise RewardError(
                f"reward {self.name!r} returned {value!r} ({type(value).__name__}) for {outcome}; "
                "a reward must return a finite number, for example a Python float"
            )
        return float(value)


_REWARDS: dict[str, _Entry] = {}


def register(
    name: str,
    *,
    needs_latency: bool = False,
    ranks_as_quality: bool = False,
    rises_with_quality: bool = False,
    **settings: Setting,
) -> Callable[[Factory], Factory]:
    """Registers a factory of rewards under a name.

    Args:
        name: The name that configs use.
        needs_latency: Whether the rewards use the latency, which is measured only if a budget or reward needs it.
        ranks_as_quality: Whether the rewards order plans by quality alone, whatever their costs.
        rises_with_quality: Whether the rewards ignore the loss and never fall when the quality rises. Racing needs it.
        **settings: The allowed values of the factory's keyword arguments. Arguments without a default are required.

    Returns:
        A decorator that returns the factory unchanged.

    Raises:
        ValueError: If the name is taken.
    """

    def add(factory: Factory) -> Factory:
        if name in _REWARDS:
            raise ValueError(f"a reward named {name!r} is registered already; choose another name")
        _REWARDS[name] = _Entry(factory, settings, needs_latency, ranks_as_quality, rises_with_quality)
        return factory

    return add


@contextmanager
def restored() -> Iterator[None]:
    """Forgets at the end what was registered within, for tests."""
    before = dict(_REWARDS)
    try:
        yield
    finally:
        _REWARDS.clear()
        _REWARDS.update(before)


def reward_names() -> tuple[str, ...]:
    """The registered names, sorted."""
    return tuple(sorted(_REWARDS))


def reward_summaries() -> dict[str, str]:
    """The first line of each registered reward's docstring, by name; empty without a docstring."""
    return {name: (inspect.getdoc(_REWARDS[name].factory) or "").partition("\n")[0] for name in reward_names()}


def needs_latency(reward: Reward) -> bool:
    """Whether a reward uses the latency: its attribute ``needs_latency``."""
    return bool(getattr(reward, "needs_latency", False))


def ranks_as_quality(reward: Reward) -> bool:
    """Whether a reward orders plans by quality alone: its attribute ``ranks_as_quality``.

    A search may then use the loss instead, which separates more plans.
    """
    return bool(getattr(reward, "ranks_as_quality", False))


def rises_with_quality(reward: Reward) -> bool:
    """Whether a reward ignores the loss and never falls when the quality rises: its attribute ``rises_with_quality``.

    Racing then knows the best reward that a plan can still reach.
    """
    return bool(getattr(reward, "rises_with_quality", False))


def make_reward(name: str, settings: Mapping[str, float] = {}) -> Reward:
    """Makes the reward with this name.

    Args:
        name: A registered name, or ``package.module:callable``, where the callable is the reward itself. The callable
            may have the attributes ``needs_latency``, ``ranks_as_quality`` and ``rises_with_quality``, as the arguments
            of `register`.
        settings: Numbers for the reward; a user's callable receives them as keyword arguments.

    Returns:
        A function (outcome, baseline) -> float. It raises RewardError if the value is not a finite number.

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
    if name in _REWARDS:
        return _registered(name, _REWARDS[name], settings)
    if ":" in name:
        return _imported(name, settings)
    raise RewardError(
        f"reward.name: there is no reward {name!r}; {suggest(name, _REWARDS)}; or package.module:callable for your own."
    )


def _registered(name: str, entry: _Entry, settings: Mapping[str, float]) -> Reward:
    check_settings(name, settings, entry.settings, entry.required)
    return _Checked(
        name, entry.factory(**settings), entry.needs_latency, entry.ranks_as_quality, entry.rises_with_quality
    )


def _imported(name: str, settings: Mapping[str, float]) -> Reward:
    """The user's own reward; if the callable is a registered factory, its registration counts."""
    imported = import_callable(name)
    for entry in _REWARDS.values():
        if entry.factory is imported:
            return _registered(name, entry, settings)
    return own_reward(name, imported, settings)


def own_reward(name: str, reward: Reward, settings: Mapping[str, float] = {}) -> Reward:
    """Makes a reward from a function, as `make_reward` does from a name.

    Args:
        name: The reward's name, for messages.
        reward: A function (outcome, baseline) -> float that takes the settings as keyword arguments.
        settings: Numbers for the reward.

    Raises:
        RewardError: If the function does not take the settings.
    """
    taken = with_settings(name, reward, settings)
    return _Checked(name, taken, needs_latency(reward), ranks_as_quality(reward), rises_with_quality(reward))
