"""Makes the pool that the settings name."""

from prune_env.config import RunConfig
from prune_env.env.problem import PruningProblem
from prune_env.search.pools.base import Pool
from prune_env.search.pools.here import Here


def make_pool(problem: PruningProblem, config: RunConfig) -> Pool:  # noqa: ARG001
    """The pool of ``search.workers`` and ``run.address``, to be closed by the caller."""
    return Here(problem)
