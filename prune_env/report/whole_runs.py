"""Complete runs in one call: searches, comparisons and fine-tunings, with TensorBoard logs, reports and pictures.

Example:
    ``run_search(RunConfig.load("configs/digits.yaml"), Path("runs/digits"))`` does what `prune-env train` does.
"""

import os
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from prune_env.common.errors import ConfigError, PageWarning, RunError
from prune_env.common.files import atomic_write, to_json
from prune_env.config import RunConfig
from prune_env.config.trust import NOTHING, Trust
from prune_env.env.loading import device_of
from prune_env.recover import Epoch
from prune_env.report.hyperparameters import log_result
from prune_env.report.live import LivePage
from prune_env.report.page import write_report
from prune_env.report.runs_page import write_comparison_page, write_runs
from prune_env.report.search_comparison import write_comparison
from prune_env.report.watching import watch_search
from prune_env.runs.comparison import OnFinished, SearchComparison, compare_searches
from prune_env.runs.finetuning import Finetuning, FinishedTraining, finish_finetuning
from prune_env.runs.finishing import FinishedSearch, finish_search
from prune_env.runs.recovery_comparison import RecoveryComparison, compare_recovery
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.searching import OnEpisode, OnTrial, SearchRun, resume_search, start_search
from prune_env.runs.settings import alone, for_workers
from prune_env.runs.starting import OnDense, OnProgress, quietly
from prune_env.runs.summaries import read_summary
from prune_env.runs.training import NOBODY, TrainingListener
from prune_env.search.pools.make import check_workers, worker_count
from prune_env.search.pools.whole import spread
from prune_env.tasks import Metric, make_task, quality_of

OnFolder = Callable[[Path], None]


def run_search(
    settings: RunConfig,
    folder: Path,
    on_progress: OnProgress = quietly,
    on_trial: OnTrial = quietly,
    on_episode: OnEpisode = quietly,
    on_dense: OnDense = quietly,
) -> FinishedSearch:
    """Runs a whole search in a new folder, with the TensorBoard log and the report.

    Args:
        settings: The settings.
        folder: A folder that does not exist.
        on_progress: Receives progress messages before the search starts.
        on_trial: Called with each trial.
        on_episode: Called with each episode of the search.
        on_dense: Receives the quality of the dense network, before anything else is measured.

    Returns:
        The run, the best plan and the measured networks.

    Raises:
        UserError: As `prune_env.runs.searching.start_search`.
    """
    return finish_with_report(start_search(settings, folder, on_progress, on_dense), on_trial, on_episode)


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
    trust = Trust.of(*runs.values())
    page = LivePage(lambda: write_side_by_side(list(runs), trust=trust))

    def finish(folder: Path) -> None:
        on_finished(folder)
        page.tick()

    missing = [folder for folder in runs if not RunDirectory(folder).summary.is_file()]
    first = next(iter(runs.values()))
    check_workers(first)
    workers, address = worker_count(first), first.run.address
    tasks = {folder: (folder.absolute(), alone(for_workers(runs[folder]))) for folder in missing}
    for folder in missing:
        RunDirectory(folder).root.parent.mkdir(parents=True, exist_ok=True)
    finished: Iterator[tuple[Path, Path]]
    if workers == 1 and address is None:
        finished = ((folder, _run_in(*given)) for folder, given in tasks.items())
    else:
        finished = spread(_run_in, tasks, workers, address, device_of(first).type == "cuda")
    for folder, _ in finished:
        finish(folder)
    write_side_by_side(list(runs), trust=trust)
    return {
        folder: read_summary(RunDirectory(folder), quality_of(make_task(settings.task)).name)
        for folder, settings in runs.items()
    }


def common_folder(folders: Sequence[Path]) -> Path:
    """The folder that holds all of several folders; it holds the page that shows their runs side by side."""
    return Path(os.path.commonpath([folder.absolute().parent for folder in folders]))


def write_side_by_side(folders: Sequence[Path], page: Path | None = None, trust: Trust = NOTHING) -> Path | None:
    """Writes a page that shows the runs among several folders side by side (`prune_env.report.runs_page.write_runs`).

    Args:
        folders: The folders; those that hold no plan yet are left out.
        page: The file to write; None for ``report.html`` in the folder that holds all of them.
        trust: The code that the settings of the runs may name.

    Returns:
        The page; None if there is nothing to show yet.

    Raises:
        RunError: If the page would replace that of a run, or as `write_runs`.
    """
    runs = [RunDirectory(folder) for folder in folders]
    started = [run for run in runs if run.config.is_file() and (run.evaluations_file.is_file() or run.plan.is_file())]
    root = common_folder(folders)
    if page is None and (root / RunDirectory(root).config.name).is_file():
        raise RunError(
            f"{str(RunDirectory(root).report)!r} is the page of a run, and the page of these runs would replace it. "
            "Give another file."
        )
    return write_runs(started, page or RunDirectory(root).report, trust) if started else None


