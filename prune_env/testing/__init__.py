"""Checks of one's own values: one call says whether a value keeps the promises of its protocol, or which it breaks."""

from prune_env.testing.criterion import check_criterion
from prune_env.testing.reward import check_reward
from prune_env.testing.search import check_search

__all__ = ["check_criterion", "check_reward", "check_search"]
