"""`prune-env evaluate`: measures a finished run's networks again: reward set, test set, costs, size, latency."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from prune_env.commands.common import (
    AsJson,
    Overrides,
    TrustRun,
    note_rivals,
    notice,
    print_json,
    results,
    run_command,
    run_directory_of,
    tell,
    trust_of,
    warn,
)
from prune_env.commands.next_steps import print_next, with_run
from prune_env.commands.progress import phases
from prune_env.config import RunConfig
from prune_env.config.shipped import is_shipped
from prune_env.config.trust import Trust
from prune_env.env.fitting import repair_warning
from prune_env.env.loading import device_of
from prune_env.plan import PruningPlan
from prune_env.report.network_table import render, warnings_of
from prune_env.report.verdicts import against_dense
from prune_env.runs.evaluating import evaluate_run
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.settings import read_settings, settings_of
from prune_env.runs.summaries import row_records
from prune_env.tasks import quality_of

Target = Annotated[
    Path, typer.Argument(help="A run directory, or the YAML file (or its shipped name) that the run was started with.")
]
Name = Annotated[
    str | None, typer.Option(help="Folder of the fine-tuning within the run. [default: finetune, if it exists]")
]
Batch = Annotated[int | None, typer.Option(min=1, help="Images in the timed batch. [default: budget.batch]")]


def evaluate(
    target: Target,
    overrides: Overrides = None,
    name: Name = None,
    batch: Batch = None,
    trust: TrustRun = False,
    as_json: AsJson = False,
) -> None:
    """Measures dense, uniform at the plan's cost, and the run's network cut, recalibrated and (if tuned) fine-tuned."""
    run, settings = _find(target, overrides or [], trust_of(trust))
    batch = batch or settings.budget.batch
    with phases("loading") as say:
        rows = evaluate_run(run, settings, name, batch, say)
    if warning := repair_warning(PruningPlan.load(run.plan), settings):
        notice(warning)
    note_rivals(rows)
    if as_json:
        measured = {"threads": torch.get_num_threads(), "batch_size": batch, "device": str(device_of(settings))}
        table = {"rows": [row.as_record() for row in rows], "warnings": warnings_of(rows)}
        print_json({"run": str(run.root), "model": settings.model.name, **measured, **table})
        return
    records = row_records(rows)
    tell(against_dense(records[rows[-1].name], records["dense"], quality_of(rows[0].task).name), style="bold")
    results.print(render(rows, f"{run.plan} on {settings.model.name}", batch))
    for text in warnings_of(rows):
        warn(text)
    print_next(with_run(run.root, "evaluate"))


def _find(target: Path, overrides: list[str], trust: Trust) -> tuple[RunDirectory, RunConfig]:
    """The run and its settings, with the dense weights that the run trained."""
    if target.suffix in (".yaml", ".yml") or (is_shipped(target) and not target.is_dir()):
        given = read_settings(target, overrides)
        run, trust = RunDirectory.open(run_directory_of(given, target)), trust.also(Trust.of(given).names)
    else:
        run = RunDirectory.open(target)
    return run, settings_of(run, overrides, trust)


if __name__ == "__main__":
    run_command(evaluate)
