"""`prune-env replay`: applies a plan to other weights, or a policy to another network."""

from pathlib import Path
from typing import Annotated

import typer

from prune_env.commands.common import (
    AsJson,
    ConfigArgument,
    Force,
    Overrides,
    forced,
    note_rivals,
    notice,
    print_json,
    results,
    resumable,
    run_command,
    run_directory_of,
    tell,
    tell_dense,
)
from prune_env.commands.next_steps import after_interrupted_search, print_next, with_replay, with_run
from prune_env.commands.progress import phases
from prune_env.commands.train import finish_search, print_places, print_search, search_record
from prune_env.config import RunConfig
from prune_env.env.fitting import repair_warning
from prune_env.plan import PruningPlan
from prune_env.report.network_table import render
from prune_env.report.verdicts import against_dense, verdicts_on
from prune_env.runs.replaying import SEARCH, replay_on, replay_settings
from prune_env.runs.searching import start_search
from prune_env.runs.settings import settings_to_replay_on
from prune_env.runs.summaries import row_records
from prune_env.search.policy import Policy, load_plan_or_policy
from prune_env.tasks import make_task, quality_of

Source = Annotated[Path, typer.Argument(help="A plan.json, a policy.safetensors, or a run directory (its plan).")]


def replay(
    source: Source,
    config: ConfigArgument,
    overrides: Overrides = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Applies a plan to other weights, or a policy to another network; with run.directory=RUN, writes a run.

    The run is like that of a search: it can be fine-tuned and exported.
    """
    settings = settings_to_replay_on(config, forced(overrides, force))
    learned = load_plan_or_policy(source)
    if isinstance(learned, PruningPlan) and (warning := repair_warning(learned, settings)):
        notice(warning)
    if any(override.startswith("run.directory=") for override in overrides or ()):
        _write_run(source, learned, config, settings, as_json)
        return
    with phases("loading") as say:
        rows = replay_on(learned, settings, say, tell_dense)
    note_rivals(rows)
    if as_json:
        print_json({"source": str(source), "model": settings.model.name, "rows": [row.as_record() for row in rows]})
        return
    records = row_records(rows)
    tell(against_dense(records[SEARCH], records["dense"], quality_of(make_task(settings.task)).name), style="bold")
    results.print(render(rows, f"{source} on {settings.model.name}"))
    for sentence, _ in verdicts_on(records, SEARCH):
        tell(sentence)
    print_next(with_replay(source, str(config), overrides or ()))


def _write_run(source: Path, learned: PruningPlan | Policy, config: Path, settings: RunConfig, as_json: bool) -> None:
    """Writes the replay as a run."""
    settings = replay_settings(source, learned, settings)
    root = run_directory_of(settings, config)
    with resumable(lambda: after_interrupted_search(root)):
        with phases("loading") as say:
            search = start_search(settings, root, say, tell_dense)
        finished = finish_search(search)
    if as_json:
        print_json(search_record(finished))
        return
    print_search(finished)
    for sentence, _ in verdicts_on(row_records(finished.rows), SEARCH):
        tell(sentence)
    print_places(finished)
    print_next(with_run(root, "replay"))


if __name__ == "__main__":
    run_command(replay)
