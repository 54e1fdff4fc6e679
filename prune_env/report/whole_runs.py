"""Complete runs in one call: a search or a comparison of searches, with TensorBoard logs, reports and pictures.

Example:
    ``run_search(RunConfig.load("configs/digits.yaml"), Path("runs/digits"))`` does what `prune-env train` does.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

from prune_env.config import RunConfig
from prune_env.config.trust import Trust
from prune_env.report.board import watch_on_board
from prune_env.report.page import write_report
from prune_env.report.search_comparison import write_comparison
from prune_env.runs.comparison import OnFinished, SearchComparison, compare_searches
from prune_env.runs.finishing import FinishedSearch, finish_search
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.searching import OnEpisode, OnTrial, SearchRun, resume_search, start_search
from prune_env.runs.settings import alone
from prune_env.runs.starting import OnProgress, quietly
from prune_env.search.pools.processes import searching_processes


def run_search(
    settings: RunConfig,
    folder: Path,
    on_progress: OnProgress = quietly,
    on_trial: OnTrial = quietly,
    on_episode: OnEpisode = quietly,
) -> FinishedSearch:
    """Runs a whole search in a new folder, with the TensorBoard log and the report.

    Args:
        settings: The settings.
        folder: A folder that does not exist.
        on_progress: Receives progress messages before the search starts.
        on_trial: Called with each trial.
        on_episode: Called with each episode of the search.

    Returns:
        The run, the best plan and the measured networks.

    Raises:
        UserError: As `prune_env.runs.searching.start_search`.
    """
    return finish_with_report(start_search(settings, folder, on_progress), on_trial, on_episode)


def run_searches(
    runs: Mapping[Path, RunConfig], workers: int = 1, on_finished: Callable[[Path], None] = quietly
) -> dict[Path, dict[str, Any]]:
    """Runs several whole searches, for example one for each budget, each in its folder and with its report.

    Repeat an interrupted call: finished runs are kept, and unfinished ones are resumed.

    Args:
        runs: The settings of each run, by its folder.
        workers: How many searches run at a time, each in a process of its own; 1 runs them in this process.
        on_finished: Called with the folder of each run that this call finishes.

    Returns:
        The content of each run's ``summary.json``, by folder.

    Raises:
        UserError: As `run_search`.
    """
    missing = [folder for folder in runs if not RunDirectory(folder).summary.is_file()]
    if workers == 1:
        for folder in missing:
            on_finished(_run_in(folder, runs[folder]))
    else:
        with searching_processes(workers) as pool:
            for done in as_completed([pool.submit(_run_in, folder, runs[folder]) for folder in missing]):
                on_finished(done.result())
    return {folder: RunDirectory(folder).read_json(RunDirectory(folder).summary) for folder in runs}


def _run_in(folder: Path, settings: RunConfig) -> Path:
    """Starts or resumes one run that measures its plans in its own process, and ends it."""
    started = RunDirectory(folder).config.is_file()
    trust = Trust.of(settings)
    finish_with_report(resume_search(folder, trust=trust) if started else start_search(alone(settings), folder))
    return folder


def finish_with_report(
    search: SearchRun, on_trial: OnTrial = quietly, on_episode: OnEpisode = quietly, command: str | None = None
) -> FinishedSearch:
    """Runs a started or resumed search to its end, with the TensorBoard log and the report.

    Args:
        search: The result of `start_search` or `resume_search`.
        on_trial: Called with each trial.
        on_episode: Called with each episode of the search.
        command: The command that repeats the run, for the report; None for the default command.
    """
    finished = finish_search(search, watch_on_board, on_trial, on_episode, command)
    write_report(search.run, Trust.of(search.settings))
    return finished


def run_comparison(
    settings: RunConfig,
    folder: Path,
    names: Sequence[str],
    seeds: int,
    on_progress: OnProgress = quietly,
    on_finished: OnFinished = quietly,
    command: str | None = None,
) -> SearchComparison:
    """Compares searches, as `prune_env.runs.comparison.compare_searches`, and draws the results.

    Every run gets a TensorBoard log and a report. The folder gets ``compare.json``, ``compare.png`` and curves.
    """

    def report(finished: FinishedSearch) -> None:
        write_report(finished.search.run, Trust.of(finished.search.settings))
        on_finished(finished)

    comparison = compare_searches(settings, folder, names, seeds, watch_on_board, on_progress, report, command)
    write_comparison(comparison)
    return comparison
