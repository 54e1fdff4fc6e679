"""Makes the pool that the settings name."""

import math

from prune_env.common.words import counted
from prune_env.config import RunConfig
from prune_env.env.problem import PruningProblem
from prune_env.search.pools.base import Pool
from prune_env.search.pools.cluster import Cluster
from prune_env.search.pools.here import Here
from prune_env.search.pools.processes import Processes, usable_processors
from prune_env.search.registry import SEARCHES


def make_pool(problem: PruningProblem, config: RunConfig) -> Pool:
    """The pool of ``run.address`` and ``search.workers``, to be closed by the caller.

    Raises:
        ConfigError: If a part of the problem cannot be sent to a worker, or there is no cluster at the address.
    """
    workers, address = worker_count(config), config.run.address
    if address is not None:
        return Cluster(problem, address, None if config.search.workers == "auto" else workers)
    return Processes(problem, workers) if workers > 1 else Here(problem)


def worker_count(config: RunConfig) -> int:
    """How many workers ``search.workers`` asks for; ``auto`` is one for each processor."""
    workers = config.search.workers
    return usable_processors() if workers == "auto" else workers


def idle_words(config: RunConfig) -> str | None:
    """A remark if the lag leaves workers idle, in words; None if it does not."""
    workers, lag = worker_count(config), config.search.lag
    # A search whose proposals are all independent says so on its class.
    independent = SEARCHES.find(config.agent.name).independent
    if workers <= lag or (isinstance(independent, float) and math.isinf(independent)):
        return None
    idle = f"{counted(workers - lag, 'worker')} {'is' if workers - lag == 1 else 'are'} idle"
    return (
        f"search.workers: {workers} with search.lag: {lag}: {idle} except for probes and plans that depend on no "
        f"outcome. Give search.lag={workers} to use them all (it changes the result), or search.workers={lag}."
    )
