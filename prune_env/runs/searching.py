"""Starts or resumes a search in a run directory, and runs it to its end.

`prune_env.report.whole_runs.run_search` also writes the TensorBoard log and the report.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from prune_env.common.errors import RunError
from prune_env.config import RunConfig
from prune_env.config.trust import NOTHING, Trust
from prune_env.data import Splits
from prune_env.env.builders import build_problem
from prune_env.env.loading import check_names
from prune_env.env.problem import PruningProblem
from prune_env.env.trial import Trial, TrialRecord
from prune_env.runs.changing import changed_settings
from prune_env.runs.files import check_files
from prune_env.runs.journal import RunJournal
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.settings import for_workers, settings_of, use_threads
from prune_env.runs.sparsifying import SparseTraining, finish_sparsifying, resume_sparsifying, start_sparsifying
from prune_env.runs.starting import OnDense, OnProgress, check_same_start, load_problem, quietly, start_run
from prune_env.search.base import Search
from prune_env.search.episode import Episode, Listener, SearchResult
from prune_env.search.loop import train_agent
from prune_env.search.policy import save_policy
from prune_env.search.pools.make import check_sendable, check_workers
from prune_env.search.registry import check_evaluations, check_named_search
from prune_env.tasks import make_task, quality_of

OnTrial = Callable[[Trial], None]
OnEpisode = Callable[[Episode], object]
"""Receives each episode of a search; one that returns False stops the search."""


@dataclass(frozen=True)
class SearchRun:
    """A search that was started and may have been interrupted.

    Attributes:
        run: The run directory.
        settings: The settings.
        splits: The data.
        problem: The problem, without trials.
        changed: Settings that replace the run's with its first new evaluation; None if they stay.
    """

    run: RunDirectory
    settings: RunConfig
    splits: Splits
    problem: PruningProblem
    changed: RunConfig | None = None


Watch = Callable[[SearchRun], AbstractContextManager[Listener]]
"""Opens a listener for the duration of a search; see `prune_env.report.board.watch_on_board`."""


def unwatched(_: SearchRun) -> AbstractContextManager[Listener]:
    """A listener that does nothing."""
    return nullcontext(lambda _episode, _search: None)


def start_search(
    settings: RunConfig, folder: Path, on_progress: OnProgress = quietly, on_dense: OnDense = quietly
) -> SearchRun:
    """Prepares a search and makes its run directory; `search_into` runs the search.

    With ``sparsify.epochs`` above 0, the network is trained sparsely first, in the run directory.

    Args:
        settings: The settings.
        folder: A folder that does not exist.
        on_progress: Receives progress messages.
        on_dense: Receives the quality of the dense network.

    Raises:
        RunError: If the folder exists or cannot be made.
        ConfigError: If a setting holds an unknown name, the search needs more evaluations, there is no cluster at
            ``run.address``, or the problem cannot be sent to workers.
        DoubtfulNetworkError: If a search on the dense network makes no sense.
        BudgetError: If the budget cannot be met.
    """
    settings = for_workers(settings)
    RunDirectory.check_free(folder)
    check_names(settings)
    check_named_search(settings)
    check_workers(settings)
    if settings.sparsify.epochs:
        use_threads(settings)
        return _sparsified(start_sparsifying(settings, folder, on_progress, on_dense), on_progress)
    splits, problem = load_problem(settings, on_progress=on_progress, on_dense=on_dense)
    check_evaluations(problem, settings)
    check_sendable(problem, settings)
    return SearchRun(start_run(folder, settings, splits, problem), settings, splits, problem)


def _sparsified(training: SparseTraining, on_progress: OnProgress) -> SearchRun:
    """Finishes a sparse training, and starts the search of its run from the sparse weights."""
    model = finish_sparsifying(training, on_progress)
    run, settings, splits = training.run, training.settings, training.splits
    problem = build_problem(settings, splits, model, on_progress)
    check_evaluations(problem, settings)
    return SearchRun(start_run(run.root, settings, splits, problem, run), settings, splits, problem)


def resume_search(
    folder: Path, on_progress: OnProgress = quietly, overrides: Sequence[str] = (), trust: Trust = NOTHING
) -> SearchRun:
    """Loads a search with its own settings; `search_into` resumes it, or extends a finished one.

    A sparse training that was interrupted is finished first. With another ``search.evaluations``, the schedules of the
    agent stay those of the first number (``search.schedule``).

    Args:
        folder: The run directory of the search.
        on_progress: Receives progress messages.
        overrides: Settings that a resume may change (`prune_env.runs.changing`): ``key.path=value``. They are written
            with the first new evaluation.
        trust: The code that the run's settings may name.

    Raises:
        ConfigError: If the settings name code that is not trusted, or an override changes another setting or gives
            fewer evaluations than the run has.
        RunError: If the run does not exist, is finished and not extended, is damaged, or was started with other weights
            or images.
    """
    run = RunDirectory.open(folder)
    changed = changed_settings(run, overrides, trust)
    if not run.started and run.sparsify.is_dir():
        search = _sparsified(resume_sparsifying(run, trust), on_progress)
    else:
        settings = for_workers(settings_of(run, overrides, trust))
        check_workers(settings)
        check_files(run, quality_of(make_task(settings.task)).name)
        splits, problem = load_problem(settings, run, on_progress)
        check_same_start(run, splits, problem)
        search = SearchRun(run, settings, splits, problem)
    if changed is None:
        return search
    settings = search.settings.model_copy(update={"search": changed.search, "run": changed.run})
    return replace(search, settings=settings, changed=changed)


def search_into(
    search: SearchRun, watch: Watch = unwatched, on_trial: OnTrial = quietly, on_episode: OnEpisode = quietly
) -> tuple[Trial, SearchResult]:
    """Tries the uniform plan and runs the search; records every trial, the best plan and the policy in the run.

    A resumed run repeats its recorded trials without measuring them again. A search depends only on the outcomes, so
    the recorded outcomes restore its state.

    Args:
        search: The search.
        watch: Opens a listener for the search.
        on_trial: Called with each trial.
        on_episode: Called with each episode of the search; False stops the search.

    Returns:
        The uniform plan's trial, and the result.

    Raises:
        RunError: If the search proposes other plans than the recorded ones, has nothing to extend, or another process
            writes into the run.
    """
    run, problem = search.run, search.problem
    written: Trial | None = None

    changed = search.changed

    def record(trial: Trial) -> None:
        nonlocal changed
        if not trial.recalled:
            if changed is not None:
                # Only now, because until here the recorded trials may still prove to be those of another search. First
                # the summary: a run without one is resumed, with the old settings or the new ones.
                run.summary.unlink(missing_ok=True)
                run.write_config(changed)
                changed = None
            run.append_evaluation(trial.as_record())
        on_trial(trial)

    def keep(episode: Episode, running: Search) -> object:
        nonlocal written
        if episode.best is not written and not problem.recalling:
            written = episode.best
            run.write_bytes(run.plan, written.plan.to_json())
            if running.policy is not None:
                save_policy(running.policy, run.policy)
        return on_episode(episode)

    with run.held():
        problem.recorded_trials = run.evaluations(problem.quality_name)
        journal = RunJournal(run, problem.quality_name)
        problem.listeners.append(record)
        try:
            with watch(search) as listener:
                uniform = problem.attempt(problem.budget.uniform(), "uniform")
                result = train_agent(problem, search.settings, (keep, listener), journal=journal)
        finally:
            problem.listeners.remove(record)
        if changed is not None and run.summary.is_file():
            raise RunError(
                f"The search {search.settings.agent.name!r} has nothing left to try: it ended after "
                f"{problem.trials - 1} evaluations. Nothing in {str(run.root)!r} was changed."
            )
        if problem.recalling:
            raise RunError(
                f"{str(run.evaluations_file)!r} has {len(problem.recorded_trials)} lines, but the search tries "
                f"{problem.trials} plans. {TrialRecord.remedy}"
            )
        journal.close()
        run.write_bytes(run.plan, result.best.plan.to_json())
        if result.policy is not None:
            save_policy(result.policy, run.policy)
    return uniform, result
