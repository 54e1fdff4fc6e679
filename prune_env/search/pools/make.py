"""Makes the pool that the settings name."""

import math

from prune_env.common.words import counted
from prune_env.config import RunConfig
from prune_env.env.problem import PruningProblem
from prune_env.search.pools.base import Pool
from prune_env.search.pools.cluster import Cluster
from prune_env.search.pools.connection import check_address
from prune_env.search.pools.here import Here
from prune_env.search.pools.processes import Processes, usable_processors
from prune_env.search.pools.worker import Bench
from prune_env.search.registry import SEARCHES


def make_pool(problem: PruningProblem, config: RunConfig) -> Pool:
    """The pool of ``run.address`` and ``search.workers``, to be closed by the caller.

    Raises:
        ConfigError: If a part of the problem cannot be sent to a worker, or there is no cluster at the address.
    """
    workers, address = worker_count(config), config.run.address
    if address is not None:
        return Cluster(problem, address, workers)
    assert workers is not None
    return Processes(problem, workers) if workers > 1 else Here(problem)


def check_workers(config: RunConfig) -> None:
    """Refuses a cluster that is not there, before any time is spent.

    Raises:
        ConfigError: If Ray is not installed, or there is no cluster at ``run.address``.
    """
    if config.run.address is not None:
        check_address(config.run.address)


def check_sendable(problem: PruningProblem, config: RunConfig) -> None:
    """Refuses a problem that cannot be sent to the workers, before a run is made.

    Raises:
        ConfigError: Names the part that cannot be sent.
    """
    if config.run.address is not None or worker_count(config) != 1:
        Bench.of(problem).packed()


def worker_count(config: RunConfig) -> int | None:
    """How many workers ``search.workers`` asks for; None for as many as a cluster has room for."""
    workers, address = config.search.workers, config.run.address
    if workers == "auto":
        return usable_processors() if address is None else None
    return workers


def idle_words(config: RunConfig) -> str | None:
    """A remark if the lag leaves workers idle, in words; None if it does not, or if their number is not known yet."""
    workers, lag = worker_count(config), config.search.lag
    # A search whose proposals are all independent says so on its class.
    independent = SEARCHES.find(config.agent.name).independent
    if workers is None or workers <= lag or (isinstance(independent, float) and math.isinf(independent)):
        return None
    idle = f"{counted(workers - lag, 'worker')} {'is' if workers - lag == 1 else 'are'} idle"
    return (
        f"search.workers: {workers} with search.lag: {lag}: {idle} except for probes and plans that depend on no "
        f"outcome. Give search.lag={workers} to use them all (it changes the result), or search.workers={lag}."
    )
