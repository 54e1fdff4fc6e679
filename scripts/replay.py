"""`prune-env replay`: a plan on fresh weights, or a policy on another network."""

from pathlib import Path
from typing import Annotated

import typer

from agents.policy import Policy, load_policy
from prune_env.budget import Budget
from prune_env.config import RunConfig
from prune_env.data import Splits
from prune_env.env import PruningEnv
from prune_env.errors import PlanError
from prune_env.models import build_model
from prune_env.plan import PruningPlan, fingerprint, first_difference
from prune_env.task import PruningTask, load_model, load_splits, make_task
from scripts.common import AsJson, ConfigArgument, Overrides, console, print_json, read_config, run_command
from scripts.compare_table import Row, compare_plans, render

Source = Annotated[Path, typer.Argument(help="A plan.json, a policy.safetensors, or a run directory (its plan).")]


def replay(source: Source, config: ConfigArgument, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Applies a plan to fresh weights, or walks a policy over another network; dense and uniform beside it."""
    settings = read_config(config, overrides)
    learned = read_plan_or_policy(source)
    splits = load_splits(settings)
    if isinstance(learned, PruningPlan):
        _check_fits(learned, settings, splits)
    with console.status("building the network and tracing it"):
        task = make_task(settings, splits, load_model(settings, splits))
    plan = learned if isinstance(learned, PruningPlan) else _propose(learned, task)
    rows = side_by_side(task, splits, plan, "replayed")
    console.print(render(rows, f"{source} on {settings.model.name}"))
    if as_json:
        print_json({"source": str(source), "model": settings.model.name, "rows": [row.as_record() for row in rows]})


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


def _check_fits(plan: PruningPlan, settings: RunConfig, splits: Splits) -> None:
    """Refuses a plan for another network before any time is spent on training or tracing."""
    source = splits.source
    model = build_model(settings.model.name, source.classes, source.channels, None, settings.model.arguments)
    if first_difference(plan.fingerprint, fingerprint(model)) is not None:
        plan.apply(model)


def _propose(policy: Policy, task: PruningTask) -> PruningPlan:
    return policy.propose(PruningEnv(task=task, action=policy.action, kind="replay")).plan


def side_by_side(task: PruningTask, splits: Splits, plan: PruningPlan, name: str) -> list[Row]:
    """Dense, uniform at the plan's own cost, and the plan."""
    metric = plan.budget.metric if plan.budget else task.budget.metric
    costs = plan.costs
    share = costs.macs / costs.dense_macs if metric == "macs" else costs.params / costs.dense_params
    plans = {"dense": task.walk.plan({})}
    reachable = Budget(task.walk, metric, 1.0, 1e-9).reachable[0]
    if share >= reachable:
        budget = Budget(task.walk, metric, share, 1e-9)
        plans["uniform"] = task.walk.plan(budget.names(budget.uniform()), task.scores)
    return compare_plans(task, splits, {**plans, name: plan})


if __name__ == "__main__":
    run_command(replay)
