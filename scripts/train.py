"""`prune-env train`: searches a network's pruning plan, and fine-tunes the pruned network on request."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from prune_env.commands.common import (
    AsJson,
    Force,
    Overrides,
    between_commas,
    command_line,
    forced,
    notice,
    print_json,
    print_place,
    results,
    resumable,
    run_command,
    run_directory_of,
    tell,
    tell_dense,
    warn,
)
from prune_env.commands.finetune import print_finetuning, run_finetuning
from prune_env.commands.next_steps import after_interrupted_runs, after_interrupted_search, print_next, with_run
from prune_env.commands.progress import phases, shown_search
from prune_env.common.errors import ConfigError
from prune_env.common.words import counted
from prune_env.config.sections import budget_in_words
from prune_env.report.file_records import row_records
from prune_env.report.loggers import check_loggers
from prune_env.report.network_table import render, warnings_of
from prune_env.report.verdicts import against_dense
from prune_env.report.whole_runs import finish_with_report, run_searches
from prune_env.runs.finishing import FinishedSearch
from prune_env.runs.replaying import SEARCH
from prune_env.runs.searching import SearchRun, resume_search, start_search
from prune_env.runs.settings import for_workers, read_settings
from prune_env.search.pools.make import idle_words, worker_count
from prune_env.tasks import make_task, quality_of

OWN_EPOCHS = "0"
"""Stands for ``finetune.epochs`` where --finetune is given without a number."""


class TrainCommand(TyperCommand):
    """Takes --finetune with or without a number, which typer's options cannot say."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Gives a --finetune without a number its value."""
        filled = []
        for word, following in zip(args, [*args[1:], ""], strict=True):
            filled += [word, OWN_EPOCHS] if word == "--finetune" and not following.isdecimal() else [word]
        return super().parse_args(ctx, filled)


COMMAND_CLASS = TrainCommand

Config = Annotated[
    Path | None,
    typer.Argument(
        help="A YAML file of settings, or a name that `prune-env configs` lists, such as digits.", show_default=False
    ),
]
Resume = Annotated[
    Path | None,
    typer.Option(
        help="The directory of an interrupted run, to resume it; of a finished run with search.evaluations=N, to "
        "search on.",
        show_default=False,
    ),
]
Budgets = Annotated[
    str | None,
    typer.Option(
        help="Several budgets instead of budget.keep, such as 0.5,0.3: one run for each, RUN/keep-0.5 and so on, "
        "search.workers of them at a time.",
        show_default=False,
    ),
]
Finetune = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="[EPOCHS]",
        help="Fine-tune the pruned network after the search, for finetune.epochs or for this number of epochs.",
        show_default=False,
    ),
]

Log = Annotated[
    list[str] | None,
    typer.Option(
        help="Log also to optuna://FILE.db, csv, or a tracker of Accelerate, such as wandb; may be repeated (run.log).",
        show_default=False,
    ),
]


