"""A plan on a network of one's own: it is checked, its costs are counted, and it gets what it is compared with."""

import numpy as np
from torch import nn

from prune_env.budget import Budget
from prune_env.common.errors import BudgetError, PlanError
from prune_env.config import RunConfig
from prune_env.criteria import score_channels
from prune_env.data import Splits
from prune_env.env.builders import build_evaluator, scoring_context, trace
from prune_env.evaluation.evaluator import Evaluator
from prune_env.plan import PruningPlan
from prune_env.walk import LayerWalk


def fit_plan(plan: PruningPlan, settings: RunConfig, splits: Splits, model: nn.Module) -> tuple[Evaluator, PruningPlan]:
    """Checks a plan against a network and counts its costs there; neither budget nor ranks can refuse it.

    Args:
        plan: The plan.
        settings: The settings that the network is measured by.
        splits: The data.
        model: The dense network.

    Returns:
        An evaluator of the dense network, and the plan with its costs there.

    Raises:
        PlanError: If its units are not the ones that tracing finds.
    """
    walk = trace(settings, splits, model)
    _check_units(plan, walk)
    walk = walk.protecting({unit.name: unit.protected for unit in plan.units if unit.protected})
    costs = walk.costs(plan.widths, plan.by_layer)
    return build_evaluator(settings, splits, walk, edits=bool(plan.edits)), plan.model_copy(update={"costs": costs})


def repair_warning(plan: PruningPlan, settings: RunConfig) -> str | None:
    """What to say where a plan was found with another repair than the settings give; None where it was not."""
    made = plan.provenance.get("repair", "none")
    if made == settings.repair.name:
        return None
    return (
        f"repair.name: {settings.repair.name} given, but the plan was found with {made}: the result is of "
        f"another network than its search saw. Give repair.name={made} for the same."
    )


def rival_plans(evaluator: Evaluator, splits: Splits, settings: RunConfig, plan: PruningPlan) -> dict[str, PruningPlan]:
    """What a plan is to be compared with.

    Args:
        evaluator: An evaluator of the dense network.
        splits: The data.
        settings: The settings; their criterion scores the channels.
        plan: The plan, with its costs there.

    Returns:
        ``dense``, and ``uniform`` at the plan's own cost; without it where no uniform plan has this cost.
    """
    walk, costs = evaluator.walk, plan.costs
    metric = plan.budget.metric if plan.budget else "macs"
    if metric == "latency":  # of the machine that the plan was made on
        metric = "macs"
    share = costs.macs / costs.dense_macs if metric == "macs" else costs.params / costs.dense_params
    plans = {"dense": walk.plan({})}
    try:
        budget = Budget(walk, metric, share, 1e-9)
        widths = budget.names(budget.uniform())
    except BudgetError:
        return plans
    scores = score_channels(settings.criterion.name, scoring_context(settings, splits, walk))
    return {**plans, "uniform": walk.plan(widths, scores)}


def _check_units(plan: PruningPlan, walk: LayerWalk) -> None:
    planned = {unit.name: unit for unit in plan.units}
    if planned.keys() != {unit.name for unit in walk.units}:
        odd = sorted(planned.keys() ^ {unit.name for unit in walk.units})[0]
        raise PlanError(f"The plan's units are not this network's: {odd!r} is in one only. Make the plan anew.")
    for unit in walk.units:
        found = {(member.module, member.side): member.index for member in unit.members}
        given = {(m.module, m.side): m.channels(planned[unit.name].channels) for m in planned[unit.name].members}
        same = found.keys() == given.keys() and all(np.array_equal(found[key], given[key]) for key in found)
        if not same or len(planned[unit.name].members) != len(unit.members):
            raise PlanError(
                f"Unit {unit.name!r} of the plan does not occupy the channels that tracing this network finds. "
                "The file is damaged, or another release wrote it; make the plan anew."
            )
