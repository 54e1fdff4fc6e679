"""Criteria: which channels of a unit stay. One registry, one file per method."""

from prune_env.criteria import l1, l2
from prune_env.criteria.registry import Criterion, known_criteria, register_criterion, score_channels

__all__ = ["Criterion", "known_criteria", "l1", "l2", "register_criterion", "score_channels"]
