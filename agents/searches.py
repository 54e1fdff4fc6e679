"""All searches by the name that ``agent.name`` takes."""

from collections.abc import Mapping
from types import MappingProxyType

from agents.baselines import EigenvalueRule, Greedy, PowerRule, Random, Uniform
from agents.demonstrations import demonstration_count
from agents.learners import DdpgSearch, PpoSearch, SacSearch, Td3Search
from agents.optimisers import CmaEs, CmaFromRules, Tpe
from prune_env.common.errors import ConfigError, suggest
from prune_env.config import RunConfig
from prune_env.env.problem import PruningProblem
from prune_env.search.base import Search

SEARCHES: Mapping[str, type[Search]] = MappingProxyType(
    {
        "uniform": Uniform,
        "random": Random,
        "greedy": Greedy,
        "power": PowerRule,
        "eigenvalue": EigenvalueRule,
        "cma": CmaEs,
        "cma_from_rules": CmaFromRules,
        "tpe": Tpe,
        "ddpg": DdpgSearch,
        "td3": Td3Search,
        "sac": SacSearch,
        "ppo": PpoSearch,
    }
)
"""The simple ones first, then the optimisers, then the learners."""


def check_search(config: RunConfig) -> None:
    """Refuses a search that does not exist or cannot work, before any time is spent.

    Raises:
        ConfigError: If there is no such search, or what it needs is switched off.
    """
    name = config.agent.name
    if name not in SEARCHES:
        raise ConfigError(f"agent.name: there is no agent or search {name!r}; {suggest(name, list(SEARCHES))}.")
    if name in ("greedy", "power", "cma_from_rules") and config.sensitivity.probe_keep is None:
        raise ConfigError(
            f"sensitivity.probe_keep: null given, but the search {name!r} goes by probes. Give a keep ratio in (0, 1), "
            "such as 0.25, or choose another search."
        )


def check_evaluations(problem: PruningProblem, config: RunConfig) -> None:
    """Refuses a search that its own probes, or the warm-up given to its agent, would use up.

    Raises:
        ConfigError: If the evaluations do not suffice.
    """
    probes = problem.probes if SEARCHES[config.agent.name].probes else 0
    given, episodes = config.search.evaluations, config.search.evaluations - probes
    if episodes < 1:
        raise ConfigError(
            f"search.evaluations: {given} given, but the evidence alone takes {probes}, one for each free unit. "
            "Give more, or set sensitivity.probe_keep to null."
        )
    agent, granularity = config.agent.with_preset(), problem.granularity.with_action(config.granularity.action)
    warmup = agent.warmup_episodes if agent.name in ("ddpg", "td3", "sac") else None
    shows = agent.name != "sac" and agent.demonstrations
    left = episodes - (demonstration_count(problem, granularity, episodes) if shows else 0)
    if warmup is not None and warmup >= left:
        raise ConfigError(
            f"agent.warmup_episodes: {warmup} given, but there are only {left} episodes for it, so that the agent "
            "would never act. Give fewer, or raise search.evaluations."
        )
