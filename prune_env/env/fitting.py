"""Fits a plan to the user's network: checks it, counts its costs and makes the plans to compare it with."""

import numpy as np
from torch import nn

from prune_env.budget import Budget
from prune_env.common.errors import BudgetError, PlanError
from prune_env.config import RunConfig
from prune_env.criteria import score_channels
from prune_env.data import Splits
from prune_env.env.builders import build_evaluator, make_repair, scoring_context, trace
from prune_env.evaluation.evaluator import Evaluator
from prune_env.plan import PruningPlan
from prune_env.walk import LayerWalk
from prune_env.walk.costs import Metric


def fit_plan(plan: PruningPlan, settings: RunConfig, splits: Splits, model: nn.Module) -> tuple[Evaluator, PruningPlan]:
    """Checks a plan against a network and counts its costs there.

    The budget and the feature-map ranks are not checked again.

    Args:
        plan: The plan.
        settings: The settings of the measurement.
        splits: The data.
        model: The dense network.

    Returns:
        An evaluator of the dense network, and the plan with its costs on this network.

    Raises:
        PlanError: If the plan's units differ from the traced units.
    """
    walk = trace(settings, splits, model)
    check_units(plan, walk)
    walk = walk.protecting({unit.name: unit.protected for unit in plan.units if unit.protected})
    costs = walk.costs(plan.widths, plan.by_layer)
    repair = make_repair(settings, splits, walk, edits=bool(plan.edits))
    return build_evaluator(settings, splits, walk, repair), plan.model_copy(update={"costs": costs})


def repair_warning(plan: PruningPlan, settings: RunConfig) -> str | None:
    """A warning if the plan was searched with another repair than ``repair.name``; None if they agree."""
    made = plan.provenance.get("repair", "none")
    if made == settings.repair.name:
        return None
    return (
        f"repair.name: {settings.repair.name} given, but the plan was found with {made}: the measured network differs "
        f"from the network of the search. Give repair.name={made} to measure the same network."
    )


def rival_plans(evaluator: Evaluator, splits: Splits, settings: RunConfig, plan: PruningPlan) -> dict[str, PruningPlan]:
    """Makes the plans to compare a plan with.

    Args:
        evaluator: An evaluator of the dense network.
        splits: The data.
        settings: The settings; the criterion scores the channels.
        plan: The plan, with its costs on this network.

    Returns:
        ``dense``, and ``uniform`` at the plan's cost if a uniform plan of this cost exists.
    """
    walk, costs = evaluator.walk, plan.costs
    metric = plan.budget.metric if plan.budget else "macs"
    if metric == "latency":  # a latency is valid only on the machine that measured it
        metric = "macs"
    shares = {"macs": costs.macs / costs.dense_macs, "params": costs.params / costs.dense_params}
    also: dict[Metric, float] = {name: shares[name] for name in plan.budget.also} if plan.budget else {}
    plans = {"dense": walk.plan({})}
    try:
        budget = Budget(walk, metric, shares[metric], 1e-9, also=also)
        widths = budget.names(budget.uniform())
    except BudgetError:
        return plans
    scores = score_channels(settings.criterion.name, scoring_context(settings, splits, walk))
    return {**plans, "uniform": walk.plan(widths, scores)}


def check_units(plan: PruningPlan, walk: LayerWalk) -> None:
    """Checks that the units that a plan cuts are those of a walk.

    Raises:
        PlanError: Names the first unit that differs.
    """
    # A release may find units that another one protects or does not know; only the units that the plan cuts must agree.
    planned = {unit.name: unit for unit in plan.units if len(unit.kept) < unit.channels}
    unknown = sorted(planned.keys() - {unit.name for unit in walk.units})
    if unknown:
        raise PlanError(f"The plan cuts {unknown[0]!r}, which is no unit of this network. Make a new plan.")
    for unit in walk.units:
        if unit.name not in planned:
            continue
        traced = {(member.module, member.side): member.index for member in unit.members}
        recorded = {(m.module, m.side): m.channels(planned[unit.name].channels) for m in planned[unit.name].members}
        same = traced.keys() == recorded.keys() and all(np.array_equal(traced[key], recorded[key]) for key in traced)
        if not same or len(planned[unit.name].members) != len(unit.members):
            raise PlanError(
                f"Unit {unit.name!r} of the plan has other channels than the same unit of this network. "
                "The file is damaged, or another release wrote it. Make a new plan."
            )
