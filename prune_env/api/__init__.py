"""The front door for Python: one function that prunes a network in memory, and its result."""

from prune_env.api.pruning import prune
from prune_env.api.result import PruningResult, ReportPage

__all__ = ["PruningResult", "ReportPage", "prune"]
