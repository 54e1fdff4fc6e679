"""Agents: reinforcement learners and the searches that they must beat. Importing this package registers them."""

from agents import baselines, optimisers
from agents.ddpg import PruningDDPG, make_ddpg
from agents.learners import DdpgSearch, PpoSearch, SacSearch, Td3Search
from prune_env.search.episode import SearchResult
from prune_env.search.loop import train_agent
from prune_env.search.policy import Policy, load_policy, save_policy
from prune_env.search.registry import SEARCHES

__all__ = [
    "SEARCHES",
    "DdpgSearch",
    "Policy",
    "PpoSearch",
    "PruningDDPG",
    "SacSearch",
    "SearchResult",
    "Td3Search",
    "baselines",
    "load_policy",
    "make_ddpg",
    "optimisers",
    "save_policy",
    "train_agent",
]
