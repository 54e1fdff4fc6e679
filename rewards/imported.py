"""A reward of the user's own, named ``package.module:callable``."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rewards.errors import RewardError


def import_callable(name: str) -> Callable[..., Any]:
    """Imports ``package.module:callable``.

    ``prune_env.common.registry`` has the same few lines: rewards import nothing of ours.

    Raises:
        RewardError: It cannot be imported, or is no callable.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise RewardError(
            f"reward.name: reward {name!r}: write it as package.module:callable, for example mine.rewards:reward"
        )
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:  # a user's module may fail in any way while it is imported
        raise RewardError(
            f"reward.name: reward {name!r}: module {module!r} cannot be imported ({type(error).__name__}: {error}); "
            "install it, or add its folder to PYTHONPATH"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise RewardError(f"reward.name: reward {name!r}: {attribute!r} does not exist in module {module!r}")
        found = getattr(found, part)
    if not callable(found):
        raise RewardError(
            f"reward.name: reward {name!r}: {attribute!r} is of type {type(found).__name__} and is not callable; "
            "name a function (outcome, baseline) -> float"
        )
    imported: Callable[..., Any] = found
    return imported


def with_settings(name: str, reward: Callable[..., float], settings: Mapping[str, float]) -> Callable[..., float]:
    """Gives a reward its settings as keyword arguments.

    Args:
        name: The reward, for messages.
        reward: The callable, itself the reward (outcome, baseline) -> float.
        settings: Keyword arguments for the callable.

    Raises:
        RewardError: It cannot be called with these settings.
    """
    _check_call(name, reward, settings)
    return partial(reward, **settings) if settings else reward


def _check_call(name: str, reward: Callable[..., float], settings: Mapping[str, float]) -> None:
    """Finds a wrong signature before the search starts, not after its first episode."""
    try:
        signature = inspect.signature(reward)
    except (TypeError, ValueError):  # some compiled callables have none to look at
        return
    try:
        signature.bind(None, None, **settings)
    except TypeError as error:
        call = ", ".join(["outcome", "baseline", *(f"{key}={value!r}" for key, value in settings.items())])
        raise RewardError(
            f"reward {name!r} would be called with ({call}), and its signature is {signature}: {error}"
        ) from error
