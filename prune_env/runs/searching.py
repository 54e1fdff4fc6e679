"""A search into a run directory: it is started or resumed, and run to its end.

`prune_env.report.whole_runs.run_search` makes a whole run by one call, with TensorBoard and the report.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import agents  # noqa: F401  (registers the searches)
from prune_env.common.errors import RunError
from prune_env.config import RunConfig
from prune_env.data import Splits
from prune_env.env.loading import check_names
from prune_env.env.problem import PruningProblem
from prune_env.env.trial import Trial
from prune_env.runs.directory import RunDirectory
from prune_env.runs.settings import settings_of
from prune_env.runs.starting import OnProgress, check_same_start, load_problem, quietly, start_run
from prune_env.search.base import Search
from prune_env.search.episode import Episode, Listener, SearchResult
from prune_env.search.loop import train_agent
from prune_env.search.policy import save_policy
from prune_env.search.registry import check_evaluations, check_search

OnTrial = Callable[[Trial], None]
OnEpisode = Callable[[Episode], None]


@dataclass(frozen=True)
class SearchRun:
    """A search that has been started, and may have been interrupted.

    Attributes:
        run: Its folder.
        settings: Its settings.
        splits: Its data.
        problem: What is searched; without trials.
    """

    run: RunDirectory
    settings: RunConfig
    splits: Splits
    problem: PruningProblem


Watch = Callable[[SearchRun], AbstractContextManager[Listener]]
"""Opens a listener for as long as a search runs; see `prune_env.report.board.watch_on_board`."""


def unwatched(_: SearchRun) -> AbstractContextManager[Listener]:
    """A listener that does nothing."""
    return nullcontext(lambda _episode, _search: None)


def start_search(settings: RunConfig, folder: Path, on_progress: OnProgress = quietly) -> SearchRun:
    """Starts a search in a new folder; nothing is tried yet.

    Args:
        settings: The settings.
        folder: A folder that does not exist.
        on_progress: Hears in words what is going on.

    Raises:
        RunError: If the folder exists or cannot be made.
        ConfigError: If a setting names what does not exist, or the evaluations do not suffice.
        BudgetError: If the budget cannot be met.
    """
    RunDirectory.check_free(folder)
    check_names(settings)
    check_search(settings)
    splits, problem = load_problem(settings, on_progress=on_progress)
    check_evaluations(problem, settings)
    return SearchRun(start_run(folder, settings, splits, problem), settings, splits, problem)


def resume_search(folder: Path, on_progress: OnProgress = quietly) -> SearchRun:
    """Goes back to a search that was interrupted, with its own settings.

    Args:
        folder: The folder that it was started in.
        on_progress: Hears in words what is going on.

    Raises:
        RunError: If there is none, it is finished, or it was started with other weights or images.
    """
    run = RunDirectory.open(folder)
    if run.summary.is_file():
        raise RunError(
            f"The run in {str(folder)!r} is finished: there is nothing left to do. Its result is in "
            f"{str(run.summary)!r}, and `prune-env report` writes its page; for a longer search, start a new run with "
            "more search.evaluations."
        )
    settings = settings_of(run)
    splits, problem = load_problem(settings, run, on_progress)
    check_same_start(run, splits, problem)
    return SearchRun(run, settings, splits, problem)


def search_into(
    search: SearchRun, watch: Watch = unwatched, on_trial: OnTrial = quietly, on_episode: OnEpisode = quietly
) -> tuple[Trial, SearchResult]:
    """Tries the uniform plan and runs the search, keeping every trial, the best plan and the policy in the run.

    What the run holds already is gone through again without measuring it: a search is a function of the outcomes that
    it sees, so these bring it to where it was.

    Args:
        search: The search.
        watch: Opens a listener of the search.
        on_trial: Hears of each trial.
        on_episode: Hears of each plan that the search proposed.

    Returns:
        The uniform plan's trial, and the result.

    Raises:
        RunError: If the run's evaluations are not what the search proposes, or another process is at the run.
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
        problem.recorded_trials = run.evaluations()
        problem.listeners.append(record)
        try:
            with watch(search) as listener:
                uniform = problem.attempt(problem.budget.uniform(), "uniform")
                result = train_agent(problem, search.settings, (keep, listener))
        finally:
            problem.listeners.remove(record)
        run.write_bytes(run.plan, result.best.plan.to_json())
        if result.policy is not None:
            save_policy(result.policy, run.policy)
    return uniform, result
