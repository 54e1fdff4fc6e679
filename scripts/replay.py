"""`prune-env replay`: a plan on fresh weights, or a policy on another network."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from torch import nn

from prune_env.budget import Budget
from prune_env.common.errors import BudgetError, PlanError
from prune_env.config import RunConfig
from prune_env.config.sections import ExecutionSection
from prune_env.criteria import score_channels
from prune_env.data import Splits
from prune_env.env import PruningEnv
from prune_env.env.builders import Remembered, build_evaluator, build_problem, scoring_context, trace, usual_execution
from prune_env.env.loading import check_names, load_model, load_splits
from prune_env.evaluation.evaluator import Evaluator
from prune_env.plan import PruningPlan
from prune_env.report.network_table import compare_plans, render
from prune_env.search.policy import Policy, load_policy
from prune_env.walk import LayerWalk
from scripts.common import AsJson, ConfigArgument, Overrides, console, print_json, read_config, results, run_command

Source = Annotated[Path, typer.Argument(help="A plan.json, a policy.safetensors, or a run directory (its plan).")]


def replay(source: Source, config: ConfigArgument, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Applies a plan to fresh weights, or walks a policy over another network; dense and uniform beside it."""
    settings = read_config(config, overrides)
    check_names(settings)
    learned = read_plan_or_policy(source)
    splits = load_splits(settings)
    with console.status("building the network and tracing it"):
        model = load_model(settings, splits, accept=learned.apply if isinstance(learned, PruningPlan) else None)
        if isinstance(learned, PruningPlan):
            evaluator, plan = fit_plan(learned, settings, splits, model)
        else:
            evaluator, plan = _propose(learned, settings, splits, model)
    plans = {**rivals(evaluator, splits, settings, plan), "replayed": plan}
    rows = compare_plans(evaluator, splits, plans)
    if as_json:
        print_json({"source": str(source), "model": settings.model.name, "rows": [row.as_record() for row in rows]})
    else:
        results.print(render(rows, f"{source} on {settings.model.name}"))


def read_plan_or_policy(source: Path) -> PruningPlan | Policy:
    """A plan or a policy from a file, or the plan of a run directory.

    Raises:
        PlanError: If there is no such file.
    """
    if source.is_dir():
        return PruningPlan.load(source / "plan.json")
    if not source.exists():
        raise PlanError(f"{source} does not exist. Give a plan.json, a policy.safetensors or a run directory.")
    return load_policy(source) if source.suffix == ".safetensors" else PruningPlan.load(source)


def _propose(policy: Policy, settings: RunConfig, splits: Splits, model: nn.Module) -> tuple[Evaluator, PruningPlan]:
    policy.check(settings)
    # One plan is evaluated: measuring the fastest execution would take many times as long.
    form = ExecutionSection(**asdict(usual_execution(settings)))
    granularity = settings.granularity.model_copy(update={"action": policy.action})
    settings = settings.model_copy(update={"form": form, "granularity": granularity})
    problem = build_problem(settings, splits, model, remembered=Remembered(timed=False))
    return problem.evaluator, policy.propose(PruningEnv(problem=problem, proposed_by="replay")).plan


def fit_plan(plan: PruningPlan, settings: RunConfig, splits: Splits, model: nn.Module) -> tuple[Evaluator, PruningPlan]:
    """Checks a plan against a network and counts its costs there; neither budget nor ranks can refuse it.

    Raises:
        PlanError: If its units are not the ones that tracing finds.
    """
    made = plan.provenance.get("repair", "none")
    if made != settings.repair.name:
        console.print(
            f"repair.name: {settings.repair.name} given, but the plan was found with {made}: the accuracies are of "
            f"another network than its search saw. Give repair.name={made} for the same."
        )
    walk = trace(settings, splits, model)
    _check_units(plan, walk)
    walk = walk.protecting({unit.name: unit.protected for unit in plan.units if unit.protected})
    costs = walk.costs(plan.widths, plan.by_layer)
    return build_evaluator(settings, splits, walk, edits=bool(plan.edits)), plan.model_copy(update={"costs": costs})


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


def rivals(evaluator: Evaluator, splits: Splits, settings: RunConfig, plan: PruningPlan) -> dict[str, PruningPlan]:
    """What a plan is to be compared with: the dense network, and the uniform plan at the plan's own cost."""
    walk, costs = evaluator.walk, plan.costs
    metric = plan.budget.metric if plan.budget else "macs"
    if metric == "latency":  # of the machine that the plan was made on
        metric = "macs"
    share = costs.macs / costs.dense_macs if metric == "macs" else costs.params / costs.dense_params
    plans = {"dense": walk.plan({})}
    try:
        budget = Budget(walk, metric, share, 1e-9)
        scores = score_channels(settings.criterion.name, scoring_context(settings, splits, walk))
        plans["uniform"] = walk.plan(budget.names(budget.uniform()), scores)
    except BudgetError:
        console.print("There is no uniform plan of this cost: the units that are free here cannot be cut that far.")
    return plans


if __name__ == "__main__":
    run_command(replay)
