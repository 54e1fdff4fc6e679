"""`prune-env evaluate`: a finished run's plan, measured again: reward set, test set, costs and latency."""

from pathlib import Path
from typing import Annotated

import typer

from prune_env.config import RunConfig
from prune_env.plan import PruningPlan
from prune_env.prepare import load_model, load_splits
from prune_env.run import RunDirectory
from scripts.common import AsJson, Overrides, console, print_json, read_config, results, run_command, run_directory_of
from scripts.compare_table import render
from scripts.replay import fit_plan, side_by_side
from scripts.searching import settings_of

Target = Annotated[
    Path, typer.Argument(help="A run directory, or the YAML file that the run was started with (its run is looked up).")
]


def evaluate(target: Target, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Measures a run's plan again beside the dense network and the uniform plan at the same cost."""
    run, settings = _find(target, overrides or [])
    splits = load_splits(settings)
    plan = PruningPlan.load(run.plan)
    with console.status("building the network and tracing it"):
        evaluator, plan = fit_plan(plan, settings, splits, load_model(settings, splits, accept=plan.apply))
    rows = side_by_side(evaluator, splits, settings, plan, "plan")
    if as_json:
        print_json({"run": str(run.root), "model": settings.model.name, "rows": [row.as_record() for row in rows]})
    else:
        results.print(render(rows, f"{run.plan} on {settings.model.name}"))


def _find(target: Path, overrides: list[str]) -> tuple[RunDirectory, RunConfig]:
    """The run and its settings; weights that the run trained itself are taken from it."""
    if target.suffix in (".yaml", ".yml"):
        run = RunDirectory.open(run_directory_of(read_config(target, overrides), target))
    else:
        run = RunDirectory.open(target)
    return run, settings_of(run, overrides)


if __name__ == "__main__":
    run_command(evaluate)
