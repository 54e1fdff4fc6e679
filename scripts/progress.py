"""The progress of the commands: bars in a terminal, plain lines in a file or a pipe."""

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.progress import BarColumn, Progress, TaskID, TimeRemainingColumn, track

from prune_env.commands.common import console, notice
from prune_env.commands.console import PlainColumn
from prune_env.common.words import counted
from prune_env.env.trial import Trial
from prune_env.recover import Epoch
from prune_env.runs.searching import OnEpisode, OnTrial, SearchRun
from prune_env.runs.training import Step, TrainingListener
from prune_env.search.episode import Episode
from prune_env.tasks import Metric

LINES = 20
"""Lines about a search where there is no terminal [our choice]."""

SECONDS = 30.0
"""Least time between two lines that differ only in their numbers, where there is no terminal [our choice]."""


@contextmanager
def phases(first: str) -> Iterator[Callable[[str], None]]:
    """Yields a function that tells what a command does: a spinner in a terminal, a line for each phase elsewhere."""
    if console.is_terminal:
        with console.status(first) as status:
            yield status.update
    else:
        lines = _Lines()
        lines(first)
        yield lines


Item = TypeVar("Item")


def tracked(items: Iterable[Item], words: str, total: int) -> Iterator[Item]:
    """Yields the items, with a bar in a terminal and a line elsewhere."""
    if not console.is_terminal and total:
        notice(words)
    yield from track(items, words, total, console=console, disable=not console.is_terminal)


class _Lines:
    """Prints a line for each phase; a phase whose numbers change prints one at times."""

    def __init__(self) -> None:
        self.phase = ""
        self.printed = 0.0

    def __call__(self, words: str) -> None:
        phase = re.sub(r"\d[\d.]*", "#", words)
        if phase != self.phase or time.monotonic() - self.printed > SECONDS:
            notice(words)
            self.phase, self.printed = phase, time.monotonic()


@contextmanager
def shown_search(search: SearchRun) -> Iterator[tuple[OnTrial, OnEpisode]]:
    """Yields listeners for the trials and the episodes of a search, which show how far it is."""
    total = search.settings.search.evaluations
    every = max(1, total // LINES)
    best = f"best reward -, {search.problem.quality_name} -"
    started = time.monotonic()
    with _progress("{task.completed:.0f}/{task.total:.0f}", "{task.description}") as progress:
        bar = progress.add_task(best, total=total)

        def show(trial: Trial) -> None:
            # The uniform plan is trial 0, so that the number of a trial says how many evaluations are done.
            progress.update(bar, completed=trial.number, description=best)
            if not console.is_terminal and trial.number and trial.number % every == 0 and not trial.recalled:
                notice(f"search: {trial.number} of {total} evaluations, {best}; {time.monotonic() - started:.0f} s")

        def on_trial(trial: Trial) -> None:
            if trial.proposed_by != search.settings.agent.name:
                show(trial)

        def on_episode(episode: Episode) -> None:
            nonlocal best
            outcome = f"{episode.best.quality_name} {episode.best.outcome.quality:.2%}"
            best = f"best reward {episode.best.reward:.4g}, {outcome}{_of_workers(episode)}"
            show(episode.trial)

        yield on_trial, on_episode


def _of_workers(episode: Episode) -> str:
    """Workers, and evaluations a second; empty where this process measures. TensorBoard shows more."""
    told = {tag.removeprefix("workers/"): value for tag, value in episode.scalars.items() if tag.startswith("workers/")}
    if not told:
        return ""
    return f"; {counted(round(told['workers']), 'worker')}, {told['evaluations_per_second']:.1f}/s"


@contextmanager
def shown_training() -> Iterator[TrainingListener]:
    """Yields a listener that shows a training from its first event on."""
    progress = _progress("{task.description}", "loss {task.fields[loss]}, {task.fields[quality]}")
    bar: TaskID | None = None
    lines, last = _Lines(), Step(0, 0, 0)

    def update(**fields: str | int) -> None:
        nonlocal bar
        if bar is None:
            # Start late: with several processes, only the first one receives events and shows a bar.
            progress.start()
            bar = progress.add_task("", total=None, loss="-", quality="-")
        progress.update(bar, **fields)  # type: ignore[arg-type]

    def on_progress(words: str) -> None:
        if console.is_terminal:
            update(description=words)
        else:
            lines(words)

    def on_step(step: Step) -> None:
        nonlocal last
        last = step
        if console.is_terminal:
            update(description=f"epoch {step.epoch}, {step.done}/{step.of} steps", completed=step.done, total=step.of)

    def on_epoch(epoch: Epoch, metric: Metric) -> None:
        quality = f"{metric.name} {epoch.quality:{metric.format}}"
        if console.is_terminal:
            update(loss=f"{epoch.loss:.4f}", quality=quality)
        else:
            done = f"epoch {epoch.number}, {last.done} of {last.of} steps"
            notice(f"{done}: loss {epoch.loss:.4f}, {quality}, {epoch.seconds:.0f} s")

    try:
        yield TrainingListener(on_progress, on_step, on_epoch)
    finally:
        if bar is not None:
            progress.stop()


def _progress(first: str, *others: str) -> Progress:
    """A bar between texts, as wide as the terminal leaves room for."""
    columns = (PlainColumn(first), BarColumn(bar_width=None), *map(PlainColumn, others), TimeRemainingColumn())
    return Progress(*columns, console=console, expand=True, disable=not console.is_terminal)
