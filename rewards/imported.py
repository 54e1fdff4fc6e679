"""A reward of the user's own, named ``package.module:callable``."""

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from prune_env.rewards.errors import RewardError


def import_callable(name: str) -> Callable[..., Any]:
    """Imports ``package.module:callable``.

    ``prune_env.common.registry`` has the same lines: rewards import nothing from the library.

    Raises:
        RewardError: The name cannot be imported, or is not a callable.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise RewardError(
            f"reward.name: reward {name!r}: write it as package.module:callable, for example mine.rewards:reward"
        )
    _search_working_directory()
    try:
        imported: Any = importlib.import_module(module)
    except Exception as error:  # importing the user's module may raise anything
        raise RewardError(
            f"reward.name: reward {name!r}: module {module!r} cannot be imported ({type(error).__name__}: {error}); "
            "install it, or add its folder to PYTHONPATH"
        ) from error
    for part in attribute.split("."):
        if not hasattr(imported, part):
            raise RewardError(f"reward.name: reward {name!r}: {attribute!r} does not exist in module {module!r}")
        imported = getattr(imported, part)
    if not callable(imported):
        raise RewardError(
            f"reward.name: reward {name!r}: {attribute!r} is of type {type(imported).__name__} and is not callable; "
            "name a function (outcome, baseline) -> float"
        )
    reward: Callable[..., Any] = imported
    return reward


def _search_working_directory() -> None:
    """As in ``prune_env.common.registry``."""
    with suppress(OSError):
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.append(here)


def with_settings(name: str, reward: Callable[..., float], settings: Mapping[str, float]) -> Callable[..., float]:
    """Binds the settings to a reward as keyword arguments.

    Args:
        name: The reward's name, for messages.
        reward: The reward, a callable (outcome, baseline) -> float.
        settings: Keyword arguments for the reward.

    Raises:
        RewardError: The reward cannot be called with these settings.
    """
    _check_call(name, reward, settings)
    return partial(reward, **settings) if settings else reward


def _check_call(name: str, reward: Callable[..., float], settings: Mapping[str, float]) -> None:
    """Finds a wrong signature before the search starts, not after its first episode."""
    try:
        signature = inspect.signature(reward)
    except (TypeError, ValueError):  # some compiled callables have no signature
        return
    try:
        signature.bind(None, None, **settings)
    except TypeError as error:
        call = ", ".join(["outcome", "baseline", *(f"{key}={value!r}" for key, value in settings.items())])
        raise RewardError(
            f"reward {name!r} would be called with ({call}), but its signature is {signature}: {error}"
        ) from error
