"""Rewards: pure functions of what a plan does to the network, and of what the dense network does."""

from rewards import functions as _functions  # noqa: F401  (importing it fills the registry)
from rewards.errors import RewardError
from rewards.outcome import Outcome
from rewards.registry import Reward, make_reward, register, reward_names
from rewards.settings import Setting

__all__ = ["Outcome", "Reward", "RewardError", "Setting", "make_reward", "register", "reward_names"]
