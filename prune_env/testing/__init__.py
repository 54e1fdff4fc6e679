"""Checks of one's own values: one call says whether a value keeps the promises of its protocol, or which it breaks."""

from prune_env.testing.criterion import check_criterion
from prune_env.testing.granularity import check_granularity
from prune_env.testing.reward import check_reward
from prune_env.testing.search import check_search
from prune_env.testing.task import check_task

__all__ = ["check_criterion", "check_granularity", "check_reward", "check_search", "check_task"]
