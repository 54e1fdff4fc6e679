"""Pools: where plans are measured. In this process, in processes of this machine, or on a cluster."""

from prune_env.search.pools.base import Arrival, Order, Pool

__all__ = ["Arrival", "Order", "Pool"]
