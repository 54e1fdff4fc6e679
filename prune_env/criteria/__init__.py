"""Criteria: score a unit's channels to decide which stay. One registry, one file per method."""

from prune_env.criteria import (
    activation_mean,
    bn_scale,
    clusters,
    consumer_error,
    feature_rank,
    fisher,
    geometric_median,
    hutchinson,
    l1,
    l2,
    lobs,
    random_order,
    taylor,
)
from prune_env.criteria.context import ScoringContext
from prune_env.criteria.registry import (
    CRITERIA,
    Criterion,
    Registered,
    as_registered,
    criterion_named,
    known_criteria,
    register_criterion,
    run_criterion,
    score_channels,
)
from prune_env.criteria.score_file import load_scores, save_scores

__all__ = [
    "CRITERIA",
    "Criterion",
    "Registered",
    "ScoringContext",
    "activation_mean",
    "as_registered",
    "bn_scale",
    "clusters",
    "consumer_error",
    "criterion_named",
    "feature_rank",
    "fisher",
    "geometric_median",
    "hutchinson",
    "known_criteria",
    "l1",
    "l2",
    "load_scores",
    "lobs",
    "random_order",
    "register_criterion",
    "run_criterion",
    "save_scores",
    "score_channels",
    "taylor",
]
