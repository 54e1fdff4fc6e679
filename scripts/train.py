"""`prune-env train`: searches a network's pruning plan, and fine-tunes the pruned network on request."""

import json
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from prune_env.commands.common import (
    AsJson,
    Force,
    TrustRun,
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
    trust_of,
    warn,
)
from prune_env.commands.finetune import print_finetuning, run_finetuning
from prune_env.commands.next_steps import after_interrupted_runs, after_interrupted_search, print_next, with_run
from prune_env.commands.progress import phases, shown_search
from prune_env.common.errors import ConfigError
from prune_env.common.words import counted
from prune_env.config import RunConfig
from prune_env.config.sections import budget_in_words
from prune_env.config.trust import NOTHING, Trust
from prune_env.report.loggers import check_loggers
from prune_env.report.network_table import render, warnings_of
from prune_env.report.verdicts import against_dense
from prune_env.report.whole_runs import common_folder, finish_with_report, run_searches
from prune_env.runs.finishing import FinishedSearch
from prune_env.runs.replaying import SEARCH
from prune_env.runs.searching import SearchRun, resume_search, start_search
from prune_env.runs.settings import read_settings
from prune_env.runs.summaries import row_records
from prune_env.search.pools.make import idle_words
from prune_env.tasks import make_task, quality_of

OWN_EPOCHS = "0"
"""Stands for ``finetune.epochs`` where --finetune is given without a number."""


class TrainCommand(TyperCommand):
    """Takes --finetune with or without a number, which typer's options cannot say."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Gives a --finetune without a number its value."""
        filled = []
        for word, following in zip_longest(args, args[1:], fillvalue=""):
            filled += [word, OWN_EPOCHS] if word == "--finetune" and not following.isdecimal() else [word]
        return super().parse_args(ctx, filled)


COMMAND_CLASS = TrainCommand

Config = Annotated[
    Path | None,
    typer.Argument(
        help="A YAML file of settings, or a name that `prune-env configs` lists, such as digits.", show_default=False
    ),
]
More = Annotated[
    list[str] | None,
    typer.Argument(
        help="Settings that override the file: key.path=value ... Further files or names: one run for each, RUN/NAME "
        "after the file, search.workers of them at a time.",
        show_default=False,
    ),
]
Resume = Annotated[
    Path | None,
    typer.Option(
        help="The directory of an interrupted run, to resume it, also with other search.workers or run.address; of a "
        "finished run with search.evaluations=N, to search on.",
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
    overrides: More = None,
    resume: Resume = None,
    budgets: Budgets = None,
    finetune: Finetune = None,
    log: Log = None,
    force: Force = False,
    trust: TrustRun = False,
    as_json: AsJson = False,
) -> None:
    """Searches a pruning plan: an agent learns the width of each unit of the network."""
    words = [*([str(config)] if config is not None else []), *(overrides or ())]
    files = [Path(word) for word in words if "=" not in word or Path(word).is_file()]
    if resume is None and config is not None and config not in files:
        files.insert(0, config)
    given = [word for word in words if Path(word) not in files]
    if bool(files) == (resume is not None):
        raise typer.BadParameter(
            "give a file of settings to start a run, or --resume RUN to resume one with its own settings; "
            f"{'both were' if files else 'neither was'} given."
        )
    if resume is None:
        given = [*forced(given, force), *([f"run.log={json.dumps(log)}"] if log else [])]
    elif log or force:
        raise typer.BadParameter(
            "--log and --force are for a new run; --resume RUN goes on with the run's own settings."
        )
    if budgets is not None or len(files) > 1:
        if not files or finetune is not None:
            raise typer.BadParameter(
                "Several runs need files of settings, and no --finetune. Repeat the command to go on with its runs, "
                "and give each run to `prune-env finetune`."
            )
        _train_several(runs_of(files, given, budgets), as_json)
        return
    settings = read_settings(files[0], given) if resume is None else None
    if settings is not None:
        check_loggers(settings.run.log)
    root, trusted = run_directory_of(settings, files[0]) if settings is not None else Path(str(resume)), trust_of(trust)
    with resumable(lambda: after_interrupted_search(root)):
        with phases("loading") as say:
            search = (
                resume_search(root, say, given, trusted)
                if settings is None
                else start_search(settings, root, say, tell_dense)
            )
        finished = finish_search(search, trusted)
    tuned = None
    if finetune is not None:
        if not as_json:
            print_search(finished)
        epochs = [f"finetune.epochs={finetune}"] if finetune else []
        tuned = run_finetuning(search.run, epochs, trust=trusted.also(Trust.of(search.settings).names))
    if as_json:
        print_json({**search_record(finished), **({} if tuned is None else {"finetune": tuned.summary})})
        return
    if tuned is None:
        print_search(finished)
    else:
        print_finetuning(tuned)
    print_places(finished)
    print_next(with_run(search.run.root, "train"))


def runs_of(files: Sequence[Path], overrides: Sequence[str], budgets: str | None) -> dict[Path, RunConfig]:
    """The settings of each run, by its folder: one for each file and each budget.

    Raises:
        ConfigError: If a setting is invalid, no budget is given, or two runs would have the same folder.
    """
    kept = between_commas(budgets) if budgets is not None else []
    if budgets is not None and not kept:
        raise ConfigError("--budgets: none given; allowed are shares in (0, 1], separated by commas, such as 0.5,0.3.")
    runs: dict[Path, RunConfig] = {}
    for file in files:
        settings = read_settings(file, overrides)
        root = run_directory_of(settings, file)
        if len(files) > 1 and settings.run.directory is not None:
            root = root / file.stem
        several = {root / f"keep-{keep}": read_settings(file, [*overrides, f"budget.keep={keep}"]) for keep in kept}
        for folder, given in (several or {root: settings}).items():
            if folder in runs:
                raise ConfigError(
                    f"{file}: another file's run has the folder {str(folder)!r} as well. Rename the file."
                )
            runs[folder] = given
    return runs


def _train_several(runs: Mapping[Path, RunConfig], as_json: bool) -> None:
    """Runs several searches, as many at a time as there are workers."""
    root = common_folder(list(runs))
    with resumable(lambda: after_interrupted_runs(root)), phases(f"{len(runs)} searches"):
        found = run_searches(runs, lambda folder: notice(f"{folder} is finished"))
    if as_json:
        print_json({"runs": [{"run": str(folder), **summary} for folder, summary in found.items()]})
        return
    for folder, summary in found.items():
        tell(f"{folder}: best reward {summary['best_reward']:.4g}, {summary['seconds']:.0f} s", whole=True)
    print_place("report", root / "report.html")
    print_next([step for folder in found for step in with_run(folder)[:1]])


def finish_search(search: SearchRun, trust: Trust = NOTHING) -> FinishedSearch:
    """Runs a started search to its end, and shows its progress; ``trust`` as `finish_with_report`."""
    _print_reach(search)
    with shown_search(search) as (on_trial, on_episode):
        return finish_with_report(search, on_trial, on_episode, command_line(), trust)


def _print_reach(search: SearchRun) -> None:
    problem, settings = search.problem, search.settings
    limits = {one.metric: one.keep for one in problem.budget.all}
    low, high = problem.granularity.reachable(problem.budget)
    notice(
        f"{settings.model.name}: {len(problem.budget.units)} of {len(problem.walk.units)} units free; reachable "
        f"{low:.1%} to {high:.0%} of the dense {settings.budget.metric}, budget {budget_in_words(limits)}"
    )
    if (idle := idle_words(settings)) is not None:
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
