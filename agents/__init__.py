"""Agents: reinforcement learners and the searches that they must beat, and the policies that they leave behind."""

from agents.ddpg import PruningDDPG, make_ddpg
from agents.searches import SEARCHES
from prune_env.search.episode import SearchResult
from prune_env.search.loop import train_agent
from prune_env.search.policy import Policy, load_policy, save_policy

__all__ = [
    "SEARCHES",
    "Policy",
    "PruningDDPG",
    "SearchResult",
    "load_policy",
    "make_ddpg",
    "save_policy",
    "train_agent",
]
