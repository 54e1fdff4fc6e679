"""The registry of searches (``agent.name``), and the checks before a search starts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prune_env.common.errors import ConfigError
from prune_env.common.registry import Registry
from prune_env.config import RunConfig
from prune_env.env.problem import PruningProblem
from prune_env.search.base import Search
from prune_env.search.policy import load_plan_or_policy, load_policy


def as_search(name: str, value: Any) -> type[Search]:
    """Checks that a user's own object is a search.

    Raises:
        ConfigError: If the object is not a subclass of `Search`, or has no ``ask``.
    """
    if not isinstance(value, type) or not issubclass(value, Search):
        raise ConfigError(f"agent.name: search {name!r} must be a class derived from prune_env.search.Search.")
    if value.ask is Search.ask:
        raise ConfigError(
            f"agent.name: search {name!r} has {'run() but ' if hasattr(value, 'run') else ''}no ask(). Return each "
            "plan from ask() as a prune_env.search.Proposal, and take its outcome in tell(proposal, trial)."
        )
    return value


SEARCHES: Registry[type[Search]] = Registry("agent or search", "agent.name", adopt=as_search, home="prune_env.agents")
"""All searches by name."""


def register_search(name: str) -> Callable[[type[Search]], type[Search]]:
    """Registers a search under a name.

    Raises:
        ValueError: If the name is taken.
    """
    return SEARCHES.register(name)


def check_named_search(config: RunConfig) -> None:
    """Refuses a search that does not exist or cannot work, before any time is spent.

    Raises:
        ConfigError: If no search has this name, if the search needs probes and they are switched off, or if it needs a
            policy or takes none.
        UserError: If the policy cannot be read.
    """
    name, policy = config.agent.name, config.agent.policy
    search = SEARCHES.find(name)
    if policy is not None and not search.takes_policy:
        takers = ", ".join(each for each in SEARCHES if SEARCHES.find(each).takes_policy)
        raise ConfigError(
            f"agent.policy: {policy} given, but the search {name!r} starts from no policy. Give agent.policy=null, or "
            f"one of these searches as agent.name: {takers}."
        )
    if policy is None and search.needs_policy:
        raise ConfigError(
            f"agent.policy: null given, but the search {name!r} replays a policy. Give the path of a "
            "policy.safetensors or of a plan.json."
        )
    if policy is not None:
        # What only replays takes a plan, too. The file is checked against the problem later.
        (load_plan_or_policy if search.needs_policy else load_policy)(Path(policy))
    if search.needs_probes and config.sensitivity.probe_keep is None:
        raise ConfigError(
            f"sensitivity.probe_keep: null given, but the search {name!r} needs probes. Give a keep ratio in (0, 1], "
            "such as 0.25, or choose another search."
        )


def check_evaluations(problem: PruningProblem, config: RunConfig) -> None:
    """Refuses too few evaluations: some must be left after the search's probes, demonstrations and warm-up.

    Raises:
        ConfigError: If the evaluations do not suffice; names the setting.
    """
    search = SEARCHES.find(config.agent.name)
    probes = problem.probes if search.probes else 0
    given, episodes = config.search.evaluations, config.search.evaluations - probes
    if episodes < 1:
        without = "" if search.needs_probes else ", or set sensitivity.probe_keep to null"
        raise ConfigError(
            f"search.evaluations: {given} given, but the evidence alone takes {probes}, one probe for each free unit. "
            f"Give more than {probes}{without}."
        )
    search.check(problem, config, config.search.scheduled - probes)