def finetune_with_report(
    tuning: Finetuning, listener: TrainingListener = NOBODY, trust: Trust = NOTHING
) -> FinishedTraining | None:
    """Fine-tunes as `prune_env.runs.finetuning.finish_finetuning`, and keeps the run's page up to date.

    Args:
        tuning: The fine-tuning.
        listener: Receives the progress of the training.
        trust: The code that the settings of the run may name, besides the code that the training runs with.
    """
    trust = trust.also(Trust.of(tuning.settings).names)
    page = LivePage(lambda: write_report(tuning.searched, trust))

    def on_epoch(epoch: Epoch, metric: Metric) -> None:
        listener.on_epoch(epoch, metric)
        page.tick()

    finished = finish_finetuning(tuning, replace(listener, on_epoch=on_epoch))
    if finished is not None:
        write_report(tuning.searched, trust)
    return finished


def _run_in(folder: Path, settings: RunConfig) -> Path:
    """Starts or resumes one run that measures its plans in its own process, and ends it."""
    if not folder.parent.is_dir():
        raise RunError(
            f"run.address: the node {platform.node()} has no folder {str(folder.parent)!r}. Give run.directory on a "
            "disk that all nodes share."
        )
    started = RunDirectory(folder).config.is_file()
    trust = Trust.of(settings)
    finish_with_report(resume_search(folder, trust=trust) if started else start_search(settings, folder), trust=trust)
    return folder


def finish_with_report(
    search: SearchRun,
    on_trial: OnTrial = quietly,
    on_episode: OnEpisode = quietly,
    command: str | None = None,
    trust: Trust = NOTHING,
) -> FinishedSearch:
    """Runs a started or resumed search to its end, with the TensorBoard log and the report.

    Args:
        search: The result of `start_search` or `resume_search`.
        on_trial: Called with each trial.
        on_episode: Called with each episode of the search.
        command: The command that repeats the run, for the report; None for the default command.
        trust: The code that the run's settings may name, besides the code that the search runs with.
    """
    trust = trust.also(Trust.of(search.settings).names)
    finished = finish_search(search, partial(watch_search, trust=trust), on_trial, on_episode, command)
    log_result(finished)
    write_report(search.run, trust)
    return finished


def run_comparison(
    settings: RunConfig,
    folder: Path,
    names: Sequence[str],
    seeds: int,
    on_progress: OnProgress = quietly,
    on_finished: OnFinished = quietly,
    command: str | None = None,
    on_dense: OnDense = quietly,
) -> SearchComparison:
    """Compares searches, as `prune_env.runs.comparison.compare_searches`, and draws the results.

    Every run gets a TensorBoard log and a report. While they run, the folder has ``compare.html``; at the end it also
    gets ``compare.json``, ``compare.png`` and curves.
    """
    trust = Trust.of(settings).also(names)

    def write_page() -> None:
        if not any(folder.glob("seed-*/[!.]*/evaluations.jsonl")):
            return
        try:
            write_comparison_page(folder, trust)
        except ConfigError as error:  # another run in the folder names code of its own, which is no reason to stop
            warnings.warn(f"compare.html is not written: {error}", PageWarning, stacklevel=2)

    page = LivePage(write_page)
    searched: list[RunDirectory] = []

    def report(finished: FinishedSearch) -> None:
        searched.append(finished.search.run)
        log_result(finished)
        write_report(finished.search.run, trust)
        write_page()
        on_finished(finished)

    def progress(words: str) -> None:
        on_progress(words)
        page.tick()

    watch = partial(watch_search, trust=trust)
    comparison = compare_searches(settings, folder, names, seeds, watch, progress, report, command, on_dense)
    # Once more, so that every report shows the curves of all rivals, the new ones too.
    for run in comparison.runs if searched else ():
        write_report(run, trust)
    write_page()
    write_comparison(comparison)
    return comparison


def run_recovery(
    settings: RunConfig,
    folder: Path,
    names: Sequence[str],
    seeds: Sequence[int],
    workers: int | None = 1,
    on_progress: OnProgress = quietly,
) -> RecoveryComparison:
    """Fine-tunes the runs of a finished comparison, as `compare_recovery`, and writes ``recovered.json``."""
    recovered = compare_recovery(settings, folder, names, seeds, workers, on_progress)
    atomic_write(folder / "recovered.json", to_json(recovered.as_record()).encode())
    return recovered
