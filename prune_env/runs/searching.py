"""Starts or resumes a search in a run directory, and runs it to its end.

`prune_env.report.whole_runs.run_search` also writes the TensorBoard log and the report.
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import prune_env.agents  # noqa: F401  (registers the searches)
from prune_env.common.errors import RunError
from prune_env.config import RunConfig
from prune_env.config.trust import NOTHING, Trust
from prune_env.data import Splits
from prune_env.env.builders import build_problem
from prune_env.env.loading import check_names
from prune_env.env.problem import PruningProblem
from prune_env.env.trial import Trial, TrialRecord
from prune_env.runs.files import check_files
from prune_env.runs.journal import RunJournal
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.settings import for_workers, settings_of, use_threads
from prune_env.runs.sparsifying import SparseTraining, finish_sparsifying, resume_sparsifying, start_sparsifying
from prune_env.runs.starting import OnProgress, check_same_start, load_problem, quietly, start_run
from prune_env.search.base import Search
from prune_env.search.episode import Episode, Listener, SearchResult
from prune_env.search.loop import train_agent
from prune_env.search.policy import save_policy
from prune_env.search.registry import check_evaluations, check_named_search
from prune_env.tasks import make_task, quality_of

OnTrial = Callable[[Trial], None]
OnEpisode = Callable[[Episode], None]


@dataclass(frozen=True)
class SearchRun:
    """A search that was started and may have been interrupted.

    Attributes:
        run: The run directory.
        settings: The settings.
        splits: The data.
        problem: The problem, without trials.
    """

    run: RunDirectory
    settings: RunConfig
    splits: Splits
    problem: PruningProblem


Watch = Callable[[SearchRun], AbstractContextManager[Listener]]
"""Opens a listener for the duration of a search; see `prune_env.report.board.watch_on_board`."""


def unwatched(_: SearchRun) -> AbstractContextManager[Listener]:
    """A listener that does nothing."""
    return nullcontext(lambda _episode, _search: None)


def start_search(settings: RunConfig, folder: Path, on_progress: OnProgress = quietly) -> SearchRun:
    """Prepares a search and makes its run directory; `search_into` runs the search.

    With ``sparsify.epochs`` above 0, the network is trained sparsely first, in the run directory.

    Args:
        settings: The settings.
        folder: A folder that does not exist.
        on_progress: Receives progress messages.

    Raises:
        RunError: If the folder exists or cannot be made.
        ConfigError: If a setting holds an unknown name, or the search needs more evaluations.
        BudgetError: If the budget cannot be met.
    """
    settings = for_workers(settings)
    refuse_temporary(folder)
    RunDirectory.check_free(folder)
    check_names(settings)
    check_named_search(settings)
    if settings.sparsify.epochs:
        use_threads(settings)
        return _sparsified(start_sparsifying(settings, folder, on_progress), on_progress)
    splits, problem = load_problem(settings, on_progress=on_progress)
    check_evaluations(problem, settings)
    return SearchRun(start_run(folder, settings, splits, problem), settings, splits, problem)


def refuse_temporary(folder: Path) -> None:
    """Refuses a relative run directory inside a submitted Ray job, whose working directory is temporary.

    Raises:
        RunError: If the run would be lost with the job.
    """
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and not folder.is_absolute():
        raise RunError(
            f"run.directory: {str(folder)!r} given inside a submitted Ray job, whose working directory is removed at "
            "its end. Give an absolute path on a disk that stays: run.directory=/..."
        )


def _sparsified(training: SparseTraining, on_progress: OnProgress) -> SearchRun:
    """Finishes a sparse training, and starts the search of its run from the sparse weights."""
    model = finish_sparsifying(training, on_progress)
    run, settings, splits = training.run, training.settings, training.splits
    problem = build_problem(settings, splits, model, on_progress)
    check_evaluations(problem, settings)
    return SearchRun(start_run(run.root, settings, splits, problem, run), settings, splits, problem)


def resume_search(folder: Path, on_progress: OnProgress = quietly, trust: Trust = NOTHING) -> SearchRun:
    """Loads an interrupted search with its own settings; `search_into` resumes it.

    A sparse training that was interrupted is finished first.

    Args:
        folder: The run directory of the search.
        on_progress: Receives progress messages.
        trust: The code that the run's settings may name.

    Raises:
        ConfigError: If the settings name code that is not trusted.
        RunError: If the run does not exist, is finished, is damaged, or was started with other weights or images.
    """
    run = RunDirectory.open(folder)
    if run.summary.is_file():
        raise RunError(
            f"The run in {str(folder)!r} is finished: there is nothing left to do. Its result is in "
            f"{str(run.summary)!r}, and `prune-env report` writes its page; for a longer search, start a new run with "
            "more search.evaluations."
        )
    if not run.started and run.sparsify.is_dir():
        return _sparsified(resume_sparsifying(run, trust), on_progress)
    settings = settings_of(run, trust=trust)
    check_files(run, quality_of(make_task(settings.task)).name)
    splits, problem = load_problem(settings, run, on_progress)
    check_same_start(run, splits, problem)
    return SearchRun(run, settings, splits, problem)


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
        on_episode: Called with each episode of the search.

    Returns:
        The uniform plan's trial, and the result.

    Raises:
        RunError: If the search proposes other plans than the recorded ones, or another process writes into the run.
    """
    run, problem = search.run, search.problem
    written: Trial | None = None

    def record(trial: Trial) -> None:
        if not trial.recalled:
            run.append_evaluation(trial.as_record())
        on_trial(trial)

    def keep(episode: Episode, running: Search) -> None:
        nonlocal written
        if episode.best is not written and not problem.recalling:
            written = episode.best
            run.write_bytes(run.plan, written.plan.to_json())
            if running.policy is not None:
                save_policy(running.policy, run.policy)
        on_episode(episode)

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
