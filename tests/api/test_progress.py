"""What a call shows: plain lines where there is no terminal, a bar in one, and nothing where it is not wanted."""

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn
from toy import TASK

from prune_env.api.progress import Shown, shown
from prune_env.evaluation.dense import DenseQuality
from prune_env.recover import Epoch
from prune_env.runs.training import Step
from prune_env.tasks import quality_of

METRIC = quality_of(TASK)


def play(show: Shown) -> None:
    """A short call: reading, measuring, a search of ten plans, an epoch."""
    for count in (64, 128):
        show.on_progress(f"reading the targets of train: {count} of 128")
    show.on_dense(DenseQuality(METRIC, 0.975, 0.975, 0.975, 400, 0.1, 400, ""))
    best: Any = SimpleNamespace(reward=-0.25, quality_name="accuracy", outcome=SimpleNamespace(quality=0.75))
    for number in range(11):
        trial: Any = SimpleNamespace(number=number)
        show.on_trial(trial)
        if number:
            episode: Any = SimpleNamespace(best=best, trial=trial)
            show.on_episode(episode)
    listener = show.training()
    listener.on_progress("building the network")
    listener.on_step(Step(1, 1, 4))
    listener.on_epoch(Epoch(1, 0.5, 0.01, 1.0, 0.0, 0.8), METRIC)


def test_without_a_terminal_each_phase_is_a_line_and_a_search_a_few() -> None:
    text = io.StringIO()
    play(Shown(10, Console(file=text, width=80), None))
    assert text.getvalue().splitlines() == [
        "reading the targets of train",
        "dense network: accuracy 97.50% on 400 reward images",
        "search: 2 of 10 evaluations, best reward -0.25, accuracy 75.00%",
        "search: 4 of 10 evaluations, best reward -0.25, accuracy 75.00%",
        "search: 6 of 10 evaluations, best reward -0.25, accuracy 75.00%",
        "search: 8 of 10 evaluations, best reward -0.25, accuracy 75.00%",
        "search: 10 of 10 evaluations, best reward -0.25, accuracy 75.00%",
        "building the network",
        "fine-tuning: epoch 1, loss 0.500, accuracy 80.00%",
    ]


def test_a_terminal_has_one_bar_and_the_dense_quality_stays_above_it() -> None:
    text = io.StringIO()
    console = Console(file=text, width=100, force_terminal=True, legacy_windows=False)
    column = TextColumn("{task.description} {task.completed:.0f}/{task.total} {task.fields[best]}")
    with Progress(column, console=console, transient=True, auto_refresh=False) as bar:
        play(Shown(10, console, bar))
        (task,) = bar.tasks
        assert (task.description, task.completed, task.total) == ("fine-tuning, epoch 1", 1, 4)
        assert task.fields["best"] == "loss 0.500, accuracy 80.00%"
    assert "dense network: accuracy 97.50% on 400 reward images" in text.getvalue()


def test_silence_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with shown(False, 10) as show:
        play(show)
    assert capfd.readouterr() == ("", "")
    # pytest's standard error is no terminal.
    with shown(True, 10) as show:
        play(show)
    assert capfd.readouterr().err.startswith("reading the targets of train\n")
