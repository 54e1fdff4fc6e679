"""Searches propose plans and learn from their rewards: the protocol, the loop that runs one, and policy files."""

from prune_env.env.proposal import Proposal
from prune_env.search.base import Search
from prune_env.search.registry import SEARCHES, register_search

__all__ = ["SEARCHES", "Proposal", "Search", "register_search"]
