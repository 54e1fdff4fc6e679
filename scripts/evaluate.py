"""`prune-env evaluate`: a finished run's networks, measured again: reward set, test set, costs, size and latency."""

from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn

from prune_env.common.errors import RunError
from prune_env.config import RunConfig
from prune_env.env.loading import load_model, load_splits
from prune_env.evaluation.evaluator import Evaluator
from prune_env.models import load_weights
from prune_env.plan import PruningPlan
from prune_env.report.network_table import compare_networks, render, warnings_of
from prune_env.runs.directory import RunDirectory
from prune_env.runs.searching import settings_of
from prune_env.runs.training import TrainingFolder
from scripts.common import AsJson, Overrides, console, print_json, read_config, results, run_command, run_directory_of
from scripts.replay import fit_plan, rivals

Target = Annotated[
    Path, typer.Argument(help="A run directory, or the YAML file that the run was started with (its run is looked up).")
]
Name = Annotated[
    str | None, typer.Option(help="Folder of the fine-tuning within the run. [default: finetune, if there is one]")
]
Batch = Annotated[int | None, typer.Option(min=1, help="Images in the batch that is timed. [default: budget.batch]")]


def evaluate(
    target: Target,
    overrides: Overrides = None,
    name: Name = None,
    batch: Batch = None,
    as_json: AsJson = False,
) -> None:
    """Measures a run's network again: dense, uniform at its cost, as cut, recalibrated, and fine-tuned if it was."""
    run, settings = _find(target, overrides or [])
    batch = batch or settings.budget.batch
    splits = load_splits(settings)
    plan = PruningPlan.load(run.plan)
    with console.status("building the network and tracing it"):
        evaluator, plan = fit_plan(plan, settings, splits, load_model(settings, splits, accept=plan.apply))
        plans = rivals(evaluator, splits, settings, plan)
        networks = {key: (evaluator.pruned(one), one.costs) for key, one in plans.items()}
        networks |= {key: (one, own.costs) for key, (one, own) in stages(run, name, evaluator, plan).items()}
    with console.status("measuring"):
        rows = compare_networks(evaluator, splits, networks, batch)
    if as_json:
        measured = {"threads": torch.get_num_threads(), "batch_size": batch, "device": str(evaluator.device)}
        told = {"rows": [row.as_record() for row in rows], "warnings": warnings_of(rows)}
        print_json({"run": str(run.root), "model": settings.model.name, **measured, **told})
        return
    results.print(render(rows, f"{run.plan} on {settings.model.name}", batch))
    for warning in warnings_of(rows):
        results.print(f"[yellow]{warning}[/yellow]", soft_wrap=True)


def stages(
    run: RunDirectory, name: str | None, evaluator: Evaluator, plan: PruningPlan
) -> dict[str, tuple[nn.Module, PruningPlan]]:
    """A run's network as it was cut, recalibrated (and repaired), and fine-tuned where it was; each with its plan.

    Args:
        run: The run.
        name: The folder of its fine-tuning; None for the usual one, where there is one.
        evaluator: An evaluator of the dense network.
        plan: The run's plan.

    Raises:
        RunError: If there is no such fine-tuning, it is not finished, or it is of another plan.
        WeightsError: If its weights do not fit.
    """
    found = {"cut": (plan.apply(evaluator.walk.model), plan), "recalibrated": (evaluator.pruned(plan), plan)}
    tuned = TrainingFolder(run.root / (name or "finetune"))
    if name is not None or tuned.root.is_dir():
        if not tuned.summary.is_file():
            raise RunError(
                f"{str(tuned.root)!r} holds no finished fine-tuning: `prune-env finetune {run.root} --name "
                f"{tuned.root.name} --resume` goes on with one that was interrupted. For the network without it, move "
                "the folder away."
            )
        started, trained = PruningPlan.load(tuned.started_plan), PruningPlan.load(tuned.plan)
        if (started.kept, started.edits) != (plan.kept, plan.edits):
            raise RunError(f"{str(tuned.root)!r} is the training of another plan than {str(run.plan)!r}.")
        found["fine-tuned"] = trained.apply(evaluator.walk.model), trained
        load_weights(found["fine-tuned"][0], tuned.weights)
    return found


def _find(target: Path, overrides: list[str]) -> tuple[RunDirectory, RunConfig]:
    """The run and its settings; weights that the run trained itself are taken from it."""
    if target.suffix in (".yaml", ".yml"):
        run = RunDirectory.open(run_directory_of(read_config(target, overrides), target))
    else:
        run = RunDirectory.open(target)
    return run, settings_of(run, overrides)


if __name__ == "__main__":
    run_command(evaluate)
