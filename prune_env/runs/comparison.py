"""Compares searches: several searches and seeds on the same problem, each in its own run.

`prune_env.report.whole_runs.run_comparison` also writes TensorBoard logs, reports and the picture.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from prune_env.common.errors import RunError
from prune_env.common.records import read_record
from prune_env.config import RunConfig
from prune_env.config.trust import Trust
from prune_env.data.splits import SplitsRecord
from prune_env.env.loading import check_names, device_of, refuse_sparse_training
from prune_env.env.problem import PruningProblem
from prune_env.env.trial import Trial
from prune_env.runs.finishing import FinishedSearch, summary_of
from prune_env.runs.networks import NetworkRow, compare_plans
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.searching import SearchRun, Watch, search_into, unwatched
from prune_env.runs.seed_results import SeedResult, as_record, best_so_far
from prune_env.runs.settings import alone, differing_settings, for_workers, settings_of
from prune_env.runs.starting import OnDense, OnProgress, check_same_start, load_problem, quietly, start_run
from prune_env.runs.summaries import ComparedSummary, named
from prune_env.search.episode import SearchResult
from prune_env.search.pools.make import check_workers, worker_count
from prune_env.search.pools.whole import spread
from prune_env.search.registry import SEARCHES, check_evaluations, check_named_search
from prune_env.tasks import make_task, quality_of

OnFinished = Callable[[FinishedSearch], None]


@dataclass(frozen=True)
class SearchComparison:
    """The results of several searches with the same seeds.

    Attributes:
        folder: The folder of the runs: FOLDER/seed-SEED/SEARCH.
        settings: The common settings.
        outcomes: The results of each search, one per seed.
        quality: The task's name for its quality.
    """

    folder: Path
    settings: RunConfig
    outcomes: dict[str, list[SeedResult]]
    quality: str

    @property
    def runs(self) -> list[RunDirectory]:
        """The runs of all searches and seeds."""
        places = [(one.seed, name) for name, outcomes in self.outcomes.items() for one in outcomes]
        return [RunDirectory(self.folder / f"seed-{seed}" / name) for seed, name in places]

    def as_record(self) -> dict[str, Any]:
        """The comparison as plain data, for ``compare.json``."""
        settings = self.settings
        return {
            "model": settings.model.name,
            "budget": settings.budget.as_record(),
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
    on_dense: OnDense = quietly,
) -> SearchComparison:
    """Runs several searches on the same problem, seed by seed; finished runs of an interrupted comparison are kept.

    Args:
        settings: The common settings; ``agent.name`` and ``seed`` are set for each run.
        folder: The folder of the runs: FOLDER/seed-SEED/SEARCH. A comparison in an existing folder is resumed.
        names: Names of searches, one or more.
        seeds: Number of seeds; the first is the configuration's, the others follow it.
        watch: Opens a listener for each search.
        on_progress: Receives progress messages.
        on_finished: Called with each search that this call finishes.
        command: The command that repeats the runs, for their summaries; None for the default command.
        on_dense: Receives the quality of each seed's dense network.

    Raises:
        DoubtfulNetworkError: If a search on the dense network makes no sense.
        ConfigError: If a setting holds an unknown name, or a search needs more evaluations.
        RunError: If the folder holds runs with other settings, or the runs of one seed were measured differently.
    """
    check_workers(settings)
    workers, address = worker_count(settings), settings.run.address
    settings = alone(for_workers(settings))
    check_names(settings)
    refuse_sparse_training(settings)
    for name in names:
        check_named_search(_with(settings, name, settings.seed))
    comparison = _Comparison(settings, folder, names, watch, on_progress, on_finished, command, on_dense)
    every = range(settings.seed, settings.seed + seeds)
    if workers != 1 or address is not None:
        comparison.spread(every, workers, address)
    for seed in every:
        comparison.run(seed)
    return SearchComparison(folder, settings, comparison.outcomes, comparison.quality)


@dataclass
class _Comparison:
    """A comparison with its results so far; the fields are the arguments of `compare_searches`."""

    settings: RunConfig
    folder: Path
    names: Sequence[str]
    watch: Watch
    on_progress: OnProgress
    on_finished: OnFinished
    command: str | None
    on_dense: OnDense

    def __post_init__(self) -> None:
        self.quality = quality_of(make_task(self.settings.task)).name
        whole = self.settings.search.evaluations
        self.milestones = sorted({math.ceil(whole / 3), whole})
        self.outcomes: dict[str, list[SeedResult]] = {name: [] for name in self.names}
        # The runs may name the code that the user's own settings and --searches name.
        self.trust = Trust.of(self.settings).also(self.names)

    def run(self, seed: int) -> None:
        """Runs the missing searches of a seed, and reads the results of all."""
        runs = {name: RunDirectory(self.folder / f"seed-{seed}" / name) for name in self.names}
        fixed: list[NetworkRow] = []
        for search in self._missing(seed):
            # With racing, a search clears the memory of the one before it.
            fixed = self._search(replace(search, problem=search.problem.again()), fixed)
        _check_alike(list(runs.values()), self.trust)
        for name, run in runs.items():
            self.outcomes[name].append(self._outcome(run, name, seed))

    def spread(self, seeds: Sequence[int], workers: int | None, address: str | None) -> None:
        """Runs the missing searches of all seeds, several at a time; arguments as `spread`."""
        searches: dict[Path, SearchRun] = {}
        for seed in seeds:
            for search in self._missing(seed):
                if not search.run.config.is_file():
                    start_run(search.run.root, search.settings, search.splits, search.problem)
                searches[search.run.root] = search
        if not searches:
            return
        task = replace(self, on_progress=quietly, on_finished=quietly, on_dense=quietly)
        tasks = {root: (task, root.absolute(), search.settings) for root, search in searches.items()}
        gpu = device_of(self.settings).type == "cuda"
        self.on_progress(f"{len(tasks)} searches, several at a time")
        for number, (root, done) in enumerate(spread(_search_elsewhere, tasks, workers, address, gpu), start=1):
            self.on_finished(FinishedSearch(searches[root], *done))
            self.on_progress(f"{number} of {len(tasks)} searches are finished")

    def _missing(self, seed: int) -> list[SearchRun]:
        """The searches of a seed that are not finished."""
        runs = {name: RunDirectory(self.folder / f"seed-{seed}" / name) for name in self.names}
        for name, run in runs.items():
            if run.config.is_file():
                _check_same_settings(run, _with(self.settings, name, seed))
        missing = [name for name, run in runs.items() if not run.summary.is_file()]
        if not missing:
            return []
        # All searches of a seed share the execution settings and the weights of the first run of this seed.
        earlier = next(iter(self._present(seed)), None)
        base = _with(self.settings, missing[0], seed)
        if earlier is not None:
            base = settings_of(earlier, [f"agent.name={missing[0]}"], self.trust)
        splits, problem = load_problem(base, earlier, self.on_progress, self.on_dense)
        for name in missing:
            check_evaluations(problem, _with(base, name, seed))
        return [SearchRun(runs[name], _with(self.settings, name, seed), splits, problem.again()) for name in missing]

    def _present(self, seed: int) -> list[RunDirectory]:
        """All started searches of a seed, including those that this call does not compare."""
        folders = sorted((self.folder / f"seed-{seed}").glob("[!.]*/config.yaml"))
        return [run for run in (RunDirectory(config.parent) for config in folders) if run.started]

    def _search(self, search: SearchRun, fixed: list[NetworkRow]) -> list[NetworkRow]:
        """As `_finished`; returns the rows of the dense and the uniform network, measured once per seed."""
        return self._finished(search, fixed).rows[:2]

    def _finished(self, search: SearchRun, fixed: list[NetworkRow]) -> FinishedSearch:
        """Runs one search to its end."""
        run, settings, problem = search.run, search.settings, search.problem
        if run.config.is_file():
            check_same_start(run, search.splits, problem)
        else:
            start_run(run.root, settings, search.splits, problem)
        name, total = settings.agent.name, settings.search.evaluations
        label = f"seed {settings.seed}, {name}"
        uniform, result = search_into(
            search, self.watch, lambda trial: self.on_progress(f"{label}: {trial.number} of {total} evaluations")
        )
        self.on_progress(f"{label}: measuring the best plan")
        if not fixed:
            plans = {"dense": problem.walk.plan({}), "uniform": uniform.plan}
            fixed = compare_plans(problem.evaluator, search.splits, plans, batch=None)
        rows = compare_plans(problem.evaluator, search.splits, {name: result.best.plan}, batch=None)
        summary = summary_of(search, result, [*fixed, *rows], self.command)
        summary["best_after"] = {**self._early(run, name, problem), str(total): rows[0].reward_quality}
        run.write_json(run.summary, summary)
        finished = FinishedSearch(search, uniform, result, [*fixed, *rows], summary)
        self.on_finished(finished)
        return finished

    def _early(self, run: RunDirectory, name: str, problem: PruningProblem) -> dict[str, float]:
        """Float32 quality of the best plan after each milestone except the last."""
        _, records = best_so_far(run, name, self.milestones[-1], self.quality)
        qualities = {}
        for count in self.milestones[:-1]:
            widths = records[count - 1].widths
            plan = problem.plan(np.array([widths[unit.name] for unit in problem.budget.units]))
            qualities[str(count)] = problem.evaluator.measure(problem.evaluator.pruned(plan))
        return qualities

    def _outcome(self, run: RunDirectory, name: str, seed: int) -> SeedResult:
        summary = read_record(run.summary, named(ComparedSummary, self.quality))
        curve, _ = best_so_far(run, name, self.milestones[-1], self.quality)
        best = {count: summary.best_after.get(str(count)) for count in self.milestones}
        tested = summary.rows[-1].test_quality
        if tested is None or None in best.values():
            missing = [f"best_after.{count}" for count, found in best.items() if found is None]
            missing += [f"rows: test_{self.quality} of the last one"] * (tested is None)
            raise RunError(f"{str(run.summary)!r} lacks {', '.join(missing)}. {summary.remedy}")
        return SeedResult(seed, curve, best, tested, summary.seconds)


FinishedElsewhere = tuple[Trial, SearchResult, list[NetworkRow], dict[str, Any]]
"""What a process sends back of a `FinishedSearch`."""


def _search_elsewhere(comparison: _Comparison, root: Path, settings: RunConfig) -> FinishedElsewhere:
    """Runs one started search of a comparison in a process of its own."""
    run = RunDirectory.open(root)
    splits, problem = load_problem(settings_of(run, trust=comparison.trust), run)
    done = comparison._finished(SearchRun(run, settings, splits, problem), [])
    return done.uniform, replace(done.result, policy=None), done.rows, done.summary


def _with(settings: RunConfig, search: str, seed: int) -> RunConfig:
    policy = settings.agent.policy if SEARCHES.find(search).takes_policy else None
    agent = settings.agent.model_copy(update={"name": search, "policy": policy})
    return settings.model_copy(update={"agent": agent, "seed": seed})


def _check_same_settings(run: RunDirectory, settings: RunConfig) -> None:
    started = run.settings(trust=Trust.of(settings))
    # How the plans are trained afterwards changes nothing in a search.
    differing = [key for key in differing_settings(started, settings) if key != "finetune"]
    differing += [
        f"execution.{key}" for key, value in settings.execution if value not in (None, getattr(started.execution, key))
    ]
    if differing:
        raise RunError(
            f"{str(run.root)!r} holds a run with other settings under {', '.join(differing)}. The runs "
            "of a comparison may differ only in search and seed. Give another folder by run.directory=..."
        )


def _check_alike(runs: Sequence[RunDirectory], trust: Trust) -> None:
    """Checks that the runs of one seed were measured in the same way.

    Raises:
        RunError: If their execution settings, weights or images differ.
    """
    first, *others = runs
    for other in others:
        settings = [run.settings(trust=trust).execution for run in (first, other)]
        weights = [run.execution_record().weights for run in (first, other)]
        splits = [read_record(run.splits, SplitsRecord) for run in (first, other)]
        for what, (ours, theirs) in (("execution.*", settings), ("weights", weights), ("images", splits)):
            if ours != theirs:
                raise RunError(
                    f"{str(first.root)!r} and {str(other.root)!r} were measured with other {what}, so their results "
                    "cannot be compared. Move one of them away; the comparison then runs it again."
                )
