"""`prune-env train`: searches a network's pruning plan."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from prune_env.commands.common import (
    AsJson,
    Overrides,
    TrustRun,
    between_commas,
    command_line,
    console,
    notice,
    print_json,
    results,
    run_command,
    run_directory_of,
    trust_of,
    warn,
)
from prune_env.common.errors import ConfigError
from prune_env.report.network_table import render, warnings_of
from prune_env.report.whole_runs import finish_with_report, run_searches
from prune_env.runs.finishing import FinishedSearch
from prune_env.runs.searching import SearchRun, resume_search, start_search
from prune_env.runs.settings import for_workers, read_settings
from prune_env.search.episode import Episode
from prune_env.search.pools.make import idle_words, worker_count
from prune_env.tasks import make_task, quality_of

Config = Annotated[
    Path | None, typer.Argument(help="A YAML file of settings, for example configs/digits.yaml.", show_default=False)
]
Resume = Annotated[
    Path | None,
    typer.Option(help="The directory of an interrupted run, to resume it.", show_default=False),
]


Budgets = Annotated[
    str | None,
    typer.Option(
        help="Several budgets instead of budget.keep, such as 0.5,0.3: one run for each, RUN/keep-0.5 and so on, "
        "search.workers of them at a time.",
        show_default=False,
    ),
]


def train(
    config: Config = None,
    overrides: Overrides = None,
    resume: Resume = None,
    budgets: Budgets = None,
    trust: TrustRun = False,
    as_json: AsJson = False,
) -> None:
    """Searches a pruning plan: an agent learns the width of each unit of the network."""
    if (config is None) == (resume is None):
        raise typer.BadParameter(
            "give a file of settings to start a run, or --resume RUN to resume one with its own settings; "
            f"{'neither was' if config is None else 'both were'} given."
        )
    if budgets is not None:
        if config is None:
            raise typer.BadParameter("--budgets needs a file of settings. Repeat the command to go on with its runs.")
        _train_several(config, list(overrides or ()), budgets, as_json)
        return
    with console.status("loading") as status:
        if config is not None:
            settings = read_settings(config, overrides or ())
            search = start_search(settings, run_directory_of(settings, config), status.update)
        else:
            search = resume_search(Path(str(resume)), status.update, trust_of(trust))
    _print_reach(search)
    finished = _finish(search)
    run = search.run
    policy = str(run.policy) if finished.result.policy is not None else None
    if as_json:
        print_json({**finished.summary, "run": str(run.root), "plan": str(run.plan), "policy": policy})
        return
    _print_result(finished)
    places = (("plan", run.plan), ("policy", policy), ("TensorBoard", run.tensorboard), ("report", run.report))
    for name, place in places:
        if place is not None:
            results.print(f"{name:<12}{place}", soft_wrap=True)


def _train_several(config: Path, overrides: list[str], budgets: str, as_json: bool) -> None:
    """Runs one search for each budget."""
    kept = between_commas(budgets)
    settings = {keep: for_workers(read_settings(config, [*overrides, f"budget.keep={keep}"])) for keep in kept}
    if not settings:
        raise ConfigError("--budgets: none given; allowed are shares in (0, 1], separated by commas, such as 0.5,0.3.")
    root = run_directory_of(next(iter(settings.values())), config)
    runs = {root / f"keep-{keep}": given for keep, given in settings.items()}
    workers = worker_count(next(iter(settings.values())))
    with console.status(f"{len(runs)} searches"):
        found = run_searches(runs, workers, lambda folder: notice(f"{folder} is finished"))
    if as_json:
        print_json({"runs": [{"run": str(folder), **summary} for folder, summary in found.items()]})
        return
    for folder, summary in found.items():
        results.print(f"{folder}: best reward {summary['best_reward']:.4g}, {summary['seconds']:.0f} s", soft_wrap=True)


def _finish(search: SearchRun) -> FinishedSearch:
    """Runs the search under a progress bar."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("best reward {task.fields[reward]}, {task.fields[quality]}{task.fields[workers]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        quality = f"{search.problem.quality_name} -"
        total = search.settings.search.evaluations
        bar = progress.add_task("search", total=total, reward="-", quality=quality, workers="")

        def show(episode: Episode) -> None:
            best = episode.best
            quality = f"{best.quality_name} {best.outcome.quality:.2%}"
            progress.update(bar, reward=f"{best.reward:.4g}", quality=quality, workers=_of_workers(episode))

        return finish_with_report(search, lambda _: progress.advance(bar), show, command_line())


def _of_workers(episode: Episode) -> str:
    """The status line's part about workers; empty where this process measures."""
    told = {tag.removeprefix("workers/"): value for tag, value in episode.scalars.items() if tag.startswith("workers/")}
    if not told:
        return ""
    again = f", {told['asked_again']:.0f} asked again" if told["asked_again"] else ""
    return (
        f"; {told['workers']:.0f} workers, {told['in_flight']:.0f} in flight{again}, "
        f"{told['evaluations_per_second']:.1f} evaluations/s"
    )


def _print_reach(search: SearchRun) -> None:
    problem, settings = search.problem, search.settings
    low, high = problem.granularity.reachable(problem.budget)
    notice(
        f"{settings.model.name}: {len(problem.budget.units)} of {len(problem.walk.units)} units free; reachable "
        f"{low:.1%} to {high:.0%} of the dense {settings.budget.metric}, budget {settings.budget.keep:.0%}"
    )
    if settings.run.address is None and (idle := idle_words(settings)) is not None:
        notice(idle)


def _print_result(finished: FinishedSearch) -> None:
    problem, settings, result = finished.search.problem, finished.search.settings, finished.result
    title = f"{result.episodes} episodes, {result.seconds:.0f} s"
    results.print(render(finished.rows, title, settings.budget.batch))
    if (sparsified := finished.summary.get("sparsify")) is not None:
        metric = quality_of(make_task(settings.task))
        before, after = (sparsified[when][f"test_{metric.name}"] for when in ("before", "after"))
        epochs = f"{sparsified['epochs']} epoch{'s' if sparsified['epochs'] != 1 else ''}"
        results.print(
            f"sparse training: {metric.name} {before:{metric.format}} before and {after:{metric.format}} after "
            f"{epochs} with {sparsified['penalty']}, on the test set",
            soft_wrap=True,
        )
    for warning in (*(sparsified or {}).get("warnings", ()), *warnings_of(finished.rows)):
        warn(warning)
    if finished.uniform.reward >= result.best.reward:
        warn(
            f"The uniform plan is at least as good as the best plan of {settings.agent.name} on the reward set. "
            "Give the search more evaluations, or use the uniform plan."
        )
    if problem.race is not None:
        whole = problem.evaluator.images * finished.summary["evaluations"]
        results.print(f"racing skipped {finished.summary['images_left'] / whole:.0%} of the reward images")


if __name__ == "__main__":
    run_command(train)
