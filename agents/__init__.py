"""Agents: reinforcement learners and the searches that they must beat, and the policies that they leave behind."""

from agents.ddpg import PruningDDPG, make_ddpg
from agents.policy import Policy, load_policy, save_policy
from agents.searches import SEARCHES
from agents.train import SearchResult, train_agent

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
