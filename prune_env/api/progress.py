"""Shows how a call of `prune_env.prune` goes on: a bar in terminals and notebooks, plain lines elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from prune_env.env.trial import Trial
from prune_env.evaluation.dense import DenseQuality
from prune_env.recover import Epoch
from prune_env.runs.training import Step, TrainingListener
from prune_env.search.episode import Episode
from prune_env.tasks import Metric

LINES = 5
"""Number of lines about the search where there is no bar [our choice]."""


class Shown:
    """Shows the phases, the search and the fine-tuning of one call.

    Args:
        evaluations: Number of evaluations of the search.
        console: Where to show them.
        bar: The bar; None prints plain lines.
    """

    def __init__(self, evaluations: int, console: Console, bar: Progress | None) -> None:
        self._evaluations = evaluations
        self._console = console
        self._bar = bar
        self._task: TaskID | None = None
        self._best = ""
        self._said = ""

    def on_progress(self, words: str) -> None:
        """Shows a phase."""
        if self._bar is not None:
            self._show(words, None, 0)
        elif (phase := words.partition(":")[0]) != self._said:  # a phase that counts says the same words before a colon
            self._said = phase
            self._print(phase)

    def on_dense(self, dense: DenseQuality) -> None:
        """Prints the dense network's quality."""
        self._print(str(dense))

    def on_trial(self, trial: Trial) -> None:
        """Shows how many plans were measured."""
        done = trial.number  # the uniform plan comes first and is no evaluation of the search
        every = max(1, self._evaluations // LINES)
        if self._bar is not None:
            self._show("search", self._evaluations, done)
        elif done and (done % every == 0 or done == self._evaluations):
            self._print(f"search: {done} of {self._evaluations} evaluations{self._best}")

    def on_episode(self, episode: Episode) -> None:
        """Shows the best plan so far."""
        best = episode.best
        self._best = f", best reward {best.reward:.4g}, {best.quality_name} {best.outcome.quality:.2%}"
        if self._bar is not None:
            self._show("search", self._evaluations, episode.trial.number)

    def training(self) -> TrainingListener:
        """A listener for the fine-tuning."""
        self._best = ""
        return TrainingListener(self.on_progress, self._on_step, self._on_epoch)

    def _on_step(self, step: Step) -> None:
        if self._bar is not None:
            self._show(f"fine-tuning, epoch {step.epoch}", step.of, step.done)

    def _on_epoch(self, epoch: Epoch, metric: Metric) -> None:
        self._best = f", loss {epoch.loss:.3f}, {metric.name} {epoch.quality:{metric.format}}"
        if self._bar is None:
            self._print(f"fine-tuning: epoch {epoch.number}{self._best}")
        elif self._task is not None:
            self._bar.update(self._task, best=self._best.removeprefix(", "))

    def _show(self, words: str, total: int | None, done: int) -> None:
        assert self._bar is not None
        if self._task is None:
            self._task = self._bar.add_task("", total=None, best="")
        self._bar.update(self._task, description=words, total=total, completed=done, best=self._best.removeprefix(", "))

    def _print(self, words: str) -> None:
        self._console.print(words, markup=False, highlight=False, soft_wrap=True)


class Silent(Shown):
    """Shows nothing."""

    def __init__(self) -> None:
        super().__init__(1, Console(quiet=True), None)


@contextmanager
def shown(progress: bool, evaluations: int) -> Iterator[Shown]:
    """Yields what shows a call of `prune_env.prune`.

    A notebook has a bar where ipywidgets is installed.

    Args:
        progress: Whether to show anything.
        evaluations: Number of evaluations of the search.
    """
    if not progress:
        yield Silent()
        return
    notebook = Console().is_jupyter
    if not (find_spec("ipywidgets") is not None if notebook else sys.stderr.isatty()):
        # Plain text: a notebook would frame each line of rich.
        lines = Console(file=sys.stdout if notebook else sys.stderr, force_jupyter=False, force_terminal=False)
        yield Shown(evaluations, lines, None)
        return
    console = Console() if notebook else Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[best]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield Shown(evaluations, console, bar)