def train(
    config: Config = None,
    overrides: Overrides = None,
    resume: Resume = None,
    budgets: Budgets = None,
    finetune: Finetune = None,
    log: Log = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Searches a pruning plan: an agent learns the width of each unit of the network."""
    given = list(overrides or ())
    if resume is not None and config is not None and "=" in str(config):
        config, given = None, [str(config), *given]
    if (config is None) == (resume is None):
        raise typer.BadParameter(
            "give a file of settings to start a run, or --resume RUN to resume one with its own settings; "
            f"{'neither was' if config is None else 'both were'} given."
        )
    if config is not None:
        given = [*forced(given, force), *([f"run.log={json.dumps(log)}"] if log else [])]
    elif log or force:
        raise typer.BadParameter(
            "--log and --force are for a new run; --resume RUN goes on with the run's own settings."
        )
    if budgets is not None:
        if config is None or finetune is not None:
            raise typer.BadParameter(
                "--budgets needs a file of settings, and no --finetune. Repeat the command to go on with its runs, and "
                "give each run to `prune-env finetune`."
            )
        _train_several(config, given, budgets, as_json)
        return
    settings = None if config is None else read_settings(config, given)
    if settings is not None:
        check_loggers(settings.run.log)
    root = run_directory_of(settings, config) if settings is not None and config is not None else Path(str(resume))
    with resumable(lambda: after_interrupted_search(root)):
        with phases("loading") as say:
            search = (
                resume_search(root, say, given) if settings is None else start_search(settings, root, say, tell_dense)
            )
        finished = finish_search(search)
    tuned = None
    if finetune is not None:
        if not as_json:
            print_search(finished)
        epochs = [f"finetune.epochs={finetune}"] if finetune else []
        tuned = run_finetuning(search.run, epochs)
    if as_json:
        print_json({**search_record(finished), **({} if tuned is None else {"finetune": tuned.summary})})
        return
    if tuned is None:
        print_search(finished)
    else:
        print_finetuning(tuned)
    print_places(finished)
    print_next(with_run(search.run.root, "train"))


def _train_several(config: Path, overrides: list[str], budgets: str, as_json: bool) -> None:
    """Runs one search for each budget."""
    kept = between_commas(budgets)
    settings = {keep: for_workers(read_settings(config, [*overrides, f"budget.keep={keep}"])) for keep in kept}
    if not settings:
        raise ConfigError("--budgets: none given; allowed are shares in (0, 1], separated by commas, such as 0.5,0.3.")
    root = run_directory_of(next(iter(settings.values())), config)
    runs = {root / f"keep-{keep}": given for keep, given in settings.items()}
    workers = worker_count(next(iter(settings.values())))
    with resumable(lambda: after_interrupted_runs(root)), phases(f"{len(runs)} searches"):
        found = run_searches(runs, workers, lambda folder: notice(f"{folder} is finished"))
    if as_json:
        print_json({"runs": [{"run": str(folder), **summary} for folder, summary in found.items()]})
        return
    for folder, summary in found.items():
        tell(f"{folder}: best reward {summary['best_reward']:.4g}, {summary['seconds']:.0f} s", whole=True)
    print_place("report", root / "report.html")
    print_next([step for folder in found for step in with_run(folder)[:1]])


def finish_search(search: SearchRun) -> FinishedSearch:
    """Runs a started search to its end, and shows its progress."""
    _print_reach(search)
    with shown_search(search) as (on_trial, on_episode):
        return finish_with_report(search, on_trial, on_episode, command_line())


def _print_reach(search: SearchRun) -> None:
    problem, settings = search.problem, search.settings
    limits = {one.metric: one.keep for one in problem.budget.all}
    low, high = problem.granularity.reachable(problem.budget)
    notice(
        f"{settings.model.name}: {len(problem.budget.units)} of {len(problem.walk.units)} units free; reachable "
        f"{low:.1%} to {high:.0%} of the dense {settings.budget.metric}, budget {budget_in_words(limits)}"
    )
    if settings.run.address is None and (idle := idle_words(settings)) is not None:
        notice(idle)


def search_record(finished: FinishedSearch) -> dict[str, Any]:
    """The result of a search for programs."""
    run = finished.search.run
    return {**finished.summary, "run": str(run.root), "plan": str(run.plan), "policy": _policy(finished)}


def _policy(finished: FinishedSearch) -> str | None:
    return str(finished.search.run.policy) if finished.result.policy is not None else None


def print_search(finished: FinishedSearch) -> None:
    """Prints the result of a search: against the dense network, the table, and what to beware of."""
    problem, settings, result = finished.search.problem, finished.search.settings, finished.result
    rows = row_records(finished.rows)
    tell(against_dense(rows[settings.agent.name], rows["dense"], problem.quality_name), style="bold")
    title = f"{counted(result.episodes, 'episode')}, {result.seconds:.0f} s"
    results.print(render(finished.rows, title, settings.budget.batch))
    if (sparsified := finished.summary.get("sparsify")) is not None:
        metric = quality_of(make_task(settings.task))
        before, after = (sparsified[when][f"test_{metric.name}"] for when in ("before", "after"))
        tell(
            f"sparse training: {metric.name} {before:{metric.format}} before and {after:{metric.format}} after "
            f"{counted(sparsified['epochs'], 'epoch')} with {sparsified['penalty']}, on the test set"
        )
    for warning in (*(sparsified or {}).get("warnings", ()), *warnings_of(finished.rows)):
        warn(warning)
    # A replay cannot be given more evaluations; its rivals are told in sentences.
    if finished.uniform.reward >= result.best.reward and settings.agent.name != SEARCH:
        warn(
            f"The uniform plan is at least as good as the best plan of {settings.agent.name} on the reward set. "
            "Give the search more evaluations, or use the uniform plan."
        )
    if problem.race is not None:
        whole = problem.evaluator.images * finished.summary["evaluations"]
        tell(f"racing skipped {finished.summary['images_left'] / whole:.0%} of the reward images")


def print_places(finished: FinishedSearch) -> None:
    """Prints where the files of a run are."""
    run = finished.search.run
    for name, place in (
        ("plan", run.plan),
        ("policy", _policy(finished)),
        ("TensorBoard", run.tensorboard),
        ("report", run.report),
    ):
        if place is not None:
            print_place(name, place)


if __name__ == "__main__":
    run_command(train, COMMAND_CLASS)
