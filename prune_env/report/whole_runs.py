"""Complete runs in one call: a search or a comparison of searches, with TensorBoard logs, reports and pictures.

Example:
    ``run_search(RunConfig.load("configs/digits.yaml"), Path("runs/digits"))`` does what `prune-env train` does.
"""

import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prune_env.common.errors import RunError
from prune_env.config import RunConfig
from prune_env.env.loading import device_of
from prune_env.report.board import watch_on_board
from prune_env.report.page import write_report
from prune_env.report.search_comparison import write_comparison
from prune_env.runs.comparison import OnFinished, SearchComparison, compare_searches
from prune_env.runs.finishing import FinishedSearch, finish_search
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.searching import OnEpisode, OnTrial, SearchRun, resume_search, start_search
from prune_env.runs.settings import alone, for_workers
from prune_env.runs.starting import OnProgress, quietly
from prune_env.search.pools.make import check_workers, worker_count
from prune_env.search.pools.whole import spread

OnFolder = Callable[[Path], None]


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


def run_searches(runs: Mapping[Path, RunConfig], on_finished: OnFolder = quietly) -> dict[Path, dict[str, Any]]:
    """Runs several whole searches, for example one for each budget, each in its folder and with its report.

    ``search.workers`` of the first settings says how many run at a time, each in a process of its own, and
    ``run.address`` on which cluster; 1 without an address runs them in this process. Repeat an interrupted call:
    finished runs are kept, and unfinished ones are resumed.

    Args:
        runs: The settings of each run, by its folder; one or more. On a cluster, all nodes must see the folders.
        on_finished: Called with the folder of each run that this call finishes.

    Returns:
        The content of each run's ``summary.json``, by folder.

    Raises:
        UserError: As `run_search`.
    """
    missing = [folder for folder in runs if not RunDirectory(folder).summary.is_file()]
    first = next(iter(runs.values()))
    check_workers(first)
    workers, address = worker_count(first), first.run.address
    tasks = {folder: (folder.absolute(), alone(for_workers(runs[folder]))) for folder in missing}
    for folder in missing:
        RunDirectory(folder).root.parent.mkdir(parents=True, exist_ok=True)
    if workers == 1 and address is None:
        finished = ((folder, _run_in(*given)) for folder, given in tasks.items())
    else:
        finished = spread(_run_in, tasks, workers, address, device_of(first).type == "cuda")
    for folder, _ in finished:
        on_finished(folder)
    return {folder: RunDirectory(folder).read_json(RunDirectory(folder).summary) for folder in runs}


def _run_in(folder: Path, settings: RunConfig) -> None:
    """Starts or resumes one run that measures its plans in its own process, and ends it."""
    if not folder.parent.is_dir():
        raise RunError(
            f"run.address: the node {platform.node()} has no folder {str(folder.parent)!r}. Give run.directory on a "
            "disk that all nodes share."
        )
    started = RunDirectory(folder).config.is_file()
    finish_with_report(resume_search(folder) if started else start_search(settings, folder))


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
    write_report(search.run)
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
        write_report(finished.search.run)
        on_finished(finished)

    comparison = compare_searches(settings, folder, names, seeds, watch_on_board, on_progress, report, command)
    write_comparison(comparison)
    return comparison
