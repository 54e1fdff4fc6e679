"""Criteria: which channels of a unit stay. One registry, one file per method."""

from prune_env.criteria import l1, l2, random_order
from prune_env.criteria.registry import (
    CRITERIA,
    Criterion,
    criterion_named,
    known_criteria,
    register_criterion,
    score_channels,
)
from prune_env.criteria.subject import Producer, Subject

__all__ = [
    "CRITERIA",
    "Criterion",
    "Producer",
    "Subject",
    "criterion_named",
    "known_criteria",
    "l1",
    "l2",
    "random_order",
    "register_criterion",
    "score_channels",
]
