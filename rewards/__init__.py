"""Rewards: pure functions of two outcomes, the pruned network's and the dense network's."""

from prune_env.rewards import functions as _functions  # noqa: F401  (importing it fills the registry)
from prune_env.rewards.errors import RewardError
from prune_env.rewards.outcome import Outcome
from prune_env.rewards.registry import (
    Reward,
    make_reward,
    needs_latency,
    own_reward,
    ranks_as_quality,
    register,
    reward_names,
    reward_summaries,
    rises_with_quality,
)
from prune_env.rewards.settings import Setting

__all__ = [
    "Outcome",
    "Reward",
    "RewardError",
    "Setting",
    "make_reward",
    "needs_latency",
    "own_reward",
    "ranks_as_quality",
    "register",
    "reward_names",
    "reward_summaries",
    "rises_with_quality",
]
