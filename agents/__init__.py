"""Agents: reinforcement learners on Stable-Baselines3 that allocate widths, and the policies they leave behind."""

from agents.ddpg import PruningDDPG, make_ddpg
from agents.policy import Policy, load_policy, save_policy
from agents.train import SearchResult, train_agent

__all__ = ["Policy", "PruningDDPG", "SearchResult", "load_policy", "make_ddpg", "save_policy", "train_agent"]
