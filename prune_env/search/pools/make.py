"""Makes the pool that the settings name."""

from prune_env.config import RunConfig
from prune_env.env.problem import PruningProblem
from prune_env.search.pools.base import Pool
from prune_env.search.pools.here import Here
from prune_env.search.pools.processes import Processes, usable_processors


def make_pool(problem: PruningProblem, config: RunConfig) -> Pool:
    """The pool of ``search.workers``, to be closed by the caller.

    Raises:
        ConfigError: If a part of the problem cannot be sent to a worker.
    """
    workers = worker_count(config)
    return Processes(problem, workers) if workers > 1 else Here(problem)


def worker_count(config: RunConfig) -> int:
    """How many workers ``search.workers`` asks for; ``auto`` is one for each processor."""
    workers = config.search.workers
    return usable_processors() if workers == "auto" else workers


def idle_words(config: RunConfig, independent: float) -> str | None:
    """A remark if the lag leaves workers idle, in words; None if it does not.

    Args:
        config: The run's settings.
        independent: `Search.independent`.
    """
    workers, lag = worker_count(config), config.search.lag
    if workers <= lag or independent >= config.search.evaluations:
        return None
    return (
        f"search.workers: {workers} with search.lag: {lag}: {workers - lag} of the workers are idle except for probes "
        f"and plans that depend on no outcome. Give search.lag={workers} to use them all (it changes the result), or "
        f"search.workers={lag}."
    )
