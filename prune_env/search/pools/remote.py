"""A worker on a Ray cluster."""

import os
from typing import Any

from prune_env.common.errors import UserError
from prune_env.rewards import Outcome
from prune_env.search.pools.base import Order
from prune_env.search.pools.worker import Worker, cannot_start

Started = tuple[str, str, Outcome | UserError]
"""An actor's name, its node, and its outcome of the uniform plan, or why it cannot measure."""


class RemoteWorker:
    """The actor: a worker that fetches what it measures with.

    Args:
        bench: A list of one reference to `Bench.packed`.
    """

    def __init__(self, bench: list[Any]) -> None:
        self._bench = bench

    def start(self) -> Started:
        """Prepares the worker, and measures the uniform plan."""
        import ray

        context = ray.get_runtime_context()
        node = context.get_node_id()
        name = f"{str(context.get_actor_id())[:8]} on node {node[:8]}, process {os.getpid()}"
        try:
            self._worker = Worker(ray.get(self._bench[0]))
            return name, node, self._worker.uniform()
        except Exception as error:
            return name, node, cannot_start(name, error)

    def measure(self, order: Order) -> Any:
        """Measures a plan."""
        return self._worker.measure(order)
