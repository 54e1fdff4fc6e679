"""Searches by the name that ``agent.name`` takes, and what is checked before one starts."""

from collections.abc import Callable
from typing import Any

from prune_env.common.errors import ConfigError
from prune_env.common.registry import Registry
from prune_env.config import RunConfig
from prune_env.env.problem import PruningProblem
from prune_env.search.base import Search


def as_search(name: str, found: Any) -> type[Search]:
    """A search of the user's own.

    Raises:
        ConfigError: If it is no subclass of `Search`.
    """
    if not isinstance(found, type) or not issubclass(found, Search):
        raise ConfigError(f"agent.name: search {name!r} is no class derived from prune_env.search.base.Search.")
    return found


SEARCHES: Registry[type[Search]] = Registry("agent or search", "agent.name", adopt=as_search)
"""Importing the package `agents` fills it."""


def register_search(name: str) -> Callable[[type[Search]], type[Search]]:
    """Makes a search known under a name.

    Raises:
        ValueError: If the name is taken.
    """
    return SEARCHES.register(name)


def check_search(config: RunConfig) -> None:
    """Refuses a search that does not exist or cannot work, before any time is spent.

    Raises:
        ConfigError: If there is no such search, or what it needs is switched off.
    """
    name = config.agent.name
    if SEARCHES.find(name).needs_probes and config.sensitivity.probe_keep is None:
        raise ConfigError(
            f"sensitivity.probe_keep: null given, but the search {name!r} goes by probes. Give a keep ratio in (0, 1), "
            "such as 0.25, or choose another search."
        )


def check_evaluations(problem: PruningProblem, config: RunConfig) -> None:
    """Refuses a search that its own probes, or what it does before it acts, would use up.

    Raises:
        ConfigError: If the evaluations do not suffice.
    """
    search = SEARCHES.find(config.agent.name)
    probes = problem.probes if search.probes else 0
    given, episodes = config.search.evaluations, config.search.evaluations - probes
    if episodes < 1:
        raise ConfigError(
            f"search.evaluations: {given} given, but the evidence alone takes {probes}, one for each free unit. "
            "Give more, or set sensitivity.probe_keep to null."
        )
    search.check(problem, config, episodes)
