"""A reward of the user's own, named ``package.module:callable``."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rewards.errors import RewardError


def import_reward(name: str, settings: Mapping[str, float]) -> Callable[..., float]:
    """Imports a user's reward and gives it its settings as keyword arguments.

    Args:
        name: ``package.module:callable``, the callable being itself the reward (outcome, baseline) -> float.
        settings: Keyword arguments for the callable.

    Returns:
        The callable, with the settings filled in where there are any.

    Raises:
        RewardError: It cannot be imported, is no function, or cannot be called with these settings.
    """
    module_name, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # a user's module may fail in any way while it is imported
        raise RewardError(
            f"reward {name!r} cannot be imported: {type(error).__name__}: {error}; write it as "
            "'package.module:callable', with the module installed or its folder on PYTHONPATH"
        ) from error
    if not callable(found):
        kind = type(found).__name__
        raise RewardError(f"reward {name!r} is of type {kind}; it must be a function (outcome, baseline) -> float")
    _check_call(name, found, settings)
    reward: Callable[..., float] = partial(found, **settings) if settings else found
    return reward


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
