"""Pruning plans: the channels of a network that stay, and the edits of layers, as data."""

from prune_env.plan.apply import apply_plan
from prune_env.plan.document import PLAN_VERSION, PruningPlan
from prune_env.plan.edits import Edit, Edits, register_edit
from prune_env.plan.records import PlannedBudget, PlannedCosts, PlannedMember, PlannedUnit

__all__ = [
    "PLAN_VERSION",
    "Edit",
    "Edits",
    "PlannedBudget",
    "PlannedCosts",
    "PlannedMember",
    "PlannedUnit",
    "PruningPlan",
    "apply_plan",
    "register_edit",
]
