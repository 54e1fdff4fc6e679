"""`prune-env replay`: applies a plan to other weights, or a policy to another network."""

from pathlib import Path
from typing import Annotated

import typer

from prune_env.commands.common import (
    AsJson,
    ConfigArgument,
    Force,
    Overrides,
    console,
    forced,
    note_rivals,
    notice,
    print_json,
    results,
    run_command,
    tell_dense,
)
from prune_env.env.fitting import repair_warning
from prune_env.plan import PruningPlan
from prune_env.report.network_table import render
from prune_env.runs.replaying import read_plan_or_policy, replay_on
from prune_env.runs.settings import settings_to_replay_on

Source = Annotated[Path, typer.Argument(help="A plan.json, a policy.safetensors, or a run directory (its plan).")]


def replay(
    source: Source,
    config: ConfigArgument,
    overrides: Overrides = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Applies a plan to other weights, or a policy to another network, and compares with dense and uniform."""
    settings = settings_to_replay_on(config, forced(overrides, force))
    learned = read_plan_or_policy(source)
    with console.status("building the network, tracing it and measuring"):
        rows = replay_on(learned, settings, tell_dense)
    if isinstance(learned, PruningPlan) and (warning := repair_warning(learned, settings)):
        notice(warning)
    note_rivals(rows)
    if as_json:
        print_json({"source": str(source), "model": settings.model.name, "rows": [row.as_record() for row in rows]})
    else:
        results.print(render(rows, f"{source} on {settings.model.name}"))


if __name__ == "__main__":
    run_command(replay)
