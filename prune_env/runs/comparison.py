"""Searches side by side: the same problem for several searches and seeds, each in a run of its own.

`prune_env.report.whole_runs.run_comparison` does all of this by one call, with TensorBoard, reports and the picture.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prune_env.common.errors import RunError
from prune_env.config import RunConfig
from prune_env.env.loading import check_names
from prune_env.env.problem import PruningProblem
from prune_env.runs.directory import RunDirectory
from prune_env.runs.finishing import FinishedSearch, summary_of
from prune_env.runs.networks import NetworkRow, compare_plans
from prune_env.runs.searching import SearchRun, Watch, search_into, unwatched
from prune_env.runs.seed_results import SeedResult, as_record, best_so_far
from prune_env.runs.settings import differing_settings, settings_of
from prune_env.runs.starting import OnProgress, check_same_start, load_problem, quietly, start_run
from prune_env.search.registry import check_evaluations, check_search
from prune_env.tasks import make_task, quality_of

OnFinished = Callable[[FinishedSearch], None]


@dataclass(frozen=True)
class SearchComparison:
    """What several searches found with the same seeds.

    Attributes:
        folder: Where their runs are: FOLDER/seed-SEED/SEARCH.
        settings: What they have in common.
        outcomes: What each search found, seed by seed.
        quality: What the task calls its quality.
    """

    folder: Path
    settings: RunConfig
    outcomes: dict[str, list[SeedResult]]
    quality: str

    def as_record(self) -> dict[str, Any]:
        """The comparison as plain data, as ``compare.json`` holds it."""
        settings = self.settings
        return {
            "model": settings.model.name,
            "budget": {"metric": settings.budget.metric, "keep": settings.budget.keep},
            "evaluations": settings.search.evaluations,
            "directory": str(self.folder),
            "searches": as_record(self.outcomes, self.quality),
        }


def compare_searches(
    settings: RunConfig,
    folder: Path,
    names: Sequence[str],
    seeds: int,
    watch: Watch = unwatched,
    on_progress: OnProgress = quietly,
    on_finished: OnFinished = quietly,
    command: str | None = None,
) -> SearchComparison:
    """Runs several searches on the same problem, seed by seed; finished runs of an interrupted comparison are kept.

    Args:
        settings: What the searches have in common; ``agent.name`` and ``seed`` are set for each.
        folder: Where the runs are kept: FOLDER/seed-SEED/SEARCH. One that exists is gone on with.
        names: Names of searches, one or more.
        seeds: How many seeds, from the configuration's on.
        watch: Opens a listener of each search.
        on_progress: Hears in words what is going on.
        on_finished: Hears of each search that was run now and has come to its end.
        command: The command that makes the runs again, for their summaries; the usual one where it is None.

    Raises:
        ConfigError: If a setting names what does not exist, or the evaluations do not suffice.
        RunError: If the folder holds runs with other settings, or runs of one seed were not measured alike.
    """
    check_names(settings)
    for name in names:
        check_search(_with(settings, name, settings.seed))
    comparison = _Comparison(settings, folder, names, watch, on_progress, on_finished, command)
    for seed in range(settings.seed, settings.seed + seeds):
        comparison.run(seed)
    return SearchComparison(folder, settings, comparison.outcomes, comparison.quality)


@dataclass
class _Comparison:
    """The seeds so far of a comparison; the fields are what `compare_searches` takes."""

    settings: RunConfig
    folder: Path
    names: Sequence[str]
    watch: Watch
    on_progress: OnProgress
    on_finished: OnFinished
    command: str | None

    def __post_init__(self) -> None:
        self.quality = quality_of(make_task(self.settings.task)).name
        whole = self.settings.search.evaluations
        self.milestones = sorted({math.ceil(whole / 3), whole})
        self.outcomes: dict[str, list[SeedResult]] = {name: [] for name in self.names}

    def run(self, seed: int) -> None:
        """Does what is missing of a seed, and reads what there is."""
        runs = {name: RunDirectory(self.folder / f"seed-{seed}" / name) for name in self.names}
        started = [name for name, run in runs.items() if run.config.is_file()]
        for name in started:
            _check_same_settings(runs[name], _with(self.settings, name, seed))
        if missing := [name for name, run in runs.items() if not run.summary.is_file()]:
            # The execution settings and the weights of a run that was started are everyone's, whichever search's it is.
            earlier = next(iter(self._present(seed)), None)
            base = settings_of(earlier) if earlier is not None else _with(self.settings, missing[0], seed)
            splits, problem = load_problem(base, earlier, self.on_progress)
            for name in missing:
                check_evaluations(problem, _with(base, name, seed))
            fixed: list[NetworkRow] = []
            for name in missing:
                search = SearchRun(runs[name], _with(self.settings, name, seed), splits, problem.again())
                fixed = self._search(search, fixed)
        _check_alike(list(runs.values()))
        for name, run in runs.items():
            self.outcomes[name].append(self._outcome(run, name, seed))

    def _present(self, seed: int) -> list[RunDirectory]:
        """All runs of a seed that were started, also of searches that are not asked for now."""
        folders = sorted((self.folder / f"seed-{seed}").glob("[!.]*/config.yaml"))
        return [RunDirectory(config.parent) for config in folders]

    def _search(self, search: SearchRun, fixed: list[NetworkRow]) -> list[NetworkRow]:
        """Runs one search to its end; returns the rows of the networks that are the same for all."""
        run, settings, problem = search.run, search.settings, search.problem
        if run.config.is_file():
            check_same_start(run, search.splits, problem)
        else:
            start_run(run.root, settings, search.splits, problem)
        name, total = settings.agent.name, settings.search.evaluations
        words = f"seed {settings.seed}, {name}"
        uniform, result = search_into(
            search, self.watch, lambda trial: self.on_progress(f"{words}: {trial.number} of {total} evaluations")
        )
        self.on_progress(f"{words}: measuring the best plan")
        if not fixed:
            plans = {"dense": problem.walk.plan({}), "uniform": uniform.plan}
            fixed = compare_plans(problem.evaluator, search.splits, plans, batch=None)
        rows = compare_plans(problem.evaluator, search.splits, {name: result.best.plan}, batch=None)
        summary = summary_of(search, result, [*fixed, *rows], self.command)
        summary["best_after"] = {**self._early(run, name, problem), str(total): rows[0].reward_quality}
        run.write_json(run.summary, summary)
        self.on_finished(FinishedSearch(search, uniform, result, [*fixed, *rows], summary))
        return fixed

    def _early(self, run: RunDirectory, name: str, problem: PruningProblem) -> dict[str, float]:
        """Float32 quality of the best plan after each milestone but the last."""
        _, records = best_so_far(run, name, self.milestones[-1], self.quality)
        found = {}
        for count in self.milestones[:-1]:
            widths = records[count - 1]["widths"]
            plan = problem.plan(np.array([widths[unit.name] for unit in problem.budget.units]))
            found[str(count)] = problem.evaluator.measure(problem.evaluator.pruned(plan))
        return found

    def _outcome(self, run: RunDirectory, name: str, seed: int) -> SeedResult:
        summary = run.read_json(run.summary)
        curve, _ = best_so_far(run, name, self.milestones[-1], self.quality)
        try:
            best = {count: float(summary["best_after"][str(count)]) for count in self.milestones}
            tested = float(summary["rows"][-1][f"test_{self.quality}"])
            return SeedResult(seed, curve, best, tested, float(summary["seconds"]))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise RunError(
                f"{str(run.summary)!r} is not of a comparison's run ({error!r}): it was finished by another command, "
                "or with another number of evaluations. Remove this file, and the comparison finishes the run itself."
            ) from None


def _with(settings: RunConfig, search: str, seed: int) -> RunConfig:
    agent = settings.agent.model_copy(update={"name": search})
    return settings.model_copy(update={"agent": agent, "seed": seed})


def _check_same_settings(run: RunDirectory, settings: RunConfig) -> None:
    started = RunConfig.load(run.config)
    differing = differing_settings(started, settings)
    differing += [
        f"execution.{key}" for key, value in settings.execution if value not in (None, getattr(started.execution, key))
    ]
    if differing:
        raise RunError(
            f"{str(run.root)!r} holds a run with other settings under {', '.join(differing)}. A comparison is of "
            "runs that differ in search and seed alone: give another folder by run.directory=..."
        )


def _check_alike(runs: Sequence[RunDirectory]) -> None:
    """Refuses to compare runs of one seed that were measured in different ways.

    Raises:
        RunError: If their execution settings, weights or images differ.
    """
    first, *others = runs
    for other in others:
        settings = [RunConfig.load(run.config).execution for run in (first, other)]
        weights = [run.execution_record().get("weights") for run in (first, other)]
        splits = [run.read_json(run.splits) for run in (first, other)]
        for what, (ours, theirs) in (("execution.*", settings), ("weights", weights), ("images", splits)):
            if ours != theirs:
                raise RunError(
                    f"{str(first.root)!r} and {str(other.root)!r} were measured with other {what}, so that their "
                    "results do not compare. Move one of them away, and it is measured again like the other."
                )
