"""Searches propose plans and learn from their rewards: the protocol, the loop that runs one, and policy files."""

from prune_env.env.proposal import Proposal
from prune_env.search.base import Search
from prune_env.search.callback import SearchCallback
from prune_env.search.episode import Episode, SearchResult
from prune_env.search.loop import train_agent
from prune_env.search.registry import SEARCHES, register_search

__all__ = [
    "SEARCHES",
    "Episode",
    "Proposal",
    "Search",
    "SearchCallback",
    "SearchResult",
    "register_search",
    "train_agent",
]
