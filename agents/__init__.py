"""Agents: reinforcement learners and the searches that they must beat. Importing this package registers them."""

from prune_env.agents import baselines, optimisers, replayed, thresholds
from prune_env.agents.ddpg import PruningDDPG, make_ddpg
from prune_env.agents.learners import DdpgSearch, PpoSearch, SacSearch, Td3Search
from prune_env.search.loop import train_agent

__all__ = [
    "DdpgSearch",
    "PpoSearch",
    "PruningDDPG",
    "SacSearch",
    "Td3Search",
    "baselines",
    "make_ddpg",
    "optimisers",
    "replayed",
    "thresholds",
    "train_agent",
]
