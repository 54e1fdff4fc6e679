"""Pruning plans: what stays of a network, as data."""

from prune_env.plan.document import PLAN_VERSION, PruningPlan
from prune_env.plan.records import PlannedBudget, PlannedCosts, PlannedGroups, PlannedMember, PlannedUnit

__all__ = [
    "PLAN_VERSION",
    "PlannedBudget",
    "PlannedCosts",
    "PlannedGroups",
    "PlannedMember",
    "PlannedUnit",
    "PruningPlan",
]
