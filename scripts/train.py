"""`prune-env train`: search a network's pruning plan."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from prune_env.common.errors import RunError
from prune_env.config import RunConfig
from prune_env.data import Splits
from prune_env.env.loading import check_names
from prune_env.env.problem import PruningProblem
from prune_env.env.trial import Trial
from prune_env.report.network_table import compare_plans, render, warnings_of
from prune_env.report.page import write_report
from prune_env.runs.directory import RunDirectory
from prune_env.runs.searching import check_same_start, prepare, search_into, settings_of, start_run, summary_of
from prune_env.search.episode import Episode, SearchResult
from prune_env.search.registry import check_evaluations, check_search
from scripts.common import (
    AsJson,
    Overrides,
    console,
    print_json,
    read_config,
    results,
    run_command,
    run_directory_of,
)

Config = Annotated[
    Path | None, typer.Argument(help="A YAML file of settings, for example configs/digits.yaml.", show_default=False)
]
Resume = Annotated[
    Path | None,
    typer.Option(help="The directory of a run that was interrupted: it goes on where it was.", show_default=False),
]


def train(config: Config = None, overrides: Overrides = None, resume: Resume = None, as_json: AsJson = False) -> None:
    """Searches a pruning plan: an agent walks the network and learns how much of each unit stays."""
    if (config is None) == (resume is None):
        raise typer.BadParameter(
            "give a file of settings to start a run, or --resume RUN to take one up with its own settings; "
            f"{'neither was' if config is None else 'both were'} given."
        )
    run, settings, splits, problem = _new(config, overrides) if config is not None else _again(Path(str(resume)))
    uniform, result = _search(problem, settings, run)
    plans = {"dense": problem.walk.plan({}), "uniform": uniform.plan, settings.agent.name: result.best.plan}
    rows = compare_plans(problem.evaluator, splits, plans, settings.budget.batch)
    summary = summary_of(run, problem, settings, result, rows)
    run.write_json(run.summary, summary)
    report = write_report(run)
    policy = str(run.policy) if result.policy is not None else None
    if as_json:
        print_json({**summary, "run": str(run.root), "plan": str(run.plan), "policy": policy})
        return
    results.print(render(rows, f"{result.episodes} episodes, {result.seconds:.0f} s", settings.budget.batch))
    for warning in warnings_of(rows):
        results.print(f"[yellow]{warning}[/yellow]", soft_wrap=True)
    if uniform.reward >= result.best.reward:
        results.print(
            f"[yellow]The uniform plan is at least as good as the best of {settings.agent.name} on the reward set. "
            "Give the search more evaluations, or use the uniform plan.[/yellow]"
        )
    if problem.racing:
        whole = problem.evaluator.images * summary["evaluations"]
        results.print(f"racing left {summary['images_left'] / whole:.0%} of the reward images unseen")
    for name, place in (("plan", run.plan), ("policy", policy), ("TensorBoard", run.tensorboard), ("report", report)):
        if place is not None:
            results.print(f"{name:<12}{place}", soft_wrap=True)


def _new(config: Path, overrides: list[str] | None) -> tuple[RunDirectory, RunConfig, Splits, PruningProblem]:
    settings = read_config(config, overrides)
    folder = run_directory_of(settings, config)
    RunDirectory.check_free(folder)
    check_names(settings)
    check_search(settings)
    splits, problem = prepare(settings)
    check_evaluations(problem, settings)
    return start_run(folder, settings, splits, problem), settings, splits, problem


def _again(folder: Path) -> tuple[RunDirectory, RunConfig, Splits, PruningProblem]:
    run = RunDirectory.open(folder)
    if run.summary.is_file():
        raise RunError(
            f"The run in {str(folder)!r} is finished: there is nothing left to do. Its result is in "
            f"{str(run.summary)!r}, and `prune-env report` writes its page; for a longer search, start a new run with "
            "more search.evaluations."
        )
    settings = settings_of(run)
    splits, problem = prepare(settings, run)
    check_same_start(run, splits, problem)
    return run, settings, splits, problem


def _search(problem: PruningProblem, settings: RunConfig, run: RunDirectory) -> tuple[Trial, SearchResult]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("best reward {task.fields[reward]}, accuracy {task.fields[accuracy]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("search", total=settings.search.evaluations, reward="-", accuracy="-")

        def tell(episode: Episode) -> None:
            best = episode.best
            progress.update(bar, reward=f"{best.reward:.4g}", accuracy=f"{best.outcome.accuracy:.2%}")

        return search_into(run, problem, settings, lambda _: progress.advance(bar), tell)


if __name__ == "__main__":
    run_command(train)
