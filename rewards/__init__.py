"""Rewards: pure functions of two outcomes, the pruned network's and the dense network's."""

from rewards import functions as _functions  # noqa: F401  (importing it fills the registry)
from rewards.errors import RewardError
from rewards.outcome import Outcome
from rewards.registry import (
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
from rewards.settings import Setting

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
