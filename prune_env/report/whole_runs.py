"""Whole runs by one call: a search, or a comparison of searches, with TensorBoard, reports and pictures.

Example:
    ``run_search(RunConfig.load("configs/digits.yaml"), Path("runs/digits"))`` does what `prune-env train` does.
"""

from collections.abc import Sequence
from pathlib import Path

from prune_env.config import RunConfig
from prune_env.report.board import watch_on_board
from prune_env.report.page import write_report
from prune_env.report.search_comparison import write_comparison
from prune_env.runs.comparison import OnFinished, SearchComparison, compare_searches
from prune_env.runs.finishing import FinishedSearch, finish_search
from prune_env.runs.searching import OnEpisode, OnTrial, SearchRun, start_search
from prune_env.runs.starting import OnProgress, quietly


def run_search(
    settings: RunConfig,
    folder: Path,
    on_progress: OnProgress = quietly,
    on_trial: OnTrial = quietly,
    on_episode: OnEpisode = quietly,
) -> FinishedSearch:
    """Searches a plan into a new folder, with TensorBoard and the report: a whole run by one call.

    Args:
        settings: The settings.
        folder: A folder that does not exist.
        on_progress: Hears in words what is going on before the search.
        on_trial: Hears of each plan tried.
        on_episode: Hears of each plan that the search proposed.

    Returns:
        The run, the best plan and the networks side by side.

    Raises:
        UserError: As `prune_env.runs.searching.start_search`.
    """
    return finish_with_report(start_search(settings, folder, on_progress), on_trial, on_episode)


def finish_with_report(
    search: SearchRun, on_trial: OnTrial = quietly, on_episode: OnEpisode = quietly, command: str | None = None
) -> FinishedSearch:
    """Runs a search that was started or resumed to its end, with TensorBoard and the report.

    Args:
        search: What `start_search` or `resume_search` gave.
        on_trial: Hears of each plan tried.
        on_episode: Hears of each plan that the search proposed.
        command: The command that makes the run again, for the report; the usual one where it is None.
    """
    found = finish_search(search, watch_on_board, on_trial, on_episode, command)
    write_report(search.run)
    return found


def run_comparison(
    settings: RunConfig,
    folder: Path,
    names: Sequence[str],
    seeds: int,
    on_progress: OnProgress = quietly,
    on_finished: OnFinished = quietly,
    command: str | None = None,
) -> SearchComparison:
    """Compares searches as `prune_env.runs.comparison.compare_searches` does, and draws what they found.

    Every run gets its TensorBoard log and its report; the folder gets ``compare.json``, ``compare.png`` and curves.
    """

    def report(found: FinishedSearch) -> None:
        write_report(found.search.run)
        on_finished(found)

    comparison = compare_searches(settings, folder, names, seeds, watch_on_board, on_progress, report, command)
    write_comparison(comparison)
    return comparison
